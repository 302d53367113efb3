package process

import (
	"context"
	"sync"
	"time"

	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
)

// Messages without ACK are run as they come, and are never stored: nobody waits for them,
// and what there is no room for is dropped.

// unacked is such a message, and the node that it came from.
type unacked struct {
	peer message.Node
	*message.Message
}

// passUnacked hands messages without ACK on.
func (s *Subscriber) passUnacked(peer message.Node, msgs []*message.Message) {
	for _, m := range msgs {
		select {
		case s.unacked <- unacked{peer, m}:
		default:
			s.log.Debug("dropped: too many messages without ACK wait", logattr.Msg(m), logattr.From(m.From))
		}
	}
}

// serveUnacked runs messages without ACK, each in its own goroutine, as many at a time as
// the subscriber has slots: one that hangs holds up no other sender.
func (s *Subscriber) serveUnacked(ctx context.Context) error {
	var runs sync.WaitGroup
	defer runs.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.unacked:
			select {
			case <-ctx.Done():
				return nil
			case s.slots <- struct{}{}:
			}
			runs.Go(func() {
				defer func() { <-s.slots }()
				if reply := s.runUnacked(ctx, m); reply != nil && ctx.Err() == nil {
					_ = s.reply(ctx, reply) // nobody waits for it
				}
			})
		}
	}
}

// runUnacked carries out a message that nobody acknowledges, and returns its reply or nil.
func (s *Subscriber) runUnacked(ctx context.Context, u unacked) *message.Message {
	m := u.Message
	w := kvstore.Waiting{Message: m, Accepted: m.Accepted}
	var f kvstore.Finished
	if s.opts.Spec.Crash == Exact {
		started := time.Now()
		err := s.mayRun(u.peer)(m)
		if err == nil {
			s.step(m, StepStarted, "")
			calls := []*Call{s.call(m, 1)}
			err = s.guard(m, func() error {
				if _, err := s.opts.Spec.Mark(calls); err != nil {
					return err
				}
				return s.opts.Spec.RunAll(ctx, calls)[0]
			})
		}
		f = s.ended(w, 1, started, Outcome{Exit: -1}, 0, err)
	} else {
		f, _ = s.run(ctx, u.peer, w, 1) // the end says how it went
	}
	if ctx.Err() != nil {
		return nil
	}
	s.reportRun(&f)
	s.stepEnded(m, &f.Result)
	return f.Reply
}
