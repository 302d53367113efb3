package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"steward/errorkernel"
	"steward/process"
)

// journal collects what happens, in order, and answers events.
type journal struct {
	mu     sync.Mutex
	lines  []string
	events []errorkernel.Event
	answer func(errorkernel.Event) errorkernel.Action
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) Report(ev errorkernel.Event) errorkernel.Action {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, ev)
	if j.answer != nil {
		return j.answer(ev)
	}
	return errorkernel.DefaultPolicy(ev)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) reported() []errorkernel.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}

func (j *journal) want(t *testing.T, want ...string) {
	t.Helper()
	if got := j.all(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// child notes its start and its stop, and waits for its end in between. The start is noted
// when the child is made: that is what has an order.
func (j *journal) child(name string) process.Child {
	return process.Child{Name: name, Make: func() process.Service {
		j.add("start %s", name)
		return process.ServiceFunc(func(ctx context.Context) error {
			<-ctx.Done()
			j.add("stop %s", name)
			return ctx.Err()
		})
	}}
}

func (j *journal) serving(name string, f func(ctx context.Context) error) process.Child {
	return process.Child{Name: name, Make: func() process.Service { return process.ServiceFunc(f) }}
}

func (j *journal) options(children ...process.Child) process.SupervisorOptions {
	return process.SupervisorOptions{Name: "root", Children: children, Report: j, Log: slog.New(slog.DiscardHandler)}
}

func newSupervisor(t *testing.T, o process.SupervisorOptions) *process.Supervisor {
	t.Helper()
	s, err := process.NewSupervisor(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// supervise runs s. stop ends it and returns what Serve returned; ended is the same
// without a stop.
func supervise(t *testing.T, s *process.Supervisor) (stop, ended func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	synctest.Wait()
	ended = func() error { defer cancel(); return <-done }
	return func() error { cancel(); return <-done }, ended
}

// pass lets the fake time of a bubble pass, and everything come to rest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func node(t *testing.T, s *process.Supervisor, name string) process.Tree {
	t.Helper()
	for _, n := range s.Tree().Children {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("%s is not in the tree", name)
	return process.Tree{}
}

func TestNewSupervisorRefusesBadOptions(t *testing.T) {
	j := &journal{}
	good := j.child("a")
	for name, change := range map[string]func(o *process.SupervisorOptions){
		"no name":             func(o *process.SupervisorOptions) { o.Name = "" },
		"no reporter":         func(o *process.SupervisorOptions) { o.Report = nil },
		"no logger":           func(o *process.SupervisorOptions) { o.Log = nil },
		"negative limit":      func(o *process.SupervisorOptions) { o.MaxFailures = -1 },
		"negative window":     func(o *process.SupervisorOptions) { o.Window = -1 },
		"backoff upside down": func(o *process.SupervisorOptions) { o.BackoffMin, o.BackoffMax = 2, 1 },
		"child without name":  func(o *process.SupervisorOptions) { o.Children[0].Name = "" },
		"child without make":  func(o *process.SupervisorOptions) { o.Children[0].Make = nil },
		"unknown rule":        func(o *process.SupervisorOptions) { o.Children[0].Restart = 9 },
		"negative grace":      func(o *process.SupervisorOptions) { o.Children[0].Grace = -1 },
		"name used twice":     func(o *process.SupervisorOptions) { o.Children = append(o.Children, good) },
	} {
		o := j.options(good)
		change(&o)
		if _, err := process.NewSupervisor(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := process.NewSupervisor(j.options(good)); err != nil {
		t.Errorf("good options: %v", err)
	}
}

func TestSupervisorStartsInOrderAndStopsBackwards(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(ready(j, "a"), ready(j, "b"), ready(j, "c")))
		stop, _ := supervise(t, s)
		pass(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		j.want(t, "start a", "ready a", "start b", "ready b", "start c", "ready c",
			"stop c", "ended c", "stop b", "ended b", "stop a", "ended a")
		if got := j.reported(); len(got) != 0 {
			t.Errorf("an ordered stop is reported: %v", got)
		}
	})
}

// readier takes a second to get ready and a second to stop.
type readier struct {
	j    *journal
	name string
	open chan struct{}
}

func (r *readier) Ready() <-chan struct{} { return r.open }

func (r *readier) Serve(ctx context.Context) error {
	r.j.add("start %s", r.name)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	r.j.add("ready %s", r.name)
	close(r.open)
	<-ctx.Done()
	r.j.add("stop %s", r.name)
	<-time.After(time.Second)
	r.j.add("ended %s", r.name)
	return ctx.Err()
}

func ready(j *journal, name string) process.Child {
	return process.Child{Name: name, Make: func() process.Service {
		return &readier{j: j, name: name, open: make(chan struct{})}
	}}
}

func TestSupervisorGoesOnWhenAChildEndsBeforeItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		never := process.Child{Name: "a", Restart: process.Temporary, Make: func() process.Service {
			return &failsBeforeReady{open: make(chan struct{})}
		}}
		broken := process.Child{Name: "b", Restart: process.Temporary, Make: func() process.Service { panic("no luck") }}
		s := newSupervisor(t, j.options(never, broken, j.child("c")))
		stop, _ := supervise(t, s)
		pass(2 * time.Second)
		j.want(t, "start c")
		select {
		case <-s.Ready():
		default:
			t.Error("not ready")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

type failsBeforeReady struct{ open chan struct{} }

func (f *failsBeforeReady) Ready() <-chan struct{} { return f.open }
func (f *failsBeforeReady) Serve(context.Context) error {
	<-time.After(time.Second)
	return errors.New("no luck")
}

func TestStopWhileAChildGetsReadyStartsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(ready(j, "a"), j.child("b")))
		if err := s.Start(j.child("dynamic")); err != nil {
			t.Fatal(err)
		}
		stop, _ := supervise(t, s)
		pass(time.Second / 2)
		if st := node(t, s, "a").State; st != process.Starting {
			t.Errorf("a is %s", st)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		j.want(t, "start a")
		select {
		case <-s.Ready():
			t.Error("ready")
		default:
		}
	})
}

func TestNestedSupervisorHoldsUpTheNextUntilItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		inner := process.Child{Name: "inner", Make: func() process.Service {
			o := j.options(ready(j, "x"))
			o.Name = "inner"
			return newSupervisor(t, o)
		}}
		s := newSupervisor(t, j.options(inner, j.child("b")))
		stop, _ := supervise(t, s)
		j.want(t, "start x")
		pass(2 * time.Second)
		j.want(t, "start x", "ready x", "start b")
		tree := s.Tree()
		if tree.State != process.Running || tree.Children[0].Name != "inner" || tree.Children[0].Children[0].Name != "x" {
			t.Errorf("tree: %+v", tree)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		j.want(t, "start x", "ready x", "start b", "stop b", "stop x", "ended x")
	})
}

