package process_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"steward/errorkernel"
	"steward/process"
)

func TestDynamicChildrenStartAtOnceOrAfterTheStaticOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(ready(j, "a"), j.child("b")))
		if err := s.Start(j.child("early")); err != nil {
			t.Fatal(err)
		}
		stop, _ := supervise(t, s)
		if err := s.Start(j.child("meanwhile")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		j.want(t, "start a", "start meanwhile")
		pass(2 * time.Second)
		if got := j.all(); !slices.Equal(got[:3], []string{"start a", "start meanwhile", "ready a"}) || len(got) != 5 {
			t.Errorf("got %q", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := j.all(); !slices.Equal(got[7:], []string{"stop b", "stop a", "ended a"}) {
			t.Errorf("dynamic children have to stop before the static ones: %q", got)
		}
	})
}

func TestADynamicChildThatEndedLeavesTheList(t *testing.T) {
	for _, rule := range []process.RestartRule{process.Transient, process.Temporary} {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			s := newSupervisor(t, j.options())
			stop, _ := supervise(t, s)
			for i := range 3 {
				c := j.serving("a", func(context.Context) error { j.add("run %d", i); return nil })
				c.Restart = rule
				if err := s.Start(c); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if n := len(s.Tree().Children); n != 0 {
					t.Errorf("%d children left", n)
				}
			}
			j.want(t, "run 0", "run 1", "run 2")
			_ = stop()
		})
	}
}

func TestADynamicChildIsRestartedLikeAStaticOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		runs := 0
		c := j.serving("a", func(ctx context.Context) error {
			if runs++; runs < 3 {
				panic("broken")
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if err := s.Start(c); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if n := node(t, s, "a"); n.State != process.Running || n.Restarts != 2 || n.Error != "panic: broken" {
			t.Errorf("tree: %+v", n)
		}
		_ = stop()
	})
}

func TestStartRefusesWhatIsThereOrWrongOrTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(j.child("static")))
		stop, _ := supervise(t, s)
		if err := s.Start(j.child("permanent")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"static", "permanent"} {
			if err := s.Start(j.child(name)); !errors.Is(err, process.ErrExists) {
				t.Errorf("%s a second time: %v", name, err)
			}
		}
		if err := s.Start(process.Child{Name: "x"}); err == nil {
			t.Error("a child that cannot be made was accepted")
		}
		_ = stop()
		if err := s.Start(j.child("late")); !errors.Is(err, process.ErrStopped) {
			t.Errorf("after the stop: %v", err)
		}
	})
}

func TestAnEndingChildHandsItsNameOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		var running, most atomic.Int32
		begin := func(i int) process.Child {
			c := j.serving("a", func(context.Context) error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				j.add("run %d", i)
				<-time.After(time.Second)
				return nil
			})
			c.Restart = process.Transient
			return c
		}
		for i := range 2 {
			if err := s.Start(begin(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Start(begin(2)); !errors.Is(err, process.ErrExists) {
			t.Errorf("a second successor: %v", err)
		}
		pass(3 * time.Second)
		j.want(t, "run 0", "run 1")
		if most.Load() != 1 {
			t.Error("two processes of one name at a time")
		}
		_ = stop()
	})
}

func TestAServiceMayStartItsSuccessorInItsLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		var begin func(i int) process.Child
		begin = func(i int) process.Child {
			c := j.serving("a", func(context.Context) error {
				if i < 100 {
					return s.Start(begin(i + 1))
				}
				j.add("done")
				return nil
			})
			c.Restart = process.Temporary
			return c
		}
		if err := s.Start(begin(0)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		j.want(t, "done")
		_ = stop()
	})
}

func TestStopChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(j.child("static"), j.child("last")))
		stop, _ := supervise(t, s)
		if err := s.Start(j.child("dynamic")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, name := range []string{"static", "dynamic", "static"} {
			if err := s.StopChild(t.Context(), name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"dynamic", "nobody"} {
			if err := s.StopChild(t.Context(), name); !errors.Is(err, process.ErrNoProcess) {
				t.Errorf("%s: %v", name, err)
			}
		}
		pass(time.Hour)
		j.want(t, "start static", "start last", "start dynamic", "stop static", "stop dynamic")
		if st := node(t, s, "static").State; st != process.Stopped {
			t.Errorf("static is %s", st)
		}
		// It can be started again, and gets its place in the order back.
		if err := s.Start(j.child("static")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := j.all()[5:]; !slices.Equal(got, []string{"start static", "stop last", "stop static"}) {
			t.Errorf("got %q", got)
		}
	})
}

func TestStopChildBeforeServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options(j.child("a"), j.child("b")))
		if err := s.Start(j.child("dynamic")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "dynamic"} {
			if err := s.StopChild(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
		stop, _ := supervise(t, s)
		if err := stop(); err != nil {
			t.Error(err)
		}
		j.want(t, "start b", "stop b")
	})
}

func TestStopChildInBackoffIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		o := j.options(j.serving("a", func(context.Context) error { j.add("run"); return errors.New("broken") }))
		o.BackoffMin, o.BackoffMax = 1000*time.Hour, 1000*time.Hour
		s := newSupervisor(t, o)
		stop, _ := supervise(t, s)
		begin := time.Now()
		if err := s.StopChild(t.Context(), "a"); err != nil || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		pass(2000 * time.Hour)
		j.want(t, "run")
		_ = stop()
	})
}

func TestStopChildOfAStuckOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		release := make(chan struct{})
		c := j.serving("a", func(context.Context) error { <-release; return nil })
		c.Grace = time.Minute
		if err := s.Start(c); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.StopChild(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("within a second: %v", err)
		}
		if err := s.StopChild(t.Context(), "a"); !errors.Is(err, process.ErrStuck) {
			t.Errorf("with patience: %v", err)
		}
		if st := node(t, s, "a").State; st != process.Stopping {
			t.Errorf("it is %s", st)
		}
		close(release)
		synctest.Wait()
		if n := len(s.Tree().Children); n != 0 {
			t.Error("it ended at last and is still in the list")
		}
		if got := j.reported(); len(got) != 1 || got[0].Class != errorkernel.ProcessStuck {
			t.Errorf("events: %+v", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestManyDynamicChildrenStopTogether(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		const n = 3000
		for i := range n {
			c := j.serving(fmt.Sprintf("p%04d", i), func(ctx context.Context) error {
				<-ctx.Done()
				<-time.After(time.Second)
				return ctx.Err()
			})
			if err := s.Start(c); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		tree := s.Tree()
		if len(tree.Children) != n || !slices.IsSortedFunc(tree.Children, func(a, b process.Tree) int {
			return slices.Compare([]byte(a.Name), []byte(b.Name))
		}) {
			t.Errorf("%d children in the tree", len(tree.Children))
		}
		begin := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("the stop took %v", d)
		}
	})
}

func TestAReporterMayLookAtTheTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		var s *process.Supervisor
		j.answer = func(errorkernel.Event) errorkernel.Action { s.Tree(); return errorkernel.Stop }
		s = newSupervisor(t, j.options(j.serving("a", func(context.Context) error { return errors.New("broken") })))
		stop, _ := supervise(t, s)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Whatever happens to the children at whatever time: of one name at most one process runs,
// a stop ends all of them, and nothing is left behind.
func TestSupervisorKeepsOneProcessPerNameThroughEverything(t *testing.T) {
	defer goleak.VerifyNone(t)
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			what string
			name string
			wait time.Duration
		}
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				what: rapid.SampledFrom([]string{"start", "stop", "fail", "panic", "exit", "end", "tree"}).Draw(t, "what"),
				name: rapid.SampledFrom([]string{"a", "b", "c", "static"}).Draw(t, "name"),
				wait: time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond,
			}
		}), 1, 40).Draw(rt, "steps")
		rule := rapid.Custom(func(t *rapid.T) process.RestartRule {
			return process.RestartRule(rapid.IntRange(0, 2).Draw(t, "rule"))
		})
		rules := map[string]process.RestartRule{"a": rule.Draw(rt, "a"), "b": rule.Draw(rt, "b"), "c": rule.Draw(rt, "c")}

		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			running := map[string]int{}
			orders := map[string]chan string{}
			for _, n := range []string{"a", "b", "c", "static"} {
				orders[n] = make(chan string, 1)
			}
			j := &journal{}
			make := func(name string) process.Child {
				c := j.serving(name, func(ctx context.Context) error {
					mu.Lock()
					if running[name]++; running[name] > 1 {
						t.Errorf("%d processes called %s at a time", running[name], name)
					}
					mu.Unlock()
					defer func() {
						mu.Lock()
						running[name]--
						mu.Unlock()
					}()
					select {
					case <-ctx.Done():
						return ctx.Err()
					case order := <-orders[name]:
						switch order {
						case "fail":
							return errors.New("broken")
						case "panic":
							panic("broken")
						case "exit":
							runtime.Goexit()
						}
						return nil
					}
				})
				c.Restart = rules[name]
				return c
			}
			s := newSupervisor(t, j.options(make("static")))
			stop, _ := supervise(t, s)
			for _, st := range steps {
				switch st.what {
				case "start":
					if err := s.Start(make(st.name)); err != nil && !errors.Is(err, process.ErrExists) {
						t.Error(err)
					}
				case "stop":
					if err := s.StopChild(t.Context(), st.name); err != nil && !errors.Is(err, process.ErrNoProcess) {
						t.Error(err)
					}
				case "tree":
					s.Tree()
				default:
					select {
					case orders[st.name] <- st.what:
					default:
					}
				}
				if st.wait > 0 {
					pass(st.wait)
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			for name, n := range running {
				if n != 0 {
					t.Errorf("%s is still running", name)
				}
			}
			for _, n := range s.Tree().Children {
				if n.State != process.Stopped {
					t.Errorf("%s is %s after the stop", n.Name, n.State)
				}
			}
		})
		if t.Failed() {
			rt.FailNow()
		}
	})
}

func TestAPermanentDynamicChildToldToStopStaysInSightAndCanBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{answer: func(errorkernel.Event) errorkernel.Action { return errorkernel.Stop }}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		if err := s.Start(j.serving("a", func(context.Context) error { return errors.New("broken") })); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := node(t, s, "a"); n.State != process.Stopped || n.Error != "broken" {
			t.Errorf("tree: %+v", n)
		}
		if err := s.Start(j.child("a")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.Tree().Children; len(n) != 1 || n[0].State != process.Running {
			t.Errorf("tree: %+v", n)
		}
		_ = stop()
		j.want(t, "start a", "stop a")
	})
}

func TestStopChildTakesItsSuccessorWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		s := newSupervisor(t, j.options())
		stop, _ := supervise(t, s)
		c := j.child("a")
		c.Restart = process.Transient
		for range 2 {
			if err := s.Start(c); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := s.StopChild(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		j.want(t, "start a", "stop a")
		_ = stop()
	})
}
