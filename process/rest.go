package process

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"steward/kvstore"
	"steward/message"
)

// PublisherName is the name of the process that delivers the messages for a method of a node.
func PublisherName(m message.Method, to message.Node) string {
	return "publisher " + string(m) + " to " + string(to)
}

// ParsePublisherName takes a name of [PublisherName] apart. Names of methods and nodes hold
// no blanks.
func ParsePublisherName(name string) (m message.Method, to message.Node, ok bool) {
	f := strings.Fields(name)
	if len(f) != 4 || f[0] != "publisher" || f[2] != "to" {
		return "", "", false
	}
	return message.Method(f[1]), message.Node(f[3]), true
}

// Rest stops the publisher of a stream. What waits on the stream stays there until something
// new is put on it, or [Router.Wake]. The error wraps [ErrNoProcess] when there is no
// publisher, or is that of [Supervisor.StopChild]. It is not for the publisher itself to call.
func (r *Router) Rest(ctx context.Context, id kvstore.Stream) error {
	r.mu.Lock()
	rt := r.routes[id]
	if rt == nil || r.byToken[rt.token] == nil {
		r.mu.Unlock()
		return fmt.Errorf("stop %s: %w", PublisherName(id.Method, id.Peer), ErrNoProcess)
	}
	select {
	case <-rt.wake: // what is there already rests too
	default:
	}
	r.mu.Unlock()
	err := r.opts.Publishers.StopChild(ctx, PublisherName(id.Method, id.Peer))
	if errors.Is(err, ErrNoProcess) {
		return nil // it has just ended by itself
	}
	if err != nil {
		return err
	}
	r.rested(rt) // one that waited for its restart could not do that itself
	return nil
}

// rested forgets a route whose publisher was stopped, and begins anew when something was put
// on its stream meanwhile. It may be called twice.
func (r *Router) rested(rt *route) {
	awaited := r.awaits(rt.stream.Peer)
	r.mu.Lock()
	if r.routes[rt.stream] != rt {
		r.mu.Unlock()
		return
	}
	again := len(rt.wake) > 0
	r.drop(rt, awaited)
	r.mu.Unlock()
	if again {
		r.Wake(rt.stream)
	}
}
