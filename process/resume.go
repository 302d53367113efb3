package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"steward/kvstore"
	"steward/message"
)

// resume lets a run of a method that is Resume go on where the one before was cut off, and
// returns when the first began. part counts the parts; w.Mark is what is on disk.
func (s *Subscriber) resume(stop context.Context, c *Call, w kvstore.Waiting, part *uint32) time.Time {
	if w.Mark == nil { // it came without ACK and is not on disk
		c.EmitNoting = func(ctx context.Context, body, _ []byte) error {
			if len(body) == 0 {
				return nil
			}
			return c.Emit(ctx, body)
		}
		return time.Now()
	}
	m, mark := w.Message, w.Mark
	lane := kvstore.Stream{Peer: m.From, Method: m.Method}
	c.Noted, *part = mark.Undo, mark.Parts
	c.EmitNoting = func(ctx context.Context, body, note []byte) error {
		ctx, cancel := until(ctx, stop)
		defer cancel()
		next := *mark
		next.Attempt, next.Undo = c.Attempt, note
		write := func() error { return s.opts.Store.Begin(lane, w.Arrival, next) }
		if len(body) > 0 && m.WantsReply() {
			r := s.replyTo(m, body, nil, *part)
			next.Parts = *part + 1
			if r.ACKTimeout <= 0 { // it is not kept, so there is no commit to share
				if err := c.Emit(ctx, body); err != nil {
					return err
				}
			} else {
				write = func() error { return s.opts.Send.AcceptNoting(ctx, *r, lane, w.Arrival, next) }
			}
		}
		if err := s.insist(ctx, m.ID, write); err != nil {
			return err
		}
		*mark, *part = next, next.Parts
		return nil
	}
	return mark.Started
}

// until returns a context that ends with ctx and with stop.
func until(ctx, stop context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(stop, cancel)
	return ctx, func() { release(); cancel() }
}

// fullFor is how long a part waits for room on the ring buffer before that is reported: an
// output that is made faster than the link takes it fills the ring, which is no failure.
const fullFor = time.Minute

// insist stores a part of a reply. While there is no room for it, it waits. The error is that
// of the context, or wraps message.ErrInvalid.
func (s *Subscriber) insist(ctx context.Context, request message.ID, write func() error) error {
	since, reported := time.Now(), false
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := write()
		if err == nil || errors.Is(err, message.ErrInvalid) {
			return err
		}
		full := errors.Is(err, kvstore.ErrFull)
		if full {
			wait = firstWait
		}
		if !full || !reported && time.Since(since) > fullFor {
			s.reportStore(request, fmt.Errorf("part of a reply: %w", err))
			reported = full
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}
