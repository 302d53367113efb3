package errorkernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"steward/errorkernel"
	"steward/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// central collects what a kernel sends, and can be told to fail or to block.
type central struct {
	mu    sync.Mutex
	lines []string
	fail  func(ctx context.Context, text string) error
}

func (c *central) send(ctx context.Context, text string) error {
	c.mu.Lock()
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, text); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, text)
	return nil
}

func (c *central) set(fail func(ctx context.Context, text string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func (c *central) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), text)
}

type rig struct {
	*errorkernel.Kernel
	central *central
	log     *syncBuffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{central: &central{}, log: &syncBuffer{}}
	k, err := errorkernel.New(errorkernel.Options{
		Node: "ship1",
		Log:  slog.New(slog.NewTextHandler(r.log, nil)),
		Send: r.central.send,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Kernel = k
	return r
}

// serve runs the kernel and returns what stops it.
func (r *rig) serve(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

// pass lets the fake time of a bubble pass, and everything come to rest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func failed(process, why string) errorkernel.Event {
	return errorkernel.Event{Class: errorkernel.ProcessFailed, Process: process, Err: errors.New(why)}
}

func wantLines(t *testing.T, got []string, parts ...string) {
	t.Helper()
	if len(got) != len(parts) {
		t.Fatalf("got %d lines, want %d:\n%s", len(got), len(parts), strings.Join(got, "\n"))
	}
	for i, part := range parts {
		if !strings.Contains(got[i], part) {
			t.Errorf("line %d: %s\nwant %s in it", i, got[i], part)
		}
	}
}

func TestNewRefusesMissingOptions(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	send := (&central{}).send
	for name, o := range map[string]errorkernel.Options{
		"no logger":       {Node: "a", Send: send},
		"no send":         {Node: "a", Log: log},
		"no node":         {Log: log, Send: send},
		"negative window": {Node: "a", Log: log, Send: send, Window: -1},
	} {
		if _, err := errorkernel.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestKernelSendsTheFirstAtOnceAndSumsUpRepetitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		for range 5 {
			r.Report(failed("publishers/a", "broken"))
		}
		r.Report(failed("publishers/b", "broken"))
		synctest.Wait()
		wantLines(t, r.central.got(), "process=publishers/a", "process=publishers/b")

		pass(59 * time.Second)
		wantLines(t, r.central.got(), "", "")
		pass(2 * time.Second)
		wantLines(t, r.central.got(), "", "", "process=publishers/a count=4 cause=broken")
		if n := r.log.count("process=publishers/a"); n != 2 {
			t.Errorf("logged %d times, want once and once summed up", n)
		}
	})
}

func TestKernelCountsWhatIsReportedByItsClass(t *testing.T) {
	k := newRig(t)
	for range 3 {
		k.Report(failed("publishers/a", "broken"))
	}
	k.Report(errorkernel.Event{Class: errorkernel.GivenUp, Method: "REQErrorLog", Err: errors.New("no answer")})
	k.Report(errorkernel.Event{Class: 99, Err: errors.New("of a class that there is not")})
	counts := k.Counts()
	if counts[errorkernel.ProcessFailed] != 3 || counts[errorkernel.GivenUp] != 1 {
		t.Errorf("%v", counts)
	}
	for class := errorkernel.ProcessFailed; class <= errorkernel.WroteStderr; class++ {
		if _, ok := counts[class]; !ok {
			t.Errorf("%s is not counted", class)
		}
	}
	if len(counts) != int(errorkernel.WroteStderr) {
		t.Errorf("%d classes", len(counts))
	}
}

func TestKernelTellsOnceInAWindowAboutAFailureThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		for range 300 {
			r.Report(failed("p", "broken"))
			pass(time.Second)
		}
		if n := len(r.central.got()); n < 5 || n > 6 {
			t.Errorf("%d lines in five minutes, want about one a minute", n)
		}
		total := 0
		for _, l := range r.central.got() {
			var n int
			_, after, _ := strings.Cut(l, " count=")
			if _, err := fmt.Sscanf(after, "%d", &n); err != nil {
				t.Fatal(err)
			}
			total += n
		}
		if total < 240 {
			t.Errorf("the lines tell of %d failures of 300", total)
		}
		pass(3 * time.Minute)
		sent := len(r.central.got())
		r.Report(failed("p", "broken"))
		synctest.Wait()
		if n := len(r.central.got()); n != sent+1 {
			t.Errorf("after a quiet time the failure is not sent at once (%d lines, then %d)", sent, n)
		}
	})
}

