package process

import (
	"context"
	"slices"
	"time"

	"steward/kvstore"
	"steward/message"
)

// Outlook is how the delivery of a message stands.
type Outlook struct {
	// Message is the one that is meant, zero when it is not under way yet.
	Message message.ID
	// Attempts is how many attempts to deliver it got no ACK since this start of the node;
	// Retries is how many there are, 0 for no end.
	Attempts, Retries int
	// Next is when the attempt under way, or the wait before the next one, is over; zero when that
	// is not known, since there is no link.
	Next time.Time
	// Reason is what is known of why there was no ACK.
	Reason string
	// Denied: the reason is that the broker does not let this node send there.
	Denied bool
	// Linked: there is a link to the broker.
	Linked bool
}

// question is what a publisher is asked about: a message, or its first one when that is zero.
type question struct {
	about  message.ID
	answer chan<- Outlook // one slot
}

// Outlook asks the publisher of a stream how a message stands, or the first one under way when
// about is zero. ok is false when there is no publisher, or it does not say before ctx ends.
func (r *Router) Outlook(ctx context.Context, id kvstore.Stream, about message.ID) (o Outlook, ok bool) {
	r.mu.Lock()
	rt := r.routes[id]
	if rt == nil || r.byToken[rt.token] == nil {
		r.mu.Unlock()
		return Outlook{}, false
	}
	r.mu.Unlock()
	answer := make(chan Outlook, 1)
	select {
	case rt.asked <- question{about, answer}:
		return <-answer, true // it answers before it does anything else
	case <-ctx.Done():
		return Outlook{}, false
	}
}

func (p *Publisher) outlook(about message.ID) Outlook {
	up, _ := p.link()
	o := Outlook{Reason: p.why(), Denied: p.denied, Linked: up}
	i := 0
	if !about.IsZero() {
		i = slices.IndexFunc(p.inflight, func(f flight) bool { return f.id == about })
	}
	if i < 0 || i >= len(p.inflight) {
		return o
	}
	f := &p.inflight[i]
	o.Message, o.Attempts, o.Retries = f.id, f.attempts, f.retries
	switch now := time.Now(); {
	case !up:
	case p.resume.After(now):
		o.Next = p.resume
	case !p.held:
		o.Next = f.due
	}
	return o
}
