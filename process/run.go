package process

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
)

// run carries out one call of a method that is not Exact, under its timeout, and says how
// it ended. Whether the node was stopped in the middle of it is for the caller to look at.
// peer is the node that the message came from. The error is the method's own.
func (s *Subscriber) run(ctx context.Context, peer message.Node, w kvstore.Waiting, attempt int) (kvstore.Finished, error) {
	m := w.Message
	resumed := s.opts.Spec.Crash == Resume && w.Mark != nil && w.Mark.Undo != nil
	if m.TTL > 0 && s.opts.Now().Sub(w.Accepted) > m.TTL && !resumed && w.Run == 0 {
		return s.ended(w, attempt, time.Now(), Outcome{Exit: -1}, 0, errExpired), nil
	}
	if err := s.mayRun(peer)(m); err != nil {
		var part uint32
		if w.Mark != nil {
			part = w.Mark.Parts // those before it are on their way
		}
		return s.ended(w, attempt, time.Now(), Outcome{Exit: -1}, part, err), nil
	}
	c := s.call(m, attempt)
	var part uint32
	stop := ctx
	c.Emit = func(ctx context.Context, body []byte) error {
		if !m.WantsReply() {
			return nil
		}
		emitting, cancel := until(ctx, stop)
		defer cancel()
		for piece := range slices.Chunk(body, MaxPart) {
			// Parts stay out of the room that is kept free for the ends of runs, and for errors.
			r := []message.Message{*s.replyTo(m, piece, nil, part)}
			part++
			if err := s.insist(emitting, m.ID, func() error { _, err := s.opts.Send.Accept(emitting, r); return err }); err != nil {
				return err
			}
		}
		return nil
	}
	started := time.Now()
	if s.opts.Spec.Crash == Resume {
		started = s.resume(ctx, c, w, &part)
	}
	defer s.opts.Progress.running(Run{Message: m, Started: started, Attempt: attempt})()
	s.step(m, StepStarted, "")
	runCtx := ctx
	if m.MethodTimeout > 0 {
		var cancel context.CancelFunc
		runCtx, cancel = context.WithDeadline(ctx, started.Add(m.MethodTimeout))
		defer cancel()
	}
	var out Outcome
	err := s.guard(m, func() (err error) {
		out, err = s.opts.Spec.Run(runCtx, c)
		return err
	})
	if n := len(out.Body); n > MaxPart {
		last := (n - 1) / MaxPart * MaxPart
		if stopped := c.Emit(ctx, out.Body[:last]); stopped != nil {
			return s.ended(w, attempt, started, Outcome{Exit: -1}, part, stopped), stopped
		}
		out.Body = out.Body[last:]
	}
	return s.ended(w, attempt, started, out, part, err), err
}

// mark asks an Exact method for the mark of a run.
func (s *Subscriber) mark(calls []*Call) (undo []byte, err error) {
	err = s.guard(calls[0].Message, func() (err error) {
		undo, err = s.opts.Spec.Mark(calls)
		return err
	})
	return undo, err
}

// guard runs a method and turns its panic into an error: it is this message that failed,
// and not the process that runs it, which would run it again.
func (s *Subscriber) guard(m *message.Message, run func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errPanicked, v)
			s.opts.Report.Report(errorkernel.Event{Class: errorkernel.ProcessPanic, Process: s.process, ID: m.ID, From: m.From,
				Method: m.Method, Err: err, Stack: string(debug.Stack())})
		}
	}()
	return run()
}

var (
	errPanicked    = errors.New("the method panicked")
	errDenied      = errors.New("may not use")
	errExpired     = errors.New("its ttl passed before it could be run")
	errInterrupted = errors.New("the node went down while the method ran; it was not run again")
)

// ended makes the end of a run: result, event and reply.
func (s *Subscriber) ended(w kvstore.Waiting, attempt int, started time.Time, out Outcome, part uint32, err error) kvstore.Finished {
	m := w.Message
	res := message.Result{Code: message.CodeDone, Exit: out.Exit, Signal: out.Signal, Stderr: out.Stderr, StderrSize: out.StderrSize,
		Started: started, Took: time.Since(started), Attempt: attempt}
	switch {
	case err == nil:
	case errors.Is(err, errExpired):
		res.Code = message.CodeExpired
	case errors.Is(err, errDenied):
		res.Code = message.CodeDenied
	case errors.Is(err, errInterrupted):
		res.Code, res.Took = message.CodeInterrupted, 0
	case errors.Is(err, message.ErrInvalid):
		res.Code = message.CodeInvalid
	case errors.Is(err, context.DeadlineExceeded):
		res.Code = message.CodeTimeout
	default:
		res.Code = message.CodeFailed
	}
	if err != nil {
		res.Text = err.Error()
	}
	again := s.again(w, &res)
	f := kvstore.Finished{Arrival: w.Arrival, Message: m, Result: res, Again: again}
	// Of a run that failed and printed nothing, no file may have been made.
	if of := s.opts.Spec.File; of != nil && err == nil && m.IsReply() && m.Result != nil && (m.Result.OK() || len(m.Body) > 0) {
		f.File, _ = of(m)
	}
	switch {
	case m.WantsReply():
		f.Reply = s.replyTo(m, out.Body, &res, part)
	case err != nil && !m.IsReply():
		// Nobody asked for a reply, but the sender has to learn that it failed.
		f.Reply = s.replyTo(m, nil, &res, 0)
		f.Reply.Method = message.MethodNone
	}
	return f
}

