// Package mailbox queues deliveries for a handler that may be slower than the link: a
// bounded queue that calls the handler for one delivery after the other and drops what
// does not fit, as a broker does.
//
// A goroutine runs only while there is something to deliver, so that thousands of idle
// subscriptions cost no stacks.
package mailbox

import (
	"sync"

	"steward/process"
)

// The bounds of a queue, a call under way not included.
const (
	MaxDeliveries = 4096
	MaxBytes      = 32 << 20 // of data
)

// Box is the queue of one subscription. All methods may be called by many goroutines at
// once, and by the handler.
type Box struct {
	handle func(process.Delivery)

	mu      sync.Mutex // guards the fields below; not held while handle runs
	queue   []process.Delivery
	bytes   int
	running bool
	closed  bool
	ended   chan struct{}
}

// New returns an empty box for handle.
func New(handle func(process.Delivery)) *Box {
	return &Box{handle: handle, ended: make(chan struct{})}
}

// Put queues d and reports whether there was room. A closed box has none.
func (b *Box) Put(d process.Delivery) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.queue) >= MaxDeliveries || b.bytes+len(d.Data) > MaxBytes {
		return false
	}
	b.queue = append(b.queue, d)
	b.bytes += len(d.Data)
	if !b.running {
		b.running = true
		go b.run()
	}
	return true
}

func (b *Box) run() {
	for {
		b.mu.Lock()
		if len(b.queue) == 0 {
			b.running = false
			b.queue = nil // an idle box keeps no memory
			if b.closed {
				close(b.ended)
			}
			b.mu.Unlock()
			return
		}
		d := b.queue[0]
		b.queue[0] = process.Delivery{}
		b.queue = b.queue[1:]
		b.bytes -= len(d.Data)
		b.mu.Unlock()
		b.handle(d)
	}
}

// Close drops what is queued and ends the box. It does not wait for a call under way, and
// may be called twice.
func (b *Box) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	b.queue, b.bytes = nil, 0
	if !b.running {
		close(b.ended)
	}
}

// Ended is closed when the box is closed and no call is under way.
func (b *Box) Ended() <-chan struct{} { return b.ended }
