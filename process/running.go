package process

import (
	"cmp"
	"slices"
	"time"

	"steward/kvstore"
	"steward/message"
)

// Run is a method that runs.
type Run struct {
	Message *message.Message // not to be changed
	Started time.Time
	Attempt int
}

// Runs returns what runs now, the longest one first. Methods that take the messages of a sender many at a time
// (those that write files) are over before anybody could look, and are not among them.
func (p *Progress) Runs() []Run {
	p.mu.Lock()
	all := make([]Run, 0, len(p.runs))
	for r := range p.runs {
		all = append(all, *r)
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b Run) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Message.ID.String(), b.Message.ID.String()))
	})
	return all
}

// running notes a run until end is called.
func (p *Progress) running(r Run) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs == nil {
		p.runs = map[*Run]struct{}{}
	}
	p.runs[&r] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.runs, &r)
	}
}

// Traffic is what was delivered on a stream since its publisher was needed last. Bytes are those of the frames, compressed: what the link had to
// carry, of attempts that were acknowledged.
type Traffic struct {
	kvstore.Stream
	Messages, Bytes uint64
}

// Traffic returns what was delivered on the streams that have, or had a moment ago, something to deliver; in no
// order.
func (r *Router) Traffic() []Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Traffic, 0, len(r.routes))
	for id, rt := range r.routes {
		all = append(all, Traffic{id, rt.delivered.Load(), rt.deliveredBytes.Load()})
	}
	return all
}
