package process_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
)

func TestInterruptedRunIsReportedAndNotRepeated(t *testing.T) {
	for _, method := range []message.Method{once, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				ids := a.send(answered(do(b, method, 1, "sleep=10s")), do(b, method, 2, "sleep=10s"))
				w.advance(5 * time.Second)
				b.restart()
				w.settled(time.Minute)
				want(t, "code", a.sent(ids[0]).Code, message.CodeInterrupted)
				want(t, "state", a.sent(ids[0]).State, message.StateFailed)
				got := b.numbers(method)
				slices.Sort(got)
				wantList(t, "runs", got, []int{1, 2})
				want(t, "answers", len(a.ran(answer)), 1)
				if !slices.ContainsFunc(b.events.of(errorkernel.MethodFailed), func(ev errorkernel.Event) bool { return ev.ID == ids[0] }) {
					t.Error("nothing was reported")
				}
			})
		})
	}
}

func TestInterruptedRunIsRepeatedWhenItsMessageSaysSo(t *testing.T) {
	for _, method := range []message.Method{once, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				m := answered(do(b, method, 1, "sleep=10s"))
				m.MethodRetries = 2
				ids := a.send(m)
				for range 2 {
					w.advance(5 * time.Second)
					b.restart()
				}
				w.settled(time.Minute)
				want(t, "code", a.sent(ids[0]).Code, message.CodeDone)
				var attempts []int
				for _, r := range b.ran(method) {
					attempts = append(attempts, r.attempt)
				}
				wantList(t, "attempts", attempts, []int{1, 2, 3})
				want(t, "answers", len(a.ran(answer)), 1)
			})
		})
	}
}

func TestCleanStopLeavesTheRestForTheNextStart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(series(b, once, 1, 4, "sleep=10s")...)
		a.send(series(b, exact, 1, 4)...)
		w.advance(15 * time.Second)
		b.stop()
		a.stop()
		b.start()
		a.start()
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), upTo(4))
		want(t, "the one under way", a.sent(ids[1]).Code, message.CodeInterrupted)
		want(t, "the last", a.sent(ids[3]).Code, message.CodeDone)
		wantList(t, "file", b.file(exact, a), upTo(4))
	})
}

func TestHalfDoneBatchIsTakenBack(t *testing.T) {
	for after := 1; after <= 9; after++ {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				left := after
				b.disk.onWrite = func() {
					if left--; left == 0 {
						b.up.kill()
					}
				}
				a.send(series(b, exact, 1, 4)...)
				synctest.Wait()
				a.send(series(b, exact, 5, 9)...)
				<-b.up.killed
				b.bury()
				b.start()
				w.settled(time.Minute)
				wantList(t, "file", b.file(exact, a), upTo(9))
			})
		})
	}
}

// TestCrashAtAnyCommit lets a node die at each commit of a scenario, before and after it.
func TestCrashAtAnyCommit(t *testing.T) {
	for _, victim := range []message.Node{"a", "b"} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s late %v", victim, late), func(t *testing.T) {
				t.Parallel()
				for call, died := 1, true; died; call++ {
					ok := t.Run(fmt.Sprint(call), func(t *testing.T) {
						inWorld(t, func(t *testing.T, w *world) { died = crashAt(t, w, victim, call, late) })
					})
					if !ok || call > 500 {
						return
					}
				}
			})
		}
	}
}

func crashAt(t *testing.T, w *world, victim message.Node, call int, late bool) (died bool) {
	w.step = 100 * time.Millisecond
	a, b := w.add("a"), w.add("b")
	a.window, b.laneMessages = 8, 6
	a.start()
	b.start()
	v := w.named(victim)
	v.up.gate.dieAfter(call, late)
	revive := func() {
		synctest.Wait()
		if !v.up.alive() {
			died = true
			v.bury()
			v.start()
		}
	}
	for round := range 2 {
		for i, method := range []message.Method{repeat, once, exact, manyOnce} {
			msgs := series(b, method, 1+3*round, 3+3*round)
			msgs[0], msgs[2] = answered(msgs[0]), answered(msgs[2])
			msgs[1].MethodRetries = 1
			if i == round {
				msgs[2].Data = append(msgs[2].Data, "parts=2")
			}
			if round == 1 && i%2 == 0 {
				msgs[1].Data = append(msgs[1].Data, "fail")
			}
			if _, err := a.try(msgs...); err != nil && a.up.alive() {
				t.Fatal(err)
			}
			if round == 0 {
				revive()
			}
		}
		w.advance(time.Millisecond)
		revive()
	}
	w.until(10*time.Minute, "quiet", func() bool {
		revive()
		return a.up.waiting() == "" && b.up.waiting() == ""
	})
	w.check()
	return died
}

func TestSenderWithANewStoreIsTakenForNew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.send(series(b, once, 1, 5)...)
		w.settled(time.Second)
		a.stop()
		a.wipe()
		a.start()
		a.send(series(b, once, 6, 8)...)
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), upTo(8))
	})
}

func TestReceiverWithANewStoreGoesOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.send(series(b, once, 1, 5)...)
		w.settled(time.Second)
		b.stop()
		b.wipe()
		a.send(series(b, once, 6, 8)...)
		w.advance(time.Minute)
		b.start()
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), upTo(8))
	})
}

func TestSenderWithAnOlderStoreLosesNothingAndRepeatsNothing(t *testing.T) {
	for _, tt := range []struct{ before, waiting, lost, after int }{
		{3, 0, 4, 1},
		{3, 0, 4, 3},
		{3, 2, 4, 1}, // the copy was made while some waited
		{0, 0, 2, 1},
		{3, 0, 4, 4}, // the new messages have the numbers of those that were lost
		{3, 0, 4, 10},
		{3, 2, 4, 9},
	} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				n := 0
				next := func(count int) {
					if count > 0 {
						a.send(series(b, once, n+1, n+count)...)
						n += count
					}
				}
				next(tt.before)
				w.settled(time.Second)
				if tt.waiting > 0 {
					b.stop()
					next(tt.waiting)
					synctest.Wait()
				}
				a.stop()
				old := a.backup()
				a.start()
				if b.up == nil {
					b.start()
				}
				next(tt.lost)
				w.settled(time.Minute)
				a.stop()
				a.restore(old)
				a.offline = true
				a.start()
				next(tt.after)
				a.up.link.SetLink(true)
				w.settled(time.Minute)
				wantList(t, "runs", b.numbers(once), upTo(n))
			})
		})
	}
}
