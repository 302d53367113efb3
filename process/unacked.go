package process

import (
	"context"
	"time"

	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
)

// Messages without ACK are run as they come, and are never stored: nobody waits for them,
// and what there is no room for is dropped.

// unackedWaiting bounds the messages without ACK between the transport and their run. When they
// are full, more are dropped.
const unackedWaiting = 256

// unacked is such a message, and the node that it came from.
type unacked struct {
	peer message.Node
	*message.Message
}

// passUnacked hands messages without ACK on, to a process that is started for them when there is
// none. ctx is that of Serve.
func (s *Subscriber) passUnacked(ctx context.Context, peer message.Node, msgs []*message.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range msgs {
		if s.unacked == nil {
			waiting := make(chan unacked, unackedWaiting)
			serve := func(ctx context.Context) error { return s.serveUnacked(ctx, waiting) }
			if err := s.start(ctx, s.process+" without ACK", serve); err != nil {
				return // the node is stopping
			}
			s.unacked = waiting
		}
		select {
		case s.unacked <- unacked{peer, m}:
		default:
			s.log.Debug("dropped: too many messages without ACK wait", logattr.Msg(m), logattr.From(m.From))
		}
	}
}

// serveUnacked runs messages without ACK, each in its own goroutine, as many at a time as
// the subscriber has slots: one that hangs holds up no other sender. It ends when none has come for
// long.
func (s *Subscriber) serveUnacked(ctx context.Context, waiting chan unacked) error {
	var runs runs
	defer runs.Wait()
	idle := time.NewTimer(s.opts.Idle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-idle.C:
			// It cannot end before its runs have, which may be never.
			if runs.count() == 0 && s.retireUnacked(waiting) {
				return nil
			}
			idle.Reset(s.opts.Idle)
		case m := <-waiting:
			idle.Reset(s.opts.Idle)
			select {
			case <-ctx.Done():
				return nil
			case s.slots <- struct{}{}:
			}
			runs.start(func() {
				defer func() { <-s.slots }()
				if reply := s.runUnacked(ctx, m); reply != nil && ctx.Err() == nil {
					_ = s.reply(ctx, reply) // nobody waits for it
				}
			})
		}
	}
}

// retireUnacked lets the next message without ACK have a process of its own, unless one has come.
func (s *Subscriber) retireUnacked(waiting chan unacked) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(waiting) > 0 {
		return false
	}
	s.unacked = nil
	return true
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
