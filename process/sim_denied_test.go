package process_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
)

// shut makes a door that closes for all when its value is set.
func (n *simNode) shut() *atomic.Bool {
	var shut atomic.Bool
	n.allowed = func(message.Node) bool { return !shut.Load() }
	return &shut
}

// wantDenied looks whether a message that had arrived was refused before its run, told to both sides,
// and left nothing behind.
func wantDenied(t *testing.T, a, b *simNode, id message.ID) {
	t.Helper()
	life := a.sent(id)
	want(t, "state", life.State, message.StateFailed)
	want(t, "code", life.Code, message.CodeDenied)
	if life.Delivered.IsZero() {
		t.Error("it never arrived")
	}
	if text := "a may not use " + string(life.Method) + " on b: it is on no list; it was allowed when it arrived"; !strings.Contains(life.Text, text) {
		t.Errorf("the sender is told %q", life.Text)
	}
	received, err := b.up.kv.Received(id)
	b.must(err)
	want(t, "code at the receiver", received.Code, message.CodeDenied)
	told := 0
	for _, ev := range b.events.of(errorkernel.MethodFailed) {
		if ev.ID == id && strings.HasPrefix(ev.Err.Error(), "denied: a may not use") {
			told++
		}
	}
	want(t, "reports", told, 1)
}

func TestRunIsDeniedWhenTheSenderMayNotAnyMore(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce, resumes} {
		for _, crash := range []bool{false, true} {
			t.Run(string(method)+map[bool]string{true: " after a crash"}[crash], func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					a, b := w.add("a"), w.add("b")
					shut := b.shut()
					b.parallel = 1
					a.start()
					b.start()
					synctest.Wait()
					a.send(answered(do(b, method, 1, "sleep=10s")))
					synctest.Wait()
					ids := a.send(answered(do(b, method, 2)), do(b, method, 3))
					w.advance(time.Second)
					shut.Store(true)
					if crash {
						b.restart()
					}
					w.settled(time.Minute)
					for _, id := range ids {
						wantDenied(t, a, b, id)
					}
					shut.Store(false)
					last := a.send(answered(do(b, method, 4)))
					w.settled(time.Minute)
					want(t, "code of what came after", a.sent(last[0]).Code, message.CodeDone)
					for _, n := range b.numbers(method) {
						if n == 2 || n == 3 {
							t.Errorf("ran %v", b.numbers(method))
						}
					}
				})
			})
		}
	}
}

// What was allowed may wait for its next attempt, or its next run, and is asked about again.
func TestEachRunIsDecidedAnew(t *testing.T) {
	for _, method := range []message.Method{repeat, once, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				shut := b.shut()
				a.start()
				b.start()
				retried := answered(do(b, method, 1, "fail"))
				retried.MethodRetries, retried.RetryWait = 3, 10*time.Second
				scheduled := every(answered(do(b, exact, 2)), 10*time.Second, message.Forever)
				ids := a.send(retried, scheduled)
				w.advance(time.Second)
				shut.Store(true)
				w.settled(time.Minute)
				for _, id := range ids {
					wantDenied(t, a, b, id)
				}
				shut.Store(false)
				w.advance(time.Minute)
				wantList(t, "runs", b.numbers(method), []int{1})
				wantList(t, "file", b.file(exact, a), []int{2})
			})
		})
	}
}

// A tail that was cut off by a crash goes on only if it still may, and its reply has an end.
func TestResumedRunIsDenied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		shut := b.shut()
		a.start()
		b.start()
		ids := a.send(answered(do(b, resumes, 1, "steps=30")))
		w.advance(5500 * time.Millisecond)
		shut.Store(true)
		b.restart()
		w.settled(time.Minute)
		wantDenied(t, a, b, ids[0])
		want(t, "runs", len(b.ran(resumes)), 1)
		answers := a.ran(answer)
		for i, r := range answers {
			want(t, "part", r.part, uint32(i))
		}
		if last := answers[len(answers)-1]; len(answers) != 6 || last.result == nil || last.result.Code != message.CodeDenied {
			t.Errorf("%d answers, the last: %+v", len(answers), last)
		}
	})
}

func TestUnackedMessageIsDeniedBeforeItsRun(t *testing.T) {
	for _, method := range []message.Method{once, exact} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				shut := b.shut()
				b.parallel = 1
				a.start()
				b.start()
				synctest.Wait()
				for n := 1; n <= 3; n++ { // one runs, one waits for its place, one behind it
					m := answered(do(b, method, n, "sleep=10s"))
					m.ACKTimeout = 0
					a.send(m)
				}
				synctest.Wait()
				shut.Store(true)
				w.advance(time.Minute)
				wantList(t, "runs", b.numbers(method), []int{1})
				answers := a.ran(answer)
				want(t, "answers", len(answers), 3)
				want(t, "code", answers[2].result.Code, message.CodeDenied)
			})
		})
	}
}

// A node may do with itself what it likes, in whose name ever.
func TestNodeItselfIsNotAskedAbout(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.add("a")
				a.shut().Store(true)
				a.start()
				unacked := do(a, method, 3)
				unacked.ACKTimeout = 0
				a.send(do(a, method, 1), with(do(a, method, 2), message.HeaderFrom, "b"), unacked)
				w.settled(time.Minute)
				want(t, "runs", len(a.numbers(method)), 3)
			})
		})
	}
}
