package natstransport

import (
	"context"
	"net"
	"sync"

	"github.com/nats-io/nats.go"

	"steward/process"
)

const (
	// inboxSize bounds the messages of one connection between the library and the queues of their
	// subscriptions. The library drops what finds no room there, so no more is read than fits.
	inboxSize = 1024
	// minMessage is the least that a message takes on the wire, in bytes.
	minMessage = len("MSG a 1 0\r\n\r\n")
)

// inbox has all messages of a connection, in the order in which they came. The library would keep a
// goroutine for each subscription, of which a node has dozens. One here sorts the messages into the
// queues of their subscriptions instead, which have goroutines only while they hold something.
type inbox struct {
	arrived chan *nats.Msg
	emptied chan struct{} // one slot

	mu   sync.Mutex // guards subs
	subs map[*nats.Subscription]*subscription
}

func newInbox() *inbox {
	return &inbox{arrived: make(chan *nats.Msg, inboxSize), emptied: make(chan struct{}, 1), subs: map[*nats.Subscription]*subscription{}}
}

func (i *inbox) add(sub *nats.Subscription, s *subscription) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.subs[sub] = s
}

func (i *inbox) remove(sub *nats.Subscription) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.subs, sub)
}

func (i *inbox) find(sub *nats.Subscription) *subscription {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.subs[sub]
}

// sort takes what arrives on l to its subscriptions, until l has ended.
func (t *Transport) sort(l *link) {
	defer close(l.sorted)
	for {
		select {
		case m := <-l.inbox.arrived:
			if s := t.subscriptionOf(l, m.Sub); s != nil {
				s.put(l, m)
			}
			if len(l.inbox.arrived) == 0 {
				select {
				case l.inbox.emptied <- struct{}{}:
				default:
				}
			}
		case <-l.gone:
			return
		}
	}
}

// subscriptionOf returns nil for one that has ended.
func (t *Transport) subscriptionOf(l *link, sub *nats.Subscription) *subscription {
	if s := l.inbox.find(sub); s != nil {
		return s
	}
	t.mu.Lock() // it may be about to be added
	defer t.mu.Unlock()
	return l.inbox.find(sub)
}

// put queues m for the handler. It does not wait.
func (s *subscription) put(l *link, m *nats.Msg) {
	d := process.Delivery{Subject: m.Subject, Reply: m.Reply, Data: m.Data}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		d = process.Delivery{Subject: m.Subject, NoResponders: true}
	}
	if !s.box.Put(d) && !s.closed.Load() {
		l.seen.dropped(s.pattern)
	}
}

// pacedConn reads only what the inbox has room for. Below TLS that is exact for all but messages of a
// few bytes, which are garbage: a record is decrypted as a whole.
type pacedConn struct {
	net.Conn
	ctx   context.Context // ends with the connection
	inbox *inbox
}

func (c pacedConn) Read(p []byte) (int, error) {
	for len(c.inbox.arrived) > inboxSize/2 {
		select {
		case <-c.inbox.emptied:
		case <-c.ctx.Done():
			return 0, net.ErrClosed
		}
	}
	room := inboxSize - len(c.inbox.arrived) - 1 // one message may have begun before
	return c.Conn.Read(p[:min(len(p), room*minMessage)])
}
