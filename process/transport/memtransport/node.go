package memtransport

import (
	"context"
	"fmt"
	"net"
	"slices"

	"steward/process"
	"steward/process/transport/internal/linkstate"
	"steward/process/transport/internal/mailbox"
	"steward/process/transport/internal/subjects"
)

// Node is the process.Transport of one node.
type Node struct {
	net   *Network
	name  string
	state linkstate.State

	up     bool            // guarded by net.mu, as are the fields below
	subs   []*subscription // in order of creation
	closed bool
}

var _ process.Transport = (*Node)(nil)

type subscription struct {
	node    *Node
	pattern string
	box     *mailbox.Box
}

// SetLink cuts the node's link or brings it back. Frames that arrive meanwhile are lost;
// subscriptions stay.
func (n *Node) SetLink(up bool) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.up = up && !n.closed
	n.state.Set(n.up)
}

// Close ends the node at once, as a crash does: its link is down for good and its
// subscriptions are gone. It does not wait for handler calls under way. Network.Node makes
// a new node of the same name.
func (n *Node) Close() {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.close()
}

// close is Close with net.mu held.
func (n *Node) close() {
	n.closed, n.up = true, false
	n.state.Set(false)
	for _, s := range n.subs {
		s.box.Close()
	}
	n.subs = nil
	n.net.nodes = slices.DeleteFunc(n.net.nodes, func(other *Node) bool { return other == n })
}

// Publish sends a frame to all subscriptions it matches.
func (n *Node) Publish(subject, reply string, data []byte) error {
	if err := subjects.Check(subject); err != nil {
		return err
	}
	if reply != "" {
		if err := subjects.Check(reply); err != nil {
			return fmt.Errorf("reply: %w", err)
		}
	}
	hops, err := n.net.route(n, subject, reply, data)
	if err != nil {
		return err
	}
	for _, h := range hops {
		n.net.send(h)
	}
	return nil
}

// Subscribe is in force when it returns, if the link is up.
func (n *Node) Subscribe(pattern string, handle func(process.Delivery)) (process.Subscription, error) {
	if err := subjects.CheckPattern(pattern); err != nil {
		return nil, err
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("subscribe %s: %w", pattern, net.ErrClosed)
	}
	s := &subscription{node: n, pattern: pattern, box: mailbox.New(handle)}
	n.subs = append(n.subs, s)
	n.net.sweep()
	n.net.boxes[s.box] = struct{}{}
	return s, nil
}

// sweep forgets boxes that have ended, once in a while. mu is held.
func (n *Network) sweep() {
	if len(n.boxes) < n.sweepAt {
		return
	}
	defer func() { n.sweepAt = 2*len(n.boxes) + 64 }()
	for box := range n.boxes {
		select {
		case <-box.Ended():
			delete(n.boxes, box)
		default:
		}
	}
}

// Close ends the subscription without waiting for a call under way.
func (s *subscription) Close() {
	n := s.node
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	s.box.Close()
	n.subs = slices.DeleteFunc(n.subs, func(other *subscription) bool { return other == s })
}

// Flush has nothing to wait for.
func (n *Node) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if up, _ := n.state.Get(); !up {
		return process.ErrOffline
	}
	return nil
}

// State reports whether the link is up.
func (n *Node) State() (up bool, changed <-chan struct{}) { return n.state.Get() }

// MaxPayload is that of the network's options.
func (n *Node) MaxPayload() int { return n.net.opts.MaxPayload }