func TestKernelNamesTheMessagesOfASum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		var ids []string
		for i := range 4 {
			id := message.NewID(time.Now(), uint32(i), 7)
			ids = append(ids, id.String())
			r.Report(errorkernel.Event{Class: errorkernel.GivenUp, Process: "publishers/a", Err: errors.New("no ack"), ID: id, From: "ship1"})
		}
		pass(2 * time.Minute)
		wantLines(t, r.central.got(), "id="+ids[0]+" from=ship1 count=1", "count=3 ids="+strings.Join(ids[1:], ","))
	})
}

func TestKernelQueuesBeforeServeKeepsTheEarlyOnesAndSaysHowManyWereLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const queue, all = 256, 300
		for i := range all {
			r.Report(failed(fmt.Sprintf("p%d", i), "broken"))
		}
		defer r.serve(t)()
		got := r.central.got()
		if len(got) != queue {
			t.Fatalf("%d lines sent, want %d", len(got), queue)
		}
		for i, l := range got {
			if !strings.Contains(l, fmt.Sprintf("process=p%d ", i)) {
				t.Fatalf("line %d is not of event %d: %s", i, i, l)
			}
			if has := strings.HasSuffix(l, " lost=44"); has != (i == 0) {
				t.Errorf("line %d: %s", i, l)
			}
		}
	})
}

func TestReportNeverWaitsForSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		r.central.set(func(context.Context, string) error { <-release; return nil })
		stop := r.serve(t)
		begin := time.Now()
		for i := range 1000 {
			r.Report(failed(fmt.Sprintf("p%d", i), "broken"))
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("reporting took %v", d)
		}
		close(release)
		stop()
	})
}

func TestKernelDoesNotTryAFailedSendAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		tries := 0
		r.central.set(func(context.Context, string) error { tries++; return errors.New("disk full") })
		defer r.serve(t)()
		r.Report(failed("a", "broken"))
		r.Report(failed("b", "broken"))
		pass(time.Hour)
		if tries != 2 {
			t.Errorf("%d tries for two events", tries)
		}
		if n := r.log.count("not handed over"); n != 1 {
			t.Errorf("%d log lines about it, want one", n)
		}
		r.central.set(nil)
		r.Report(failed("c", "broken"))
		synctest.Wait()
		wantLines(t, r.central.got(), "process=c count=1 cause=broken lost=2")
	})
}

func TestFailuresAboutErrorMessagesStayInTheLocalLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		events := []errorkernel.Event{
			{Class: errorkernel.GivenUp, Process: "p1", Method: message.MethodErrorLog},
			{Class: errorkernel.GivenUp, Process: "p2", Subject: "central.REQErrorLog.EventACK"},
			failed("publishers/central.REQErrorLog.EventACK", "broken"),
		}
		for range 3 {
			for _, ev := range events {
				r.Report(ev)
			}
		}
		pass(5 * time.Minute)
		wantLines(t, r.central.got())
		if n := r.log.count("failure reported"); n != 2*len(events) {
			t.Errorf("%d log lines, want each once and once summed up", n)
		}
	})
}

func TestAFailureReportedBySendDoesNotFeedItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		tries := 0
		r.central.set(func(context.Context, string) error {
			tries++
			r.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "store", Err: errors.New("disk full")})
			return errors.New("disk full")
		})
		defer r.serve(t)()
		r.Report(failed("a", "broken"))
		pass(10 * time.Minute)
		if tries > 20 {
			t.Errorf("%d tries in ten minutes", tries)
		}
	})
}

func TestKernelServesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.serve(t)()
		defer r.serve(t)()
		r.Report(failed("a", "broken"))
		synctest.Wait()
		wantLines(t, r.central.got(), "process=a")
	})
}

func TestEverNewWordsDoNotFloodCentral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		for i := range 10_000 {
			r.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "subscribers/REQPing", Err: fmt.Errorf("garbage %d", i)})
		}
		r.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "store", Err: errors.New("disk full")})
		pass(2 * time.Minute)
		got := r.central.got()
		if len(got) > 40 {
			t.Errorf("%d lines sent", len(got))
		}
		if !strings.Contains(strings.Join(got, "\n"), "class=store-failed") {
			t.Error("the failure of another process got lost in the flood")
		}
		if !strings.Contains(strings.Join(got, "\n"), "count=9983") {
			t.Errorf("the sum is missing: %s", got[len(got)-1])
		}
	})
}

func TestAFloodIsForgottenWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		for i := range 100 {
			r.Report(failed("p", fmt.Sprint("broken ", i)))
		}
		pass(10 * time.Minute)
		before := len(r.central.got())
		for i := range 5 {
			r.Report(failed("p", fmt.Sprint("new ", i)))
		}
		synctest.Wait()
		if n := len(r.central.got()) - before; n != 5 {
			t.Errorf("%d of 5 new failures sent at once", n)
		}
	})
}

func TestASumOfManyMessagesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		for i := range 1000 {
			r.Report(errorkernel.Event{Class: errorkernel.GivenUp, Process: "p", Err: errors.New("no ack"), ID: message.NewID(time.Now(), uint32(i), 7)})
		}
		pass(2 * time.Minute)
		got := r.central.got()
		wantLines(t, got, "count=1 ", "count=999 ids=")
		checkLine(t, got[1])
		if !strings.HasSuffix(got[1], `cause="no ack"`) || strings.Count(got[1], ",") != 63 {
			t.Errorf("the sum: %s", got[1])
		}
	})
}

func TestFailuresOfManyProcessesAreBoundedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.serve(t)()
		for i := range 5000 {
			r.Report(failed(fmt.Sprintf("p%d", i), "broken"))
			synctest.Wait()
		}
		if n := len(r.central.got()); n != 1024 {
			t.Errorf("%d lines sent, want as many as are remembered", n)
		}
		pass(2 * time.Minute)
		r.Report(failed("next", "broken"))
		synctest.Wait()
		got := r.central.got()
		if last := got[len(got)-1]; !strings.HasSuffix(last, " lost=3976") {
			t.Errorf("the next line does not say how many were lost: %s", last)
		}
	})
}

func TestPolicyDecides(t *testing.T) {
	var seen errorkernel.Event
	cause := errors.New("broken")
	k, err := errorkernel.New(errorkernel.Options{
		Node:   "a",
		Log:    slog.New(slog.DiscardHandler),
		Send:   (&central{}).send,
		Policy: func(ev errorkernel.Event) errorkernel.Action { seen = ev; return errorkernel.Escalate },
	})
	if err != nil {
		t.Fatal(err)
	}
	got := k.Report(errorkernel.Event{Class: errorkernel.ProcessPanic, Err: cause, Failures: 3})
	if got != errorkernel.Escalate || !errors.Is(seen.Err, cause) || seen.Failures != 3 {
		t.Errorf("got %v for %+v", got, seen)
	}
}

func TestLogLevelsSayWhoHasToAct(t *testing.T) {
	for class, want := range map[errorkernel.Class]string{
		errorkernel.ProcessFailed: "level=WARN",
		errorkernel.ProcessPanic:  "level=ERROR",
		errorkernel.ProcessStuck:  "level=ERROR",
		errorkernel.GivenUp:       "level=ERROR",
		errorkernel.MethodFailed:  "level=WARN",
		errorkernel.Refused:       "level=WARN",
		errorkernel.StoreFailed:   "level=ERROR",
		errorkernel.LinkFailed:    "level=WARN",
		errorkernel.NameTaken:     "level=ERROR",
		errorkernel.Unproven:      "level=ERROR",
	} {
		r := newRig(t)
		r.Report(errorkernel.Event{Class: class, Err: errors.New("x")})
		if r.log.count(want) != 1 {
			t.Errorf("%v is not logged with %s", class, want)
		}
	}
}

func TestReportFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		stop := r.serve(t)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 200 {
					r.Report(failed(fmt.Sprintf("p%d", (i+j)%20), "broken"))
				}
			})
		}
		all.Wait()
		stop()
		total := 0
		for _, l := range r.central.got() {
			var n int
			_, after, _ := strings.Cut(l, " count=")
			if _, err := fmt.Sscanf(after, "%d", &n); err != nil {
				t.Fatal(err)
			}
			total += n
		}
		if total != 1600 {
			t.Errorf("the lines tell of %d failures, want 1600", total)
		}
	})
}
