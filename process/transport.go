package process

import (
	"context"
	"errors"
)

// ErrOffline says that the transport has no link at the moment. What was to be sent has
// not been sent, and will not be sent later either.
var ErrOffline = errors.New("no connection to the broker")

// ErrTooLarge says that a frame is larger than the link can ever carry.
var ErrTooLarge = errors.New("larger than the broker accepts")

// Transport carries frames between nodes, at most once and with no promise of order: what
// can get lost, doubled or late is mended by [Publisher] and [Subscriber]. All methods may
// be called by many goroutines at once.
type Transport interface {
	// Publish hands data to the link and returns without waiting for a receiver. reply is
	// the subject for answers, or empty. The transport does not keep data after it returns.
	// On a new link it may work a moment before State says so, but not before the broker was
	// told of all subscriptions: who answers finds them in force.
	// The error is or wraps ErrOffline or ErrTooLarge, or is another reason of the link.
	Publish(subject, reply string, data []byte) error

	// Subscribe calls handle for each delivery on subject, one after the other, until the
	// subscription is closed. A last part of "*" matches any one part. It does not wait for
	// the broker and works offline: the subscription is in force as soon as there is a link,
	// and again after each reconnect. handle owns d.Data and may block, which holds up this
	// subscription only; then deliveries may get dropped.
	Subscribe(subject string, handle func(d Delivery)) (Subscription, error)

	// Flush returns when the broker has processed all that was published and subscribed
	// before, or with ErrOffline or the context's error.
	Flush(ctx context.Context) error

	// State reports whether there is a link now, and a channel that is closed when that
	// changes. A link is reported only once all subscriptions are in force on it.
	State() (up bool, changed <-chan struct{})

	// MaxPayload is the largest frame the link carries, in bytes.
	MaxPayload() int
}

// Subscription is one running subscription.
type Subscription interface {
	// Close ends it. It does not wait for a handle call under way, and may be called twice.
	Close()
}

// Delivery is one frame as it arrived.
type Delivery struct {
	Subject string
	Reply   string // where answers go; empty when none is wanted
	Data    []byte
	// NoResponders marks the link's own notice, sent to the reply subject of a frame, that
	// nobody listens on the subject of that frame. Data is empty.
	NoResponders bool
	// Local marks a frame from this very node, which never was on a broker.
	Local bool
}
