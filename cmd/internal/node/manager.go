package node

import (
	"context"
	"fmt"
	"time"

	"steward/internal/logattr"
	"steward/process"
)

// statusEvery is how often the status for the service manager is looked at. A link that comes or goes is told at once.
const statusEvery = 10 * time.Second

// announce says that the node is ready, and tells the service manager, if there is one, how it is until the stop
// begins. It is the child that is started last and stopped first.
func (n *Node) announce(ctx context.Context) error {
	select {
	case <-n.Ready():
	case <-ctx.Done():
		return nil
	}
	n.log.Info("node is ready", "socket", n.SocketPath())
	m := n.opts.Manager
	if m == nil {
		return nil
	}
	tell := func(err error) {
		if err != nil {
			n.log.Warn("service manager does not listen", logattr.Err(err))
		}
	}
	tell(m.Ready())
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for last := ""; ; {
		up, changed := n.Link()
		if s := n.status(up); s != last {
			tell(m.Status(s))
			last = s
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			tell(m.Stopping())
			return nil
		}
	}
}

// status is the state of the node in a line.
func (n *Node) status(linked bool) string {
	link := "no link to the broker"
	switch {
	case n.guard.Conflict():
		link = "another node has this name"
	case linked:
		link = "linked to the broker"
	}
	messages, _, err := n.store.Sizes()
	switch {
	case err != nil:
		return fmt.Sprintf("%s, the store fails: %v", link, err)
	case messages == 1:
		return link + ", 1 message waits"
	}
	return fmt.Sprintf("%s, %d messages wait", link, messages)
}

// watchdog gives the service manager a sign of life, twice as often as it asks for. It is the child that is stopped
// last but one, so that a stop that takes its time is not taken for a death.
func (n *Node) watchdog(ctx context.Context) error {
	m := n.opts.Manager
	every := m.Watchdog() / 2
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		wait := every
		if err := n.alive(); err != nil {
			n.log.Warn("no sign of life for the service manager", logattr.Err(err))
			wait = every / 10 // it may be about to be started anew
		} else if err := m.Alive(); err != nil {
			n.log.Warn("service manager does not listen", logattr.Err(err))
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// alive returns nil when a start anew would make nothing better. It does not return as long as the store or the
// supervisor is stuck. A disk that fails is no reason: the store says so, goes on by itself when the disk does, and does
// not open at a start before that.
func (n *Node) alive() error {
	_ = n.store.Ping()
	tree := n.Tree()
	if tree.State != process.Running {
		return nil // it starts, or stops
	}
	for _, c := range tree.Children {
		if c.State == process.Backoff || c.State == process.Stopped && c.Error != "" {
			return fmt.Errorf("%s does not run: %s", c.Name, c.Error)
		}
	}
	return nil
}
