package process

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
)

// A message with a schedule is delivered once, and its receiver runs it again and again: that
// goes on while the link is down. Between two runs it waits in the store; when it is due it is
// put back into its lane, behind what has arrived meanwhile. Each run has a reply of its own.

// again says whether a message has a further run after one that ended with res, and notes that
// in res. A result that no other run can change ends the schedule.
func (s *Subscriber) again(w kvstore.Waiting, res *message.Result) *kvstore.Again {
	m := w.Message
	if m.Schedule == nil {
		return nil
	}
	res.Run = w.Run + 1
	switch res.Code {
	case message.CodeDone, message.CodeFailed, message.CodeTimeout, message.CodeInterrupted:
	default:
		return nil
	}
	now := time.Now()
	first := w.First
	if w.Run == 0 {
		first = res.Started
	}
	if first.After(now) { // the clock was set back
		first = now
	}
	due, more := m.Schedule.Next(first, now)
	if !more {
		return nil
	}
	res.More = true
	return &kvstore.Again{Due: due, Run: res.Run, First: first}
}

// lookAgain bounds how long a timer for a further run is trusted: the clock may be set.
const lookAgain = time.Minute

// runDue has the lanes run what is due, and sets the timer to when something is next.
func (s *Subscriber) runDue(ctx context.Context, timer *time.Timer) {
	lanes, next, err := s.opts.Store.Due(s.opts.Spec.Name, time.Now())
	if err != nil {
		s.reportStore(message.ID{}, fmt.Errorf("look for runs that are due: %w", err))
		timer.Reset(laterWait)
		return
	}
	for _, id := range lanes {
		s.wake(ctx, id)
	}
	if !next.IsZero() {
		timer.Reset(min(time.Until(next), lookAgain))
	}
}

// unschedule ends messages that other nodes, or this one, have sent here with a schedule.
func (r *Router) unschedule(f QueueFilter, by string) ([]Cleared, error) {
	if f.To != "" && f.To != r.opts.Self {
		return nil, nil
	}
	now := time.Now()
	fits := func(s kvstore.Scheduled) bool { return f.fits(s.ID, r.opts.Self, s.Method, now) }
	removed, err := r.opts.Store.Unschedule(f.ID, fits, "removed by "+by)
	if err != nil {
		return nil, fmt.Errorf("remove messages with a schedule: %w", err)
	}
	count := map[message.Method]int{}
	for _, s := range removed {
		count[s.Method]++
		r.opts.Log.Info("message is not run again", logattr.ID(s.ID), logattr.From(s.Peer), logattr.Method(s.Method), "why", "removed by "+by)
		if s.ReplyTo != "" {
			r.Wake(kvstore.Stream{Peer: s.ReplyTo, Method: message.MethodNone})
		}
	}
	var all []Cleared
	for m, n := range count {
		all = cleared(all, kvstore.Stream{Peer: r.opts.Self, Method: m}, n)
	}
	slices.SortFunc(all, func(a, b Cleared) int { return cmp.Compare(a.Method, b.Method) })
	return all, nil
}
