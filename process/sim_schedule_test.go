package process_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

// every makes a message run again.
func every(m message.Message, beat, total time.Duration) message.Message {
	m.Schedule = &message.Schedule{Every: beat, For: total}
	return m
}

// beats is when each run of a method began, in whole seconds from start on.
func beats(n *simNode, method message.Method, start time.Time) []int {
	var at []int
	for _, r := range n.ran(method) {
		at = append(at, int(r.at.Sub(start)/time.Second))
	}
	return at
}

func TestScheduleRunsAgainAndAnswersEachTime(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				start := time.Now()
				ids := a.send(every(answered(do(b, method, 1)), 2*time.Second, 5*time.Second))
				w.advance(3 * time.Second)
				synctest.Wait()
				if l := a.sent(ids[0]); l.State != message.StateDelivered || l.Text != "run 2: done" {
					t.Errorf("between its runs: %+v", l)
				}
				w.advance(time.Minute)
				w.settled(time.Minute)
				wantList(t, "runs", beats(b, method, start), []int{0, 2, 4})
				wantList(t, "answers", beats(a, answer, start), []int{0, 2, 4})
				want(t, "state", a.sent(ids[0]).State, message.StateDone)
				life, err := b.up.kv.Received(ids[0])
				b.must(err)
				want(t, "state at the receiver", life.State, message.StateDone)
			})
		})
	}
}

func TestScheduleGoesOnWithoutALinkAndAfterACrash(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		start := time.Now()
		ids := a.send(every(answered(do(b, once, 1)), 10*time.Second, message.Forever))
		w.advance(5 * time.Second)
		b.up.link.SetLink(false)
		w.advance(20 * time.Second) // 25
		b.offline = true
		b.crash()
		w.advance(10 * time.Second) // 35: a run was missed
		b.start()
		synctest.Wait()
		wantList(t, "runs", beats(b, once, start), []int{0, 10, 20, 35})
		w.advance(10 * time.Second) // 45: back in the old beat
		wantList(t, "runs", beats(b, once, start), []int{0, 10, 20, 35, 40})
		wantList(t, "answers while cut off", beats(a, answer, start), []int{0})
		b.up.link.SetLink(true)
		w.until(time.Minute, "the answers of all runs", func() bool { return len(a.ran(answer)) == 5 })
		want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
	})
}

func TestScheduleWhoseRunWasInterruptedGoesOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		start := time.Now()
		ids := a.send(every(answered(do(b, once, 1, "sleep=3s")), 10*time.Second, 25*time.Second))
		w.advance(11 * time.Second)
		b.restart()
		synctest.Wait()
		want(t, "what the sender knows", a.sent(ids[0]).Text, "run 2: interrupted: the node went down while the method ran; it was not run again")
		w.advance(time.Minute)
		w.settled(time.Minute)
		wantList(t, "runs", beats(b, once, start), []int{0, 10, 20})
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
	})
}

func TestScheduleHoldsUpNobodyAndLeavesOutWhatItMisses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		start := time.Now()
		a.send(every(do(b, once, 1), 2*time.Second, 10*time.Second))
		w.advance(time.Second)
		a.send(do(b, once, 2, "sleep=6s")) // from 1 to 7
		w.advance(time.Minute)
		w.settled(time.Minute)
		wantList(t, "runs", beats(b, once, start), []int{0, 1, 7, 8})
		wantList(t, "order", b.numbers(once), []int{1, 2, 1, 1})
	})
}

func TestScheduleOutlivesATTLAndRunsThatFail(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		m := every(answered(do(b, once, 1, "panic")), 2*time.Second, 5*time.Second)
		m.TTL = time.Second
		ids := a.send(m)
		w.advance(time.Minute)
		w.settled(time.Minute)
		want(t, "runs", len(b.ran(once)), 3)
		want(t, "reports", len(b.events.of(errorkernel.MethodFailed)), 3)
		want(t, "state", a.sent(ids[0]).State, message.StateFailed)
	})
}

func TestScheduleIsRemoved(t *testing.T) {
	for name, at := range map[string]time.Duration{"between two runs": 5 * time.Second, "in a run": 11 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				start := time.Now()
				ids := a.send(every(answered(do(b, once, 1, "sleep=2s")), 10*time.Second, message.Forever))
				w.advance(at)
				wantList(t, "cleared for another node", b.clear(process.QueueFilter{ID: ids[0], To: "c"}), nil)
				wantList(t, "cleared", b.clear(process.QueueFilter{ID: ids[0]}), []process.Cleared{{To: "b", Method: once, Messages: 1}})
				w.advance(time.Hour)
				w.settled(time.Minute)
				runs := []int{0}
				if at > 10*time.Second {
					runs = append(runs, 10)
				}
				wantList(t, "runs", beats(b, once, start), runs)
				want(t, "answers", len(a.ran(answer)), len(runs))
				l := a.sent(ids[0])
				if l.State != message.StateRemoved || !strings.Contains(l.Text, "removed by the test") {
					t.Errorf("at the sender: %+v", l)
				}
				wantList(t, "cleared again", b.clear(process.QueueFilter{ID: ids[0]}), nil)
			})
		})
	}
}

func TestTheEndOfAScheduleOvertakesALateReply(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(every(answered(do(b, once, 1)), 10*time.Second, message.Forever))
		w.advance(time.Second)
		w.faults(func(_, _ string, d process.Delivery) memtransport.Fate {
			return memtransport.Fate{Drop: strings.HasPrefix(d.Subject, "a."+string(answer)+".")}
		})
		w.advance(10 * time.Second)
		b.clear(process.QueueFilter{Method: once})
		w.until(time.Minute, "the sender knows", func() bool { return a.sent(ids[0]).State == message.StateRemoved })
		w.faults(nil)
		w.settled(time.Minute)
		want(t, "answers", len(a.ran(answer)), 2)
		want(t, "state", a.sent(ids[0]).State, message.StateRemoved)
	})
}

func TestScheduleFromAHostilePeerIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(every(do(b, once, 1), time.Millisecond, time.Hour), do(b, once, 2))
		w.settled(time.Minute)
		want(t, "code", a.sent(ids[0]).Code, message.CodeInvalid)
		wantList(t, "runs", b.numbers(once), []int{2})
	})
}
