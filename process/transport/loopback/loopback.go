// Package loopback keeps frames of a node to itself inside the node: they need no broker,
// and so work without one.
//
// A [Transport] wraps another one. Frames on subjects that are the node's own go straight
// to the node's own subscriptions, marked Local; everything else passes through. Wrapped
// and own frames share the rules of a link: copied data, one call at a time for each
// subscription, bounded queues that drop, a notice when nobody listens.
//
// State, Flush and MaxPayload are those of the wrapped transport: own frames need no link,
// and a subscription is in force for them as soon as Subscribe returns.
package loopback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"steward/process"
	"steward/process/transport/internal/mailbox"
	"steward/process/transport/internal/subjects"
)

// Options says what to wrap.
type Options struct {
	// Inner carries the frames of others. It is not closed by this package.
	Inner process.Transport
	// Mine reports whether nobody but this node listens on subject. It is called by many
	// goroutines at once. A subject that others listen on as well must not be claimed,
	// since they would get nothing.
	Mine func(subject string) bool
}

// Transport is a process.Transport with a short way home.
type Transport struct {
	inner process.Transport
	mine  func(string) bool

	mu     sync.Mutex      // guards the fields below; not held while handlers or inner run
	subs   []*subscription // in order of creation
	closed bool
}

var _ process.Transport = (*Transport)(nil)

// New wraps o.Inner. End it with Close.
func New(o Options) (*Transport, error) {
	if o.Inner == nil || o.Mine == nil {
		return nil, errors.New("loopback transport: needs a transport and a rule for own subjects")
	}
	return &Transport{inner: o.Inner, mine: o.Mine}, nil
}

type subscription struct {
	transport *Transport
	pattern   string
	box       *mailbox.Box // own frames
	inner     process.Subscription
	closed    atomic.Bool
	// turn has room for the handler call under way, from the box or from inner.
	turn chan struct{}
}

// Subscribe takes frames of this node and, through the wrapped transport, of others.
func (t *Transport) Subscribe(pattern string, handle func(process.Delivery)) (process.Subscription, error) {
	s := &subscription{transport: t, pattern: pattern, turn: make(chan struct{}, 1)}
	call := func(d process.Delivery) {
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
		if !s.closed.Load() {
			handle(d)
		}
	}
	s.box = mailbox.New(call)
	inner, err := t.inner.Subscribe(pattern, call)
	if err != nil {
		return nil, err
	}
	s.inner = inner
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.subs = append(t.subs, s)
	}
	t.mu.Unlock()
	if closed {
		inner.Close()
		return nil, fmt.Errorf("subscribe %s: %w", pattern, net.ErrClosed)
	}
	return s, nil
}

// Close ends the subscription without waiting for a call under way.
func (s *subscription) Close() {
	t := s.transport
	t.mu.Lock()
	t.subs = slices.DeleteFunc(t.subs, func(other *subscription) bool { return other == s })
	t.mu.Unlock()
	s.end()
}

func (s *subscription) end() {
	s.closed.Store(true)
	s.box.Close()
	s.inner.Close()
}

// Publish delivers frames on own subjects, with a link or without, and passes all others
// on. A subscription whose queue is full misses the frame.
func (t *Transport) Publish(subject, reply string, data []byte) error {
	if !t.mine(subject) {
		return t.inner.Publish(subject, reply, data)
	}
	if err := subjects.Check(subject); err != nil {
		return err
	}
	if reply != "" {
		if err := subjects.Check(reply); err != nil {
			return fmt.Errorf("reply: %w", err)
		}
	}
	// What passes here must also pass when the node is asked to send it to another.
	if most := t.inner.MaxPayload(); len(data) > most {
		return fmt.Errorf("frame of %d bytes: %w (%d)", len(data), process.ErrTooLarge, most)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return process.ErrOffline
	}
	heard := false
	for _, s := range t.subs {
		if subjects.Match(s.pattern, subject) {
			heard = true
			s.box.Put(process.Delivery{Subject: subject, Reply: reply, Data: bytes.Clone(data), Local: true})
		}
	}
	if heard || reply == "" {
		return nil
	}
	for _, s := range t.subs {
		if subjects.Match(s.pattern, reply) {
			s.box.Put(process.Delivery{Subject: reply, NoResponders: true, Local: true})
			break // one notice, as from a broker
		}
	}
	return nil
}

// Flush flushes the wrapped transport.
func (t *Transport) Flush(ctx context.Context) error { return t.inner.Flush(ctx) }

// State is that of the wrapped transport.
func (t *Transport) State() (up bool, changed <-chan struct{}) { return t.inner.State() }

// MaxPayload is that of the wrapped transport.
func (t *Transport) MaxPayload() int { return t.inner.MaxPayload() }

// Close ends all subscriptions and waits for own frames under way, or until ctx ends. It
// does not close the wrapped transport. It may be called twice, and not by a handler.
func (t *Transport) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	subs := slices.Clone(t.subs)
	t.mu.Unlock()
	for _, s := range subs {
		s.end()
	}
	for _, s := range subs {
		select {
		case <-s.box.Ended():
		case <-ctx.Done():
			return fmt.Errorf("close loopback transport: the handler of %s is still busy: %w", s.pattern, ctx.Err())
		}
	}
	return nil
}
