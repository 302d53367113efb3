package process

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"steward/kvstore"
	"steward/message"
)

// lane runs the messages for one method from one sender: one after the other and in the
// order of their arrival, or, for a method without order, many at a time.
//
// The messages are on disk and stay there until their end is. What a lane keeps in memory
// outlives a restart of its process only in the fields below.
type lane struct {
	s       *Subscriber
	id      kvstore.Stream
	wake    chan struct{} // one slot
	running bool          // guarded by s.mu

	mu sync.Mutex // guards what follows
	// busy: the lane has something to do, or its subscriber may only put something into it
	// that it has marked as begun.
	busy bool
	// reserved: the subscriber is doing just that; the lane must not look.
	reserved bool
	// begun is the arrival number that was marked as begun by the subscriber and has not been
	// picked up. Any other mark that the lane finds is from a run that did not end.
	begun uint64
}

const (
	// laneMessages and laneBytes bound what a lane has in memory.
	laneMessages = 2048
	laneBytes    = 2 << 20
	// flushAfter bounds how long the end of a quick run waits for that of the next, to
	// share its commit.
	flushAfter = 20 * time.Millisecond
	// laneGrace is how long a lane may take to stop: commands are killed first.
	laneGrace = 10 * time.Second
)

// reserve claims an idle lane for its subscriber.
func (l *lane) reserve() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || l.reserved {
		return false
	}
	l.reserved = true
	return true
}

// release ends a reservation; begun is what was marked, or 0.
func (l *lane) release(begun uint64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved = false
	if begun != 0 {
		l.begun, l.busy = begun, true
	}
	notify(l.wake) // it may have come by while it was reserved
}

// enter makes the lane busy, unless it is reserved.
func (l *lane) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved {
		return false
	}
	l.busy = true
	return true
}

// leave makes the lane idle.
func (l *lane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
}

// live reports whether a mark was made by the subscriber for the run that is about to
// begin. It is picked up by that.
func (l *lane) live(arrival uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun != arrival {
		return false
	}
	l.begun = 0
	return true
}

// serve runs what is in the lane until nothing comes for long, or ctx ends.
func (l *lane) serve(ctx context.Context) error {
	var runs runs
	defer runs.Wait()
	idle := time.NewTimer(l.s.opts.Idle)
	defer idle.Stop()
	var after uint64 // a method without order: what was begun so far
	for {
		if l.enter() {
			waiting, err := l.s.opts.Store.ReadLane(l.id, after, laneMessages, laneBytes)
			if err != nil && runs.count() > 0 {
				// This process cannot end before they have, which may be never.
				if err := l.tryLater(ctx, fmt.Errorf("read lane: %w", err)); err != nil {
					return nil
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("read lane: %w", err)
			}
			found := len(waiting)
			if waiting, err = l.prepare(ctx, waiting); err != nil {
				return err
			}
			if found > 0 && len(waiting) == 0 {
				continue
			}
			if len(waiting) > 0 {
				if l.s.opts.Spec.Ordered {
					err = l.inOrder(ctx, waiting)
				} else {
					err = l.atOnce(ctx, &runs, waiting)
					after = waiting[len(waiting)-1].Arrival
				}
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				continue
			}
			l.leave()
		}
		idle.Reset(l.s.opts.Idle)
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-idle.C:
			if runs.count() == 0 && l.s.retire(l) {
				return nil
			}
		}
	}
}

func (l *lane) inOrder(ctx context.Context, waiting []kvstore.Waiting) error {
	switch l.s.opts.Spec.Crash {
	case Exact:
		return l.exact(ctx, waiting)
	case Once:
		for _, w := range waiting {
			f, err := l.once(ctx, w)
			if err != nil {
				return err
			}
			if err := l.finish(ctx, w.Arrival, []kvstore.Finished{f}); err != nil {
				return err
			}
		}
		return nil
	case Resume:
		for _, w := range waiting {
			f, err := l.resume(ctx, w)
			if err != nil {
				return err
			}
			if err := l.finish(ctx, w.Arrival, []kvstore.Finished{f}); err != nil {
				return err
			}
		}
		return nil
	}
	return l.repeat(ctx, waiting)
}

// resume runs a method that goes on where it was cut off.
func (l *lane) resume(ctx context.Context, w kvstore.Waiting) (kvstore.Finished, error) {
	if w.Mark == nil {
		w.Mark = &kvstore.Mark{Last: w.Arrival, Attempt: 1, Started: time.Now()}
	}
	return l.attempts(ctx, w, w.Mark.Attempt)
}

