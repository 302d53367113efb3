package errorkernel_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStoppedKernelHandsOverOnceAndThenOnlyLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		block := make(chan struct{})
		r.central.set(func(ctx context.Context, _ string) error {
			select {
			case <-block:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		stop := r.serve(t)
		r.Report(failed("a", "broken"))
		r.Report(failed("a", "broken"))
		r.Report(failed("b", "broken"))
		synctest.Wait()
		close(block)
		stop()
		lines := r.central.got()
		wantLines(t, lines, "process=a count=1", "process=b count=1", "process=a count=1")

		r.Report(failed("late", "broken"))
		pass(time.Hour)
		if n := len(r.central.got()); n != len(lines) {
			t.Errorf("%d lines sent after the stop", n-len(lines))
		}
		if r.log.count("process=late") != 1 {
			t.Error("a report after the stop is not in the log")
		}
		defer r.serve(t)()
		pass(time.Hour)
		if n := len(r.central.got()); n != len(lines) {
			t.Errorf("what was reported between two runs is sent: %q", r.central.got()[len(lines):])
		}
	})
}

func TestStoppingKernelIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		tries := 0
		r.central.set(func(ctx context.Context, _ string) error { tries++; <-ctx.Done(); return ctx.Err() })
		for i := range 100 {
			r.Report(failed(fmt.Sprintf("p%d", i), "broken"))
		}
		stop := r.serve(t)
		begin := time.Now()
		stop()
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if tries > 2 {
			t.Errorf("%d tries, want one when it was interrupted and one more", tries)
		}
		if r.log.count("before the stop") != 1 {
			t.Error("what is lost at the stop is not in the log")
		}
	})
}

func TestWhatTheStopInterruptedIsHandedOverOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		tries := 0
		r.central.set(func(ctx context.Context, _ string) error {
			if tries++; tries == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		for i := range 260 {
			r.Report(failed(fmt.Sprintf("p%d", i), "broken"))
		}
		r.serve(t)()
		got := r.central.got()
		if tries != 257 || len(got) != 256 {
			t.Fatalf("%d lines in %d tries", len(got), tries)
		}
		for i, l := range got {
			if !strings.Contains(l, fmt.Sprintf("process=p%d ", i)) {
				t.Fatalf("line %d: %s", i, l)
			}
			if has := strings.HasSuffix(l, " lost=4"); has != (i == 0) {
				t.Errorf("line %d: %s", i, l)
			}
		}
		if r.log.count("before the stop") != 0 {
			t.Error("logged as not handed over")
		}
	})
}