func TestRestartRules(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		rule process.RestartRule
		end  error
		want bool
	}{
		{process.Permanent, nil, true},
		{process.Permanent, broken, true},
		{process.Transient, nil, false},
		{process.Transient, broken, true},
		{process.Temporary, nil, false},
		{process.Temporary, broken, false},
		{process.Permanent, context.Canceled, true}, // not told to stop: a failure
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("rule %d, %v", tt.rule, tt.end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{}
				c := j.serving("a", func(context.Context) error { j.add("run"); return tt.end })
				c.Restart = tt.rule
				s := newSupervisor(t, j.options(c))
				stop, _ := supervise(t, s)
				pass(10 * time.Second)
				if got := len(j.all()) > 1; got != tt.want {
					t.Errorf("restarted: %v", got)
				}
				if st := node(t, s, "a").State; (st == process.Done) != (tt.end == nil && !tt.want) {
					t.Errorf("it is %s", st)
				}
				if n := len(j.reported()); (n > 0) != (tt.end != nil) {
					t.Errorf("%d events", n)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestEachStartGetsANewService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		made := 0
		c := process.Child{Name: "a", Make: func() process.Service {
			made++
			runs := 0
			return process.ServiceFunc(func(context.Context) error { runs++; j.add("run %d", runs); return errors.New("broken") })
		}}
		s := newSupervisor(t, j.options(c))
		stop, _ := supervise(t, s)
		pass(5 * time.Second)
		_ = stop()
		if made < 2 || made != len(j.all()) || slices.Contains(j.all(), "run 2") {
			t.Errorf("%d made: %q", made, j.all())
		}
	})
}

func TestRestartsGetSlowerAndStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		var starts []time.Time
		c := j.serving("a", func(context.Context) error { starts = append(starts, time.Now()); return errors.New("broken") })
		o := j.options(c)
		o.BackoffMin, o.BackoffMax = time.Second, 30*time.Second
		s := newSupervisor(t, o)
		stop, _ := supervise(t, s)
		pass(2 * time.Hour)
		begin := time.Now()
		_ = stop()
		if d := time.Since(begin); d != 0 {
			t.Errorf("a stop in the backoff took %v", d)
		}
		for i := 1; i < len(starts); i++ {
			most := 30 * time.Second
			if i <= 5 {
				most = min(most, time.Second<<(i-1))
			}
			if wait := starts[i].Sub(starts[i-1]); wait > most {
				t.Errorf("restart %d came after %v, want at most %v", i, wait, most)
			}
		}
		// The mean wait is 15 s in the long run.
		if n := len(starts); n < 350 || n > 700 {
			t.Errorf("%d starts in two hours", n)
		}
		if n := node(t, s, "a"); n.Restarts != len(starts)-1 || n.Error != "broken" || n.State != process.Stopped {
			t.Errorf("tree: %+v", n)
		}
	})
}

func TestALongRunForgivesEarlierFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		c := j.serving("a", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(2 * time.Minute):
				return errors.New("broken")
			}
		})
		o := j.options(c)
		o.MaxFailures, o.BackoffMin = 1, time.Second
		s := newSupervisor(t, o)
		stop, _ := supervise(t, s)
		pass(time.Hour)
		for i, ev := range j.reported() {
			if ev.Failures != 1 {
				t.Errorf("event %d counts %d failures", i, ev.Failures)
			}
		}
		if n := len(j.reported()); n != 29 {
			t.Errorf("%d failures in an hour of runs of two minutes and a second", n)
		}
		_ = stop()
	})
}

func TestPanicBecomesAnEventWithItsStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		cause := errors.New("broken")
		c := j.serving("a", func(context.Context) error { explode(cause); return nil })
		c.Restart = process.Temporary
		s := newSupervisor(t, j.options(c))
		stop, _ := supervise(t, s)
		_ = stop()
		got := j.reported()
		if len(got) != 1 {
			t.Fatalf("%d events", len(got))
		}
		var p *process.PanicError
		if ev := got[0]; ev.Class != errorkernel.ProcessPanic || ev.Process != "root/a" || ev.Failures != 1 ||
			!strings.Contains(ev.Stack, "explode") || !errors.As(ev.Err, &p) || !errors.Is(ev.Err, cause) ||
			ev.Err.Error() != "panic: broken" {
			t.Errorf("event: %+v", ev)
		}
	})
}

func explode(err error) { panic(err) }

func TestGoexitIsAFailureLikeOthers(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(j.serving("a", func(context.Context) error { j.add("run"); runtime.Goexit(); return nil })))
		stop, _ := supervise(t, s)
		pass(5 * time.Second)
		if len(j.all()) < 2 {
			t.Error("not restarted")
		}
		if ev := j.reported()[0]; ev.Class != errorkernel.ProcessFailed || !strings.Contains(ev.Err.Error(), "Goexit") {
			t.Errorf("event: %+v", ev)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestTooManyFailuresFailTheSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		broken := errors.New("broken")
		o := j.options(j.child("first"), j.serving("bad", func(context.Context) error { return broken }), j.child("last"))
		o.MaxFailures = 3
		_, ended := supervise(t, newSupervisor(t, o))
		err := ended()
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "root/bad") {
			t.Errorf("serve: %v", err)
		}
		j.want(t, "start first", "start last", "stop last", "stop first")
		var counts []int
		for _, ev := range j.reported() {
			counts = append(counts, ev.Failures)
		}
		if !slices.Equal(counts, []int{1, 2, 3, 4}) {
			t.Errorf("events counted %v", counts)
		}
	})
}

func TestFailuresOfSiblingsAreCountedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		o := j.options()
		for i := range 20 {
			runs := 0
			o.Children = append(o.Children, j.serving(fmt.Sprint(i), func(ctx context.Context) error {
				if runs++; runs <= 2 {
					return errors.New("broken")
				}
				<-ctx.Done()
				return nil
			}))
		}
		o.MaxFailures = 2
		s := newSupervisor(t, o)
		stop, _ := supervise(t, s)
		pass(time.Minute)
		for _, n := range s.Tree().Children {
			if n.State != process.Running || n.Restarts != 2 {
				t.Errorf("%+v", n)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestActionsAreCarriedOut(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		action errorkernel.Action
		state  process.State // of the child afterwards
		fails  bool          // the supervisor
	}{
		{errorkernel.Continue, process.Backoff, false},
		{errorkernel.Retry, process.Backoff, false},
		{errorkernel.Restart, process.Backoff, false},
		{errorkernel.Stop, process.Stopped, false},
		{errorkernel.Escalate, process.Stopped, true},
		{errorkernel.Action(0), process.Backoff, false},
	}
	for _, tt := range tests {
		t.Run(tt.action.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{answer: func(errorkernel.Event) errorkernel.Action { return tt.action }}
				o := j.options(j.serving("a", func(context.Context) error { return broken }), j.child("b"))
				o.BackoffMin, o.BackoffMax = time.Hour, time.Hour
				s := newSupervisor(t, o)
				stop, _ := supervise(t, s)
				if got := node(t, s, "a").State; got != tt.state {
					t.Errorf("the child is %s, want %s", got, tt.state)
				}
				if err := stop(); errors.Is(err, broken) != tt.fails {
					t.Errorf("serve: %v", err)
				}
			})
		})
	}
}

func TestEscalationGoesUpTheTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		broken := errors.New("broken")
		inner := process.Child{Name: "inner", Make: func() process.Service {
			o := j.options(j.serving("leaf", func(context.Context) error { panic(broken) }))
			o.Name, o.MaxFailures = "root/inner", 1
			return newSupervisor(t, o)
		}}
		o := j.options(j.child("other"), inner)
		o.MaxFailures = 1
		_, ended := supervise(t, newSupervisor(t, o))
		if err := ended(); !errors.Is(err, broken) {
			t.Errorf("serve: %v", err)
		}
		var got []string
		for _, ev := range j.reported() {
			got = append(got, fmt.Sprintf("%v %s %d", ev.Class, ev.Process, ev.Failures))
		}
		want := []string{
			"process-panic root/inner/leaf 1", "process-panic root/inner/leaf 2", "process-failed root/inner 1",
			"process-panic root/inner/leaf 1", "process-panic root/inner/leaf 2", "process-failed root/inner 2",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		j.want(t, "start other", "stop other")
	})
}

func TestProcessThatFailsAgainAndAgainDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		var log bytes.Buffer
		o := j.options(j.serving("a", func(context.Context) error { return errors.New("the port is taken") }))
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		stop, _ := supervise(t, newSupervisor(t, o))
		<-time.After(time.Minute)
		_ = stop()
		if n := len(j.reported()); n < 5 {
			t.Errorf("%d failures", n)
		}
		if n := strings.Count(log.String(), "process started"); n != 1 {
			t.Errorf("%d lines about starts, want one about the first restart:\n%s", n, log.String())
		}
	})
}

func TestSupervisorIsServedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(j.child("a")))
		stop, _ := supervise(t, s)
		if err := s.Serve(t.Context()); err == nil {
			t.Error("served twice at a time")
		}
		_ = stop()
		if err := s.Serve(t.Context()); err == nil {
			t.Error("served again")
		}
		j.want(t, "start a", "stop a")
	})
}

func TestPathsAndRestartsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		var log bytes.Buffer
		o := j.options(j.child("a"))
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		stop, _ := supervise(t, newSupervisor(t, o))
		_ = stop()
		for _, want := range []string{`msg="process started" process=root/a attempt=1`, `msg="process stopped" process=root/a`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s is not in the log:\n%s", want, log.String())
			}
		}
	})
}
