package process_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
)

func TestTryLaterWaitsAndKeepsOrder(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				ids := a.send(do(b, method, 1), do(b, method, 2, "later=3"), do(b, method, 3))
				start := time.Now()
				w.settled(time.Minute)
				for _, id := range ids {
					want(t, "code", a.sent(id).Code, message.CodeDone)
				}
				runs := b.ran(method)
				last := runs[len(runs)-1]
				want(t, "waited", last.at.Sub(start), 3*time.Second)
				var done []int // the last run of each
				for i, r := range runs {
					if !slices.ContainsFunc(runs[i+1:], func(later run) bool { return later.id == r.id }) {
						done = append(done, r.n)
					}
				}
				if method == manyOnce {
					slices.Sort(done)
				}
				wantList(t, "order", done, upTo(3))
			})
		})
	}
}

func TestQuickRunIsAnsweredWhileASlowOneFollows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		start := time.Now()
		ids := a.send(answered(do(b, repeat, 1)), answered(do(b, repeat, 2, "sleep=50s")))
		w.advance(time.Second)
		want(t, "state of the quick one", a.sent(ids[0]).State, message.StateDone)
		if answers := a.ran(answer); len(answers) != 1 || answers[0].at.Sub(start) > 20*time.Millisecond {
			t.Errorf("answers: %+v", answers)
		}
		w.settled(time.Minute)
		want(t, "state of the slow one", a.sent(ids[1]).State, message.StateDone)
	})
}

func TestPanicOfAMarkFailsItsMessageOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		bad := a.send(answered(do(b, exact, 1, "panic in mark")))
		w.settled(time.Minute)
		good := a.send(answered(do(b, exact, 2)))
		w.settled(time.Minute)
		want(t, "code", a.sent(bad[0]).Code, message.CodeFailed)
		want(t, "code", a.sent(good[0]).Code, message.CodeDone)
		wantList(t, "file", b.file(exact, a), []int{2})
	})
}

func TestPanicInABatchFailsItsMessageOnly(t *testing.T) {
	for _, what := range []string{"panic", "panic in mark"} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				msgs := series(b, exact, 1, 9)
				for i := range msgs {
					msgs[i] = answered(msgs[i])
				}
				msgs[5] = answered(do(b, exact, 6, what))
				for range 2 { // a lane that is idle, and one that is not
					before := len(b.file(exact, a))
					ids := a.send(do(b, exact, 0, "sleep=1s"))
					if before > 0 {
						synctest.Wait()
					}
					ids = append(ids, a.send(msgs...)...)
					w.settled(time.Minute)
					wantList(t, "file", b.file(exact, a)[before:], []int{0, 1, 2, 3, 4, 5, 7, 8, 9})
					for i, id := range ids {
						if i != 6 {
							want(t, "code", a.sent(id).Code, message.CodeDone)
						}
					}
					want(t, "code of the one that panicked", a.sent(ids[6]).Code, message.CodeFailed)
				}
				want(t, "failed processes", len(b.events.of(errorkernel.ProcessFailed)), 0)
			})
		})
	}
}

func TestSubscriberThatFailedGoesOnAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		var bad atomic.Int32
		b.allowed = func(message.Node) bool {
			if bad.Add(-1) >= 0 {
				panic("a fault of ours")
			}
			return true
		}
		a.start()
		b.start()
		for n := 1; n <= 3; n++ {
			a.send(do(b, once, 10*n), do(b, exact, 10*n))
			w.settled(time.Second)
			bad.Store(2) // two subscribers fail
			a.send(do(b, once, 10*n+1), do(b, exact, 10*n+1))
			w.settled(20 * time.Second)
		}
		wantList(t, "once", b.numbers(once), []int{10, 11, 20, 21, 30, 31})
		wantList(t, "exact", b.file(exact, a), []int{10, 11, 20, 21, 30, 31})
	})
}

func TestHungMethodDelaysNoOtherMethodOrSender(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		c := w.add("c")
		c.start()
		hung := do(b, once, 1, "hang")
		hung.MethodTimeout = message.Forever
		a.send(hung)
		slow := do(b, manyOnce, 2, "hang")
		slow.MethodTimeout = message.Forever
		a.send(slow)
		a.send(do(b, repeat, 3), do(b, exact, 4), do(b, manyOnce, 5))
		c.send(do(b, once, 6))
		start := time.Now()
		synctest.Wait()
		got := b.numbers(once, repeat, exact, manyOnce)
		slices.Sort(got)
		wantList(t, "runs", got, upTo(6))
		want(t, "time", time.Since(start), 0)
	})
}

func TestMethodIsCutOffAtItsTimeout(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				m := answered(do(b, method, 1, "hang"))
				m.MethodTimeout = 3 * time.Second
				ids := a.send(m)
				start := time.Now()
				synctest.Wait()
				a.send(do(b, method, 2))
				w.settled(time.Minute)
				want(t, "code", a.sent(ids[0]).Code, message.CodeTimeout)
				if runs := b.ran(method); method != manyOnce {
					want(t, "next run", runs[len(runs)-1].at.Sub(start), 3*time.Second)
				}
			})
		})
	}
}

func TestPanicFailsItsMessageOnly(t *testing.T) {
	for _, method := range []message.Method{repeat, once, manyOnce, exact} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				bad := a.send(answered(do(b, method, 1, "panic")))
				w.settled(time.Minute)
				good := a.send(answered(do(b, method, 2)))
				w.settled(time.Minute)
				want(t, "code", a.sent(bad[0]).Code, message.CodeFailed)
				want(t, "code", a.sent(good[0]).Code, message.CodeDone)
				want(t, "reports", len(b.events.of(errorkernel.ProcessPanic)), 1)
				want(t, "failed processes", len(b.events.of(errorkernel.ProcessFailed)), 0)
			})
		})
	}
}