// repeat runs a method that may be run again after a crash.
func (l *lane) repeat(ctx context.Context, waiting []kvstore.Waiting) error {
	ends := ends{lane: l, turn: make(chan struct{}, 1)}
	for _, w := range waiting {
		f, err := l.attempts(ctx, w, 1)
		if err != nil {
			break
		}
		ends.add(ctx, f)
	}
	return ends.flush(ctx)
}

// ends gathers the ends of quick runs, so that they share a commit. None waits longer than
// flushAfter for those behind it.
type ends struct {
	lane *lane

	// turn guards what follows. It is held while that is written, which keeps the order and
	// may take long: so it is no mutex.
	turn  chan struct{}
	done  []kvstore.Finished
	timer *time.Timer
}

func (e *ends) add(ctx context.Context, f kvstore.Finished) {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	if len(e.done) == 0 {
		// Its error is that of the node's stop, which the lane sees for itself.
		e.timer = time.AfterFunc(flushAfter, func() { _ = e.flush(ctx) })
	}
	e.done = append(e.done, f)
}

func (e *ends) flush(ctx context.Context) error {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	if len(e.done) == 0 {
		return nil
	}
	e.timer.Stop()
	done := e.done
	e.done = nil
	return e.lane.finish(ctx, 0, done)
}

// once runs a method that must not be run again unasked. The mark of its run is on disk
// before it begins.
func (l *lane) once(ctx context.Context, w kvstore.Waiting) (kvstore.Finished, error) {
	attempt := 1
	switch {
	case w.Mark == nil:
		if err := l.beginOne(ctx, w, attempt); err != nil {
			return kvstore.Finished{}, err
		}
	case l.live(w.Arrival):
		attempt = w.Mark.Attempt
	case w.Mark.Attempt > w.Message.MethodRetries:
		f := l.s.ended(w, w.Mark.Attempt, w.Mark.Started, Outcome{Exit: -1}, 0, errInterrupted)
		l.s.reportEnd(&f)
		return f, nil
	default:
		attempt = w.Mark.Attempt + 1
		if err := l.beginOne(ctx, w, attempt); err != nil {
			return kvstore.Finished{}, err
		}
	}
	return l.attempts(ctx, w, attempt)
}

func (l *lane) beginOne(ctx context.Context, w kvstore.Waiting, attempt int) error {
	return l.begin(ctx, w.Arrival, kvstore.Mark{Last: w.Arrival, Attempt: attempt, Started: time.Now()})
}

// begin marks a run before it starts. It goes on until the store takes the mark; the error
// is that of the node's stop.
func (l *lane) begin(ctx context.Context, first uint64, mark kvstore.Mark) error {
	return l.persist(ctx, fmt.Sprintf("begin %s", l.id.Method), func() error {
		return l.s.opts.Store.Begin(l.id, first, mark)
	})
}

