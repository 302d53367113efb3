package process_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/process"
)

func TestAStuckChildIsNamedAndDoesNotHoldUpTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		release := make(chan struct{})
		stuck := j.serving("stuck", func(context.Context) error { <-release; return nil })
		stuck.Grace = 3 * time.Second
		inner := process.Child{Name: "inner", Make: func() process.Service {
			o := j.options(stuck)
			o.Name = "root/inner"
			return newSupervisor(t, o)
		}}
		s := newSupervisor(t, j.options(j.child("first"), inner))
		stop, _ := supervise(t, s)
		begin := time.Now()
		err := stop()
		if !errors.Is(err, process.ErrStuck) || !strings.Contains(err.Error(), "root/inner/stuck") {
			t.Errorf("serve: %v", err)
		}
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("the stop took %v", d)
		}
		j.want(t, "start first", "stop first")
		got := j.reported()
		if len(got) != 1 || got[0].Class != errorkernel.ProcessStuck || got[0].Process != "root/inner/stuck" {
			t.Errorf("events: %+v", got)
		}
		close(release)
		synctest.Wait()
	})
}

func TestAFailureWhileStoppingIsReportedAndNotRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		c := j.serving("a", func(ctx context.Context) error { j.add("run"); <-ctx.Done(); return errors.New("disk full") })
		stop, _ := supervise(t, newSupervisor(t, j.options(c)))
		if err := stop(); err != nil {
			t.Error(err)
		}
		pass(time.Hour)
		j.want(t, "run")
		if got := j.reported(); len(got) != 1 || got[0].Err.Error() != "disk full" {
			t.Errorf("events: %+v", got)
		}
	})
}

func TestASupervisorMayTakeAsLongAsItsChildrenMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		slow := func(name string) process.Child {
			c := j.serving(name, func(ctx context.Context) error { <-ctx.Done(); <-time.After(50 * time.Second); return nil })
			c.Grace = time.Minute
			return c
		}
		inner := process.Child{Name: "inner", Make: func() process.Service {
			return newSupervisor(t, j.options(slow("a"), slow("b")))
		}}
		stop, _ := supervise(t, newSupervisor(t, j.options(inner)))
		begin := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != 100*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if got := j.reported(); len(got) != 0 {
			t.Errorf("events: %+v", got)
		}
	})
}

func TestAChildWithoutAGracePeriodGetsFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		release := make(chan struct{})
		stop, _ := supervise(t, newSupervisor(t, j.options(j.serving("a", func(context.Context) error { <-release; return nil }))))
		begin := time.Now()
		if err := stop(); !errors.Is(err, process.ErrStuck) || time.Since(begin) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		close(release)
		synctest.Wait()
	})
}
