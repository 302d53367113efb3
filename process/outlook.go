package process

import (
	"context"
	"time"

	"steward/kvstore"
	"steward/message"
)

// Outlook is how the delivery of a stream stands.
type Outlook struct {
	// First is the first message under way, zero for none.
	First message.ID
	// Attempts is how many attempts to deliver it got no ACK, since this start of the node or
	// of the link; Retries is how many there are, 0 for no end.
	Attempts, Retries int
	// Next is when the attempt under way, or the wait before the next one, is over; zero when that
	// is not known, since there is no link.
	Next time.Time
	// Reason is what is known of why there was no ACK.
	Reason string
	// Linked: there is a link to the broker.
	Linked bool
}

// Outlook asks the publisher of a stream how it stands. ok is false when there is none, or it
// does not say before ctx ends.
func (r *Router) Outlook(ctx context.Context, id kvstore.Stream) (o Outlook, ok bool) {
	r.mu.Lock()
	rt := r.routes[id]
	if rt == nil || r.byToken[rt.token] == nil {
		r.mu.Unlock()
		return Outlook{}, false
	}
	r.mu.Unlock()
	answer := make(chan Outlook, 1)
	select {
	case rt.asked <- answer:
		return <-answer, true // it answers before it does anything else
	case <-ctx.Done():
		return Outlook{}, false
	}
}

func (p *Publisher) outlook() Outlook {
	up, _ := p.link()
	o := Outlook{Reason: p.reason, Linked: up}
	if len(p.inflight) == 0 {
		return o
	}
	first := &p.inflight[0]
	o.First, o.Attempts, o.Retries = first.id, first.attempts, first.retries
	switch now := time.Now(); {
	case !up:
	case p.resume.After(now):
		o.Next = p.resume
	case !p.held:
		o.Next = first.due
	}
	return o
}
