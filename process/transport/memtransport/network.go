// Package memtransport is a network in memory, for simulations: nodes, links that go up
// and down, partitions, and faults by a hook. It behaves as a broker does: subscriptions,
// a notice when nobody listens, bounded queues, errors when a link is down.
//
// All waiting is by timers and channels, so that it runs in fake time inside a
// testing/synctest bubble. Its goroutines last as long as there is something to deliver,
// and all have ended when Close returns.
package memtransport

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"steward/process"
	"steward/process/transport/internal/mailbox"
	"steward/process/transport/internal/subjects"
)

// Fate is what happens to one frame on its way to one subscription. The zero Fate is to
// arrive at once.
type Fate struct {
	Drop bool
	// Copies arrive in addition to the frame itself.
	Copies int
	// Delay holds back the frame and its copies; those sent later may overtake them.
	Delay time.Duration
}

// Options makes a network unreliable.
type Options struct {
	// Fault decides the fate of each frame; nil lets all arrive. It is called for each
	// subscription a frame matches, by the publisher's goroutine and with no lock held.
	// from is empty for a notice that nobody listens. It must not keep or change d.Data.
	Fault func(from, to string, d process.Delivery) Fate
	// MaxPayload is the largest frame in bytes; 0 means 1 MiB.
	MaxPayload int
}

// Network joins nodes. All methods may be called by many goroutines at once, and by
// handlers.
type Network struct {
	opts Options

	mu     sync.Mutex // guards all below, and the fields of nodes; not held while handlers or Fault run
	nodes  []*Node    // in order of creation, so that a simulation repeats itself
	cuts   map[[2]string]bool
	timers map[*time.Timer]struct{}
	boxes  map[*mailbox.Box]struct{} // all that may still run a handler
	closed bool

	sweepAt int // the number of boxes at which ended ones are looked for
}

// New returns a network without nodes.
func New(o Options) *Network {
	if o.MaxPayload <= 0 {
		o.MaxPayload = 1 << 20
	}
	return &Network{
		opts:   o,
		cuts:   make(map[[2]string]bool),
		timers: make(map[*time.Timer]struct{}),
		boxes:  make(map[*mailbox.Box]struct{}),
	}
}

// Node returns the node of that name, and makes it, with its link up, if there is none or
// it has been closed.
func (n *Network) Node(name string) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, node := range n.nodes {
		if node.name == name {
			return node
		}
	}
	node := &Node{net: n, name: name, up: !n.closed, closed: n.closed}
	node.state.Set(node.up)
	if !n.closed {
		n.nodes = append(n.nodes, node)
	}
	return node
}

// Cut parts two nodes from each other, or joins them again. Their links stay up: frames
// between them get lost without a notice.
func (n *Network) Cut(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cut {
		n.cuts[pair(a, b)] = true
	} else {
		delete(n.cuts, pair(a, b))
	}
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// Close ends all nodes and drops what is on its way. It waits for handler calls under way,
// or until ctx ends. It may be called twice, and not by a handler.
func (n *Network) Close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	for _, node := range slices.Clone(n.nodes) {
		node.close()
	}
	for t := range n.timers {
		t.Stop()
	}
	clear(n.timers)
	var boxes []*mailbox.Box
	for box := range n.boxes {
		boxes = append(boxes, box)
	}
	n.mu.Unlock()
	for _, box := range boxes {
		select {
		case <-box.Ended():
		case <-ctx.Done():
			return fmt.Errorf("close network: a handler is still busy: %w", ctx.Err())
		}
	}
	return nil
}

// hop is a frame on its way to one subscription.
type hop struct {
	from, to string
	sub      *subscription
	d        process.Delivery
}

// route finds where a frame goes. The frame is copied for each hop.
func (n *Network) route(from *Node, subject, reply string, data []byte) ([]hop, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !from.up {
		return nil, process.ErrOffline
	}
	if len(data) > n.opts.MaxPayload {
		return nil, fmt.Errorf("frame of %d bytes: %w (%d)", len(data), process.ErrTooLarge, n.opts.MaxPayload)
	}
	var hops []hop
	for _, node := range n.nodes {
		if !node.up {
			continue
		}
		for _, s := range node.subs {
			if subjects.Match(s.pattern, subject) {
				d := process.Delivery{Subject: subject, Reply: reply, Data: bytes.Clone(data)}
				hops = append(hops, hop{from: from.name, to: node.name, sub: s, d: d})
			}
		}
	}
	if len(hops) > 0 || reply == "" {
		return hops, nil
	}
	for _, s := range from.subs {
		if subjects.Match(s.pattern, reply) {
			// A broker sends one notice, however many subscriptions match.
			return []hop{{to: from.name, sub: s, d: process.Delivery{Subject: reply, NoResponders: true}}}, nil
		}
	}
	return nil, nil
}

// send lets h meet its fate.
func (n *Network) send(h hop) {
	var fate Fate
	if n.opts.Fault != nil {
		fate = n.opts.Fault(h.from, h.to, h.d)
	}
	if fate.Drop {
		return
	}
	for range fate.Copies + 1 {
		d := h
		d.d.Data = bytes.Clone(h.d.Data)
		if fate.Delay <= 0 {
			n.arrive(d)
		} else {
			n.later(fate.Delay, d)
		}
	}
}

func (n *Network) later(delay time.Duration, h hop) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(delay, func() {
		n.mu.Lock()
		delete(n.timers, t)
		n.mu.Unlock()
		n.arrive(h)
	})
	n.timers[t] = struct{}{}
}

// arrive hands h over if there is a way at this moment.
func (n *Network) arrive(h hop) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.sub.node.up && !n.cuts[pair(h.from, h.to)] {
		h.sub.box.Put(h.d) // a full box drops it, as a broker would
	}
}