// reportEnd tells the error kernel about a run that failed, or that wrote on stderr, and keeps that
// to be told to central in the commit of the end.
func (s *Subscriber) reportEnd(f *kvstore.Finished) {
	ev, bad := s.badEnd(f)
	if !bad {
		return
	}
	f.Untold = errorkernel.Pack(ev)
	ev.Stored = true
	s.opts.Report.Report(ev)
}

// reportRun is reportEnd for a run that is not the end of its message, or of one that is not stored.
func (s *Subscriber) reportRun(f *kvstore.Finished) {
	if ev, bad := s.badEnd(f); bad {
		s.opts.Report.Report(ev)
	}
}

// badEnd says what the error kernel has to know about a run.
func (s *Subscriber) badEnd(f *kvstore.Finished) (ev errorkernel.Event, bad bool) {
	res, m := &f.Result, f.Message
	if res.OK() && len(res.Stderr) == 0 {
		return ev, false
	}
	class, text := errorkernel.MethodFailed, string(res.Code)+": "+res.Text
	switch stderr := "stderr: " + excerpt(res.Stderr, res.StderrSize); {
	case res.OK():
		class, text = errorkernel.WroteStderr, "done, and wrote on "+stderr
	case len(res.Stderr) > 0 && res.Text == "":
		text += stderr
	case len(res.Stderr) > 0:
		text += "; " + stderr
	}
	return errorkernel.Event{Class: class, Process: s.process, ID: m.ID, From: m.From, Method: m.Method,
		Subject: message.Subject{Node: s.opts.Env.Self, Method: m.Method, Kind: s.opts.Spec.Kind}.String(),
		Err:     errors.New(text), At: time.Now()}, true
}

// excerpt is the beginning of an output for an error line, which says how much is missing.
func excerpt(b []byte, size int64) string {
	const most = 1 << 10
	s := string(b[:min(len(b), most)])
	if rest := max(size, int64(len(b))) - int64(len(s)); rest > 0 {
		s += fmt.Sprintf("… (%d bytes more)", rest)
	}
	return s
}

// replyTo makes one part of the reply to m; the last part has the result.
func (s *Subscriber) replyTo(m *message.Message, body []byte, res *message.Result, part uint32) *message.Message {
	r := m.ReplyWith(m.ReplyMethod)
	r.Data, r.Body, r.Part, r.Result = m.ReplyMethodArgs, body, part, res
	return r
}

// reply puts a reply, or a part of one, on the ring buffer. While there is no room, it
// waits. The error is that of the context, or wraps message.ErrInvalid.
func (s *Subscriber) reply(ctx context.Context, r *message.Message) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		_, err := s.opts.Send.AcceptOwn(ctx, []message.Message{*r})
		if err == nil || errors.Is(err, message.ErrInvalid) {
			return err
		}
		s.reportStore(r.InReplyTo, fmt.Errorf("reply: %w", err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func (s *Subscriber) reportStore(id message.ID, err error) {
	s.opts.Report.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: s.process, ID: id, Method: s.opts.Spec.Name, Err: err})
}

func (s *Subscriber) step(m *message.Message, what StepKind, text string) {
	s.opts.Progress.step(Step{ID: m.ID, What: what, Peer: m.From, Method: m.Method, Text: text})
}

func (s *Subscriber) stepEnded(m *message.Message, r *message.Result) {
	s.opts.Progress.step(Step{ID: m.ID, What: StepEnded, Peer: m.From, Method: m.Method, Text: endText(r), Result: r})
}

func endText(r *message.Result) string {
	if r.Text == "" {
		return string(r.Code)
	}
	return string(r.Code) + ": " + r.Text
}

// Work that cannot be done at the moment is tried again after these waits, which double.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 30 * time.Second
)

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
