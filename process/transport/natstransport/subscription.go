package natstransport

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"steward/process"
	"steward/process/transport/internal/mailbox"
	"steward/process/transport/internal/subjects"
)

// subscription outlives connections; on each it is one subscription of the library.
type subscription struct {
	transport *Transport
	pattern   string
	handle    func(process.Delivery)
	closed    atomic.Bool
	// turn has room for the one call under way. It is needed because the library's
	// subscription on a new connection knows nothing of a call that the one on an old
	// connection has not finished.
	turn    chan struct{}
	current *nats.Subscription // guarded by Transport.mu
}

// Subscribe calls handle for what arrives on pattern. When there is a link, the broker has
// been told before Subscribe returns, in order with what is published afterwards; use Flush
// to be sure that it has taken note.
func (t *Transport) Subscribe(pattern string, handle func(process.Delivery)) (process.Subscription, error) {
	if err := subjects.CheckPattern(pattern); err != nil {
		return nil, err
	}
	s := &subscription{transport: t, pattern: pattern, handle: handle, turn: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("subscribe %s: %w", pattern, net.ErrClosed)
	}
	t.subs[s] = struct{}{}
	t.added++
	if t.link != nil {
		t.join(t.link, s)
	}
	return s, nil
}

// join puts s in force on l. Transport.mu is held.
func (t *Transport) join(l *link, s *subscription) {
	sub, err := l.nc.Subscribe(s.pattern, func(m *nats.Msg) { s.deliver(l, m) })
	if err == nil {
		s.current = sub
		err = sub.SetPendingLimits(mailbox.MaxDeliveries, mailbox.MaxBytes)
	}
	if err != nil {
		// The pattern has been checked, so it is the connection that ended; the next one
		// takes all subscriptions over.
		t.opts.Log.Debug("subscription waits for the next connection", "subject", s.pattern, "err", err)
	}
}

// deliver runs on the library's goroutine for this subscription.
func (s *subscription) deliver(l *link, m *nats.Msg) {
	select {
	case s.turn <- struct{}{}:
	case <-l.gone:
		return
	}
	defer func() { <-s.turn }()
	if s.closed.Load() || !s.transport.calls.enter() {
		return
	}
	defer s.transport.calls.leave()
	d := process.Delivery{Subject: m.Subject, Reply: m.Reply, Data: m.Data}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		d = process.Delivery{Subject: m.Subject, NoResponders: true}
	}
	s.handle(d)
}

// Close ends the subscription without waiting for a call under way.
func (s *subscription) Close() {
	if s.closed.Swap(true) {
		return
	}
	t := s.transport
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.subs, s)
	if s.current != nil {
		// It fails only on a connection that is gone, and the subscription with it.
		_ = s.current.Unsubscribe()
	}
}

// calls counts handler calls, so that Close can wait for them.
type calls struct {
	mu      sync.Mutex // guards the fields below
	running int
	closed  bool
	idle    chan struct{} // closed when closed and none runs
}

func (c *calls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running++
	return true
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.closed && c.running == 0 {
		close(c.idle)
	}
}

func (c *calls) close() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		if c.running == 0 {
			close(c.idle)
		}
	}
	return c.idle
}