// persist writes until the store takes it. The error is that of the node's stop, or wraps
// message.ErrInvalid: then trying again is of no use.
func (l *lane) persist(ctx context.Context, what string, write func() error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := write()
		if err == nil || errors.Is(err, message.ErrInvalid) {
			return err
		}
		l.s.reportStore(message.ID{}, fmt.Errorf("%s: %w", what, err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// attempts runs a message, and again as often as it says when it fails. The error is that
// of the node's stop.
func (l *lane) attempts(ctx context.Context, w kvstore.Waiting, attempt int) (kvstore.Finished, error) {
	for {
		f, err := l.s.run(ctx, l.id.Peer, w, attempt)
		if err != nil && ctx.Err() != nil {
			return f, ctx.Err()
		}
		if errors.Is(err, ErrTryLater) {
			if err := l.tryLater(ctx, err); err != nil {
				return f, err
			}
			continue
		}
		again := attempt <= w.Message.MethodRetries && (f.Result.Code == message.CodeFailed || f.Result.Code == message.CodeTimeout)
		if !again {
			l.s.reportEnd(&f)
			return f, nil
		}
		l.s.reportRun(&f)
		if r := f.Reply; r != nil && r.Part > 0 && len(r.Body) > 0 {
			// Its beginning is on the way already, so the rest of it is not left out.
			r.Result = nil
			if err := l.s.reply(ctx, r); err != nil {
				return f, err
			}
		}
		if err := pause(ctx, w.Message.RetryWait); err != nil {
			return f, err
		}
		attempt++
		if l.s.opts.Spec.Crash == Once {
			if err := l.beginOne(ctx, w, attempt); err != nil {
				return f, err
			}
		}
	}
}

// exact runs a method whose half-done work can be taken back: all that waits in one go,
// between a mark and the commit of its end.
func (l *lane) exact(ctx context.Context, waiting []kvstore.Waiting) error {
	spec := &l.s.opts.Spec
	first, mark := waiting[0].Arrival, waiting[0].Mark
	if mark != nil {
		for i, w := range waiting {
			if w.Arrival > mark.Last {
				waiting = waiting[:i]
				break
			}
		}
		if !l.live(first) {
			if err := spec.Undo(l.s.opts.Env, mark.Undo); err != nil {
				return fmt.Errorf("take back what a run of %s left: %w", spec.Name, err)
			}
			mark = nil // a method's Mark has to come before each of its runs
		}
	}
	calls := make([]*Call, 0, len(waiting))
	finished := make([]kvstore.Finished, 0, len(waiting))
	run := make([]kvstore.Waiting, 0, len(waiting))
	started, mayRun := time.Now(), l.s.mayRun(l.id.Peer)
	for _, w := range waiting {
		if w.Message.TTL > 0 && l.s.opts.Now().Sub(w.Accepted) > w.Message.TTL && w.Run == 0 {
			finished = append(finished, l.s.ended(w, 1, started, Outcome{Exit: -1}, 0, errExpired))
			continue
		}
		if err := mayRun(w.Message); err != nil {
			finished = append(finished, l.s.ended(w, 1, started, Outcome{Exit: -1}, 0, err))
			continue
		}
		calls, run = append(calls, l.s.call(w.Message, 1)), append(run, w)
		l.s.step(w.Message, StepStarted, "")
	}
	var errs []error
	if len(calls) > 0 {
		if mark == nil {
			undo, err := l.s.mark(calls)
			if err != nil && !errors.Is(err, errPanicked) {
				return l.tryLater(ctx, fmt.Errorf("mark a run of %s: %w", spec.Name, err))
			}
			if err == nil {
				mark = &kvstore.Mark{Last: waiting[len(waiting)-1].Arrival, Attempt: 1, Started: started, Undo: undo}
				if err := l.begin(ctx, first, *mark); err != nil {
					return err
				}
			}
		}
		if errs = l.runAll(ctx, calls, mark); errs == nil && len(waiting) > 1 {
			return l.fewer(ctx, waiting, mark)
		}
	}
	var later error
	for i, w := range run {
		err := errPanicked
		if errs != nil {
			err = errs[i]
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // what was run is taken back and run again at the next start
		}
		if errors.Is(err, ErrTryLater) {
			later = err
			continue
		}
		finished = append(finished, l.s.ended(w, 1, started, Outcome{Exit: -1}, 0, err))
	}
	for i := range finished {
		l.s.reportEnd(&finished[i])
	}
	if err := l.finish(ctx, first, finished); err != nil {
		return err
	}
	if later != nil {
		return l.tryLater(ctx, later)
	}
	return nil
}

// runAll runs calls, and returns nil when that panicked, or when their mark did.
func (l *lane) runAll(ctx context.Context, calls []*Call, mark *kvstore.Mark) (errs []error) {
	if mark == nil {
		return nil
	}
	limit := calls[0].Message.MethodTimeout // that of the most patient one
	for _, c := range calls {
		if t := c.Message.MethodTimeout; limit > 0 && (t <= 0 || t > limit) {
			limit = t
		}
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	err := l.s.guard(calls[0].Message, func() error {
		errs = l.s.opts.Spec.RunAll(ctx, calls)
		return nil
	})
	if err != nil {
		return nil
	}
	return errs
}

// fewer takes back a run that panicked, and runs half of its messages: the panic is to fail
// no message but its own.
func (l *lane) fewer(ctx context.Context, waiting []kvstore.Waiting, mark *kvstore.Mark) error {
	if mark != nil {
		if err := l.s.opts.Spec.Undo(l.s.opts.Env, mark.Undo); err != nil {
			return fmt.Errorf("take back a run of %s that panicked: %w", l.id.Method, err)
		}
		if err := l.finish(ctx, waiting[0].Arrival, nil); err != nil {
			return err
		}
		waiting[0].Mark = nil
	}
	return l.exact(ctx, waiting[:len(waiting)/2])
}

// tryLater makes the lane wait before it looks at its first message again.
func (l *lane) tryLater(ctx context.Context, why error) error {
	l.s.reportStore(message.ID{}, why)
	return pause(ctx, laterWait)
}

// laterWait is how long a lane waits when its method says that it cannot work now.
const laterWait = time.Second

// runs are those under way of a method without order.
type runs struct {
	sync.WaitGroup
	n atomic.Int64
}

func (r *runs) start(run func()) {
	r.n.Add(1)
	r.Go(func() {
		defer r.n.Add(-1)
		run()
	})
}

func (r *runs) count() int64 { return r.n.Load() }

// atOnce runs messages of a method without order, each in its own goroutine, as many at a
// time as the subscriber has slots.
func (l *lane) atOnce(ctx context.Context, runs *runs, waiting []kvstore.Waiting) error {
	for _, w := range waiting {
		select {
		case <-ctx.Done():
			return nil
		case l.s.slots <- struct{}{}:
		}
		runs.start(func() {
			defer func() { <-l.s.slots }()
			var f kvstore.Finished
			var err error
			switch l.s.opts.Spec.Crash {
			case Once:
				f, err = l.once(ctx, w)
			case Resume:
				f, err = l.resume(ctx, w)
			default:
				f, err = l.attempts(ctx, w, 1)
			}
			if err == nil {
				err = l.finish(ctx, w.Arrival, []kvstore.Finished{f})
			}
			if err != nil && ctx.Err() == nil {
				l.s.reportStore(w.Message.ID, err)
			}
		})
	}
	return nil
}

// finish writes the ends of messages with their replies, and tells all who wait for that.
// It goes on until the store takes them: the work is done, and must not be done again. The
// error is that of the node's stop.
func (l *lane) finish(ctx context.Context, mark uint64, finished []kvstore.Finished) error {
	if len(finished) == 0 && mark == 0 {
		return nil
	}
	var unkept []*message.Message // replies for which no ACK is wanted
	for i := range finished {
		if r := finished[i].Reply; r != nil && r.ACKTimeout <= 0 {
			unkept = append(unkept, r)
			finished[i].Reply = nil
		}
	}
	end := func() error {
		return l.persist(ctx, fmt.Sprintf("end of %d messages", len(finished)), func() error {
			return l.s.opts.Store.Finish(l.id, mark, finished)
		})
	}
	err := end()
	if errors.Is(err, message.ErrInvalid) {
		l.withoutReplies(finished, err)
		err = end()
	}
	if err != nil {
		return err
	}
	for i := range finished {
		f := &finished[i]
		m := f.Message
		l.s.stepEnded(m, &f.Result)
		if m.IsReply() && m.Result != nil {
			l.s.opts.Progress.step(Step{ID: m.InReplyTo, What: StepAnswered, Peer: m.From, Method: m.Method, Text: endText(m.Result), Result: m.Result})
		}
		if f.Again != nil {
			notify(l.s.planned)
		}
		if f.Over && m.WantsReply() {
			l.s.opts.Send.Wake(kvstore.Stream{Peer: m.From, Method: message.MethodNone})
		}
		if r := f.Reply; r != nil {
			l.s.opts.Send.Wake(kvstore.Stream{Peer: r.To, Method: r.Method})
		}
	}
	for _, r := range unkept {
		if err := l.s.reply(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// withoutReplies makes failures of the ends whose replies the store can never take. The
// senders learn that.
func (l *lane) withoutReplies(finished []kvstore.Finished, why error) {
	for i := range finished {
		f := &finished[i]
		if f.Reply == nil {
			continue
		}
		f.Again = nil
		f.Result = message.Result{Code: message.CodeInvalid, Text: "its reply cannot be sent: " + why.Error(), Exit: -1,
			Started: f.Result.Started, Took: f.Result.Took, Attempt: f.Result.Attempt}
		f.Reply = &message.Message{To: f.Reply.To, Method: message.MethodNone, ReplyMethod: message.MethodNone,
			ACKTimeout: f.Reply.ACKTimeout, Retries: f.Reply.Retries, InReplyTo: f.Reply.InReplyTo,
			RequestMethod: f.Reply.RequestMethod, Part: f.Reply.Part, Result: &f.Result}
		l.s.reportEnd(f)
	}
}
