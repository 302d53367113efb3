package node

import (
	"maps"
	"sync"
	"time"

	"steward/message"
	"steward/process"
)

const (
	// mostContacts bounds the nodes of whom the last contact is kept: names come from outside.
	mostContacts = 10_000
	// forgetContact is how long a node that has gone stays among them.
	forgetContact = 7 * 24 * time.Hour
)

// contacts are nodes of which something came since the start, and when it did last. It is safe for concurrent use.
type contacts struct {
	mu    sync.Mutex
	nodes map[message.Node]time.Time // guarded by mu, as is forgot
	// forgot is when those that have gone were looked for last: that takes a while, and nodes that find no room
	// may come with each message.
	forgot time.Time
}

func (c *contacts) seen(n message.Node, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil {
		c.nodes = map[message.Node]time.Time{}
	}
	if _, known := c.nodes[n]; !known && len(c.nodes) >= mostContacts {
		if at.Sub(c.forgot) > time.Minute {
			c.forget(at)
		}
		if len(c.nodes) >= mostContacts {
			return // those that are known are not pushed out by new names
		}
	}
	c.nodes[n] = at
}

// forget is called with mu held.
func (c *contacts) forget(now time.Time) {
	c.forgot = now
	for n, at := range c.nodes {
		if now.Sub(at) > forgetContact {
			delete(c.nodes, n)
		}
	}
}

// all is a copy.
func (c *contacts) all() map[message.Node]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(time.Now())
	return maps.Clone(c.nodes)
}

// observer is told of each step of a message.
type observer struct {
	self  message.Node
	heard contacts     // other nodes, by what they took or sent
	steps *stepMetrics // nil without metrics
}

// Observe is part of process.Observer.
func (o *observer) Observe(st process.Step) {
	if (st.What == process.StepDelivered || st.What == process.StepReceived) && st.Peer != o.self {
		o.heard.seen(st.Peer, time.Now())
	}
	if o.steps != nil {
		o.steps.Observe(st)
	}
}
