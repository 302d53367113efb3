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
	closed    atomic.Bool
	box       *mailbox.Box
	current   *nats.Subscription // guarded by Transport.mu
}

// Subscribe calls handle for what arrives on pattern. When there is a link, the broker has
// been told before Subscribe returns, in order with what is published afterwards; use Flush
// to be sure that it has taken note.
func (t *Transport) Subscribe(pattern string, handle func(process.Delivery)) (process.Subscription, error) {
	if err := subjects.CheckPattern(pattern); err != nil {
		return nil, err
	}
	s := &subscription{transport: t, pattern: pattern}
	s.box = mailbox.New(func(d process.Delivery) {
		if s.closed.Load() || !t.calls.enter() {
			return
		}
		defer t.calls.leave()
		handle(d)
	})
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
	sub, err := l.nc.ChanSubscribe(s.pattern, l.inbox.arrived)
	if err != nil {
		// The pattern has been checked, so it is the connection that ended; the next one
		// takes all subscriptions over.
		t.opts.Log.Debug("subscription waits for the next connection", "subject", s.pattern, "err", err)
		return
	}
	s.current = sub
	l.inbox.add(sub, s)
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
	s.box.Close()
	if t.link != nil {
		t.link.inbox.remove(s.current)
	}
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
