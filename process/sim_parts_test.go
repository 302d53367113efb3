package process_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

func TestRestOfAFailedRunFollowsItsParts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		for n, what := range [][]string{{"parts=2", "body=rest", "failures=1"}, {"body=all", "failures=1"}} {
			m := answered(do(b, once, n, what...))
			m.MethodRetries = 1
			a.send(m)
		}
		w.settled(time.Second)
		var bodies []string
		var ends []bool
		for _, r := range a.ran(answer) {
			bodies, ends = append(bodies, r.body), append(ends, r.result != nil)
		}
		// Of a run of which no part was on the way, only the last one is told of.
		wantList(t, "bodies", bodies, []string{"part 0", "part 1", "rest", "part 0", "part 1", "rest", "all"})
		wantList(t, "ends", ends, []bool{false, false, false, false, false, true, true})
	})
}

func TestResumedRunRepeatsAndLeavesOutNothing(t *testing.T) {
	const steps = 5
	for _, late := range []bool{false, true} {
		for call, died := 1, true; died; call++ {
			t.Run(fmt.Sprintf("crash at commit %d, late %v", call, late), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					a, b := w.pair()
					start := time.Now()
					b.up.gate.dieAfter(call, late)
					m := answered(do(b, resumes, 1, fmt.Sprint("steps=", steps), "body=end"))
					m.TTL = 3 * time.Second // is about when it begins
					ids := a.send(m)
					w.until(time.Minute, "quiet", func() bool {
						synctest.Wait()
						if !b.up.alive() {
							b.bury()
							b.start()
						}
						return a.up.waiting() == "" && b.up.waiting() == "" && a.sent(ids[0]).State.Final()
					})
					died = b.up.number > 2 // those of the first start
					want(t, "state", a.sent(ids[0]).State, message.StateDone)
					var bodies []string
					for i, r := range a.ran(answer) {
						want(t, "part", int(r.part), i)
						bodies = append(bodies, r.body)
					}
					wantList(t, "bodies", bodies, []string{"step 0", "step 1", "step 2", "step 3", "step 4", "end"})
					if took := time.Since(start); took > 2*steps*time.Second {
						t.Errorf("it took %v", took)
					}
				})
			})
			if call > 100 {
				t.Fatal("it dies for ever")
			}
		}
	}
}

func TestResumedRunHasTheTimeThatWasLeft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		m := answered(do(b, resumes, 1, "steps=100"))
		m.MethodTimeout = 10500 * time.Millisecond
		ids := a.send(m)
		w.advance(4200 * time.Millisecond)
		b.stop()
		w.advance(3 * time.Second)
		b.start()
		w.until(4*time.Second, "its end", func() bool { return a.sent(ids[0]).State.Final() })
		want(t, "code", a.sent(ids[0]).Code, message.CodeTimeout)
		want(t, "parts", len(a.ran(answer)), 4+3+1)
	})
}

func TestResumingMethodRunsWithoutAnAck(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		for _, wait := range []time.Duration{0, 5 * time.Second} { // for the ACK of the reply
			m := answered(do(b, resumes, 1, "steps=2", "body=end"))
			m.ACKTimeout, m.ReplyACKTimeout = 5*time.Second-wait, wait
			a.send(m)
		}
		w.settled(time.Minute)
		w.advance(5 * time.Second)
		want(t, "answers", len(a.ran(answer)), 6)
	})
}

func TestLongRunDelaysNoMessageThatComesMuchLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.idle = 10 * time.Second
		a.start()
		b.start()
		m := do(b, manyOnce, 1, "hang")
		m.MethodTimeout = message.Forever
		a.send(m)
		w.advance(time.Minute)
		b.up.gate.fill(true, "ReadLane")
		a.send(do(b, manyOnce, 2))
		w.advance(time.Minute)
		b.up.gate.fill(false, "ReadLane")
		w.advance(5 * time.Second)
		a.send(do(b, manyOnce, 3))
		w.advance(time.Second)
		wantList(t, "begun", b.numbers(manyOnce), []int{1, 2, 3})
	})
}

func TestPartsWaitForRoomAndLeaveSomeForOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.ringMessages = 10
		a.start()
		b.start()
		// No part arrives before the sender goes.
		w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
			return memtransport.Fate{Drop: to == "a" && isFrame(from, to, d)}
		})
		ids := a.send(answered(do(b, once, 1, "parts=50", "body=end")))
		w.until(time.Second, "delivery", func() bool { return a.sent(ids[0]).State == message.StateDelivered })
		a.stop()
		w.faults(nil)
		w.advance(10 * time.Second)
		_, err := b.up.router.AcceptOwn(t.Context(), []message.Message{do(a, answer, 2)})
		b.must(err)
		a.start()
		w.settled(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "answers", len(a.ran(answer)), 52)
		want(t, "events", len(b.events.of(errorkernel.StoreFailed)), 0)
	})
}
