package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
)

// errGoexit is how a process ended that neither returned nor panicked.
var errGoexit = errors.New("its goroutine was ended by runtime.Goexit")

// PanicError is a panic of a process.
type PanicError struct {
	Value any
	Stack []byte
}

// Error returns what was panicked with, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the error that was panicked with, if it was one.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// child is one supervised process. Its supervisor's mutex guards it.
type child struct {
	Child
	dynamic  bool
	id       int64
	launched bool // it has had a goroutine
	stopping bool // it is not to run any more
	stuck    bool // it was reported as such
	well     bool // its last run ended by itself, without an error

	state    State
	since    time.Time // begin of the state
	service  Service   // of the run under way, nil between runs
	cancel   context.CancelFunc
	timer    *time.Timer // of the backoff
	restarts int
	tries    int         // ends in a row, for the backoff
	failures []time.Time // within the window
	err      error       // the latest failure
	stopErr  error       // what went on below it when it was stopped
	next     *child      // takes over the name when this one has ended

	made chan struct{} // static: closed when the first service has been made
	over chan struct{} // static: closed when the first run has ended
	done chan struct{} // closed when it will not run any more
}

func newChild(spec Child, dynamic bool) *child {
	c := &child{Child: spec, dynamic: dynamic, state: Starting, since: time.Now(), done: make(chan struct{})}
	if !dynamic {
		c.made, c.over = make(chan struct{}), make(chan struct{})
	}
	return c
}

// check says what is wrong with c.
func (c Child) check() error {
	switch {
	case c.Name == "":
		return errors.New("a process has no name")
	case c.Make == nil:
		return fmt.Errorf("process %q: nothing to make it with", c.Name)
	case c.Restart > Temporary:
		return fmt.Errorf("process %q: unknown restart rule %d", c.Name, c.Restart)
	case c.Grace < 0:
		return fmt.Errorf("process %q: its grace period is negative", c.Name)
	}
	return nil
}

// shown is the state for people, to whom the end of a work is no stop.
func (c *child) shown() State {
	if c.state == Stopped && c.well {
		return Done
	}
	return c.state
}

// enter begins a state.
func (c *child) enter(st State) { c.state, c.since = st, time.Now() }

// level is how loud its starts and stops are logged. That a process starts once and stops
// with its node is nothing to tell; nor is each start of one that fails again and again, of which
// the reporter makes what it likes; and of dynamic children there may be thousands.
func (c *child) level() slog.Level {
	if c.dynamic || c.restarts == 0 || len(c.failures) > 1 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// runOnce is the life of a process from one start to its end. A panic ends it
// like an error; that of a method ends its call only, see Subscriber.guard.
func (s *Supervisor) runOnce(base context.Context, c *child) {
	s.mu.Lock()
	if c.stopping {
		s.finish(c)
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(base)
	c.cancel = cancel
	if c.state == Backoff {
		c.restarts++
	}
	c.enter(Running)
	attempt := c.restarts + 1
	s.mu.Unlock()
	s.o.Log.Log(ctx, c.level(), "process started", logattr.Process(s.path(c.Name)), logattr.Attempt(attempt))

	err := errGoexit // unless Serve returns or panics
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		cancel()
		s.ended(c, err)
	}()
	svc := c.Make()
	s.mu.Lock()
	c.service = svc
	closeOnce(c.made)
	s.mu.Unlock()
	err = svc.Serve(ctx)
}

// ended deals with the end of a run.
func (s *Supervisor) ended(c *child, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	c.service = nil
	if c.state == Running && now.Sub(c.since) >= s.o.Window {
		c.tries = 0
	}
	action := errorkernel.Continue
	switch {
	case c.stopping && errors.Is(err, context.Canceled):
		err = nil // it did as it was told
	case c.stopping && errors.Is(err, ErrStuck):
		c.stopErr = err // reported where it happened
	case err != nil:
		action = s.report(c, err, now)
	}

	closeOnce(c.over)
	c.well = err == nil && !c.stopping && c.Restart != Permanent
	tooOften := s.o.MaxFailures > 0 && len(c.failures) > s.o.MaxFailures
	switch {
	case c.stopping, action == errorkernel.Stop:
		s.finish(c)
	case err != nil && (action == errorkernel.Escalate || tooOften):
		s.finish(c)
		s.fail(fmt.Errorf("process %s: %w", s.path(c.Name), err))
	case c.Restart == Permanent, c.Restart == Transient && err != nil:
		s.backOff(c)
	default:
		s.finish(c)
	}
}

// report counts a failure and asks what to do about it. s.mu is held, but not while the
// reporter is asked: it may want to see the tree.
func (s *Supervisor) report(c *child, err error, now time.Time) errorkernel.Action {
	c.err = err
	old := func(t time.Time) bool { return now.Sub(t) >= s.o.Window }
	c.failures = append(slices.DeleteFunc(c.failures, old), now)
	ev := errorkernel.Event{
		Class:    errorkernel.ProcessFailed,
		Process:  s.path(c.Name),
		Err:      err,
		Failures: len(c.failures),
		At:       now,
	}
	// Only a panic of this very process, not one further down that made a supervisor fail.
	if p, ok := err.(*PanicError); ok { //nolint:errorlint // see above
		ev.Class, ev.Stack = errorkernel.ProcessPanic, string(p.Stack)
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.o.Report.Report(ev)
}

// backOff runs c again after a while. s.mu is held.
func (s *Supervisor) backOff(c *child) {
	most := s.o.BackoffMax
	if c.tries < 63 {
		if d := s.o.BackoffMin << c.tries; d>>c.tries == s.o.BackoffMin {
			most = min(most, d)
		}
	}
	c.tries++
	wait := rand.N(most)
	c.enter(Backoff)
	s.o.Log.Debug("process waits for its restart", logattr.Process(s.path(c.Name)), slog.Duration("wait", wait))
	c.timer = time.AfterFunc(wait, func() { s.run(c) })
}

// halt tells c to stop, and ends it at once when it is not running. s.mu is held.
func (s *Supervisor) halt(c *child) {
	if c.stopping || c.state == Stopped {
		return
	}
	c.stopping = true
	switch {
	case c.state == Running:
		c.enter(Stopping)
		c.cancel()
	case !c.launched, c.state == Backoff && c.timer.Stop():
		s.finish(c)
	}
	// Otherwise its goroutine is about to run it, and finds that it must not.
}

// finish ends c for good. s.mu is held.
func (s *Supervisor) finish(c *child) {
	c.enter(Stopped)
	closeOnce(c.made)
	closeOnce(c.over)
	close(c.done)
	lvl := c.level()
	if c.stuck {
		lvl = slog.LevelInfo
	}
	s.o.Log.Log(context.Background(), lvl, "process stopped", logattr.Process(s.path(c.Name)), slog.Bool("stuck", c.stuck))
	if !c.dynamic || c.Restart == Permanent && !c.stopping {
		return // stays in the list, for people to see
	}
	delete(s.children, c.Name)
	if c.next != nil && s.phase < phaseStopping {
		s.children[c.Name] = c.next
		if s.phase == phaseServing {
			s.spawn(c.next)
		}
	}
}

// fail makes the supervisor fail; the first failure counts. s.mu is held.
func (s *Supervisor) fail(err error) {
	select {
	case s.fatal <- err:
	default:
	}
}

// closeOnce closes ch, unless it is nil or closed. s.mu is held.
func closeOnce(ch chan struct{}) {
	if ch == nil {
		return
	}
	select {
	case <-ch:
	default:
		close(ch)
	}
}
