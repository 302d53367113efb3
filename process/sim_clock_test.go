package process_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

// set puts a node's clock on the wall to another time.
func (n *simNode) set(to time.Time) { n.skew.Store(int64(time.Until(to))) }

// TestClocksThatJumpChangeNeitherOrderNorNumber: ids, positions and epochs need no sane clock,
// neither while a node runs nor over its restart.
func TestClocksThatJumpChangeNeitherOrderNorNumber(t *testing.T) {
	epoch := time.Unix(60, 0)
	for _, method := range []message.Method{repeat, once, exact} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				n := 0
				ids := map[message.ID]bool{}
				next := func() {
					for _, id := range a.send(answered(do(b, method, n+1)), do(b, method, n+2), do(b, method, n+3)) {
						if ids[id] {
							t.Errorf("id %s was given twice", id)
						}
						ids[id] = true
					}
					n += 3
				}
				w.faults(func(string, string, process.Delivery) memtransport.Fate {
					return memtransport.Fate{Copies: 1, Delay: 10 * time.Millisecond}
				})
				for _, jump := range []func(){
					func() { a.set(time.Now().Add(3 * time.Hour)) }, func() { b.set(epoch) }, func() { a.set(epoch) }, a.restart,
					func() { b.set(time.Now().Add(24 * time.Hour)) }, b.restart, func() { a.set(epoch) }, a.restart,
				} {
					next()
					w.advance(5 * time.Millisecond) // the frame is on its way, or its ack
					jump()
					next()
					w.settled(time.Minute)
				}
				got := b.numbers(method)
				if method == exact {
					got = b.file(exact, a)
				}
				wantList(t, "runs", got, upTo(n))
				for id := range ids {
					want(t, "code of "+id.String(), a.sent(id).Code, message.CodeDone)
				}
			})
		})
	}
}

// TestTTLCountsByTheSendersClockOnly: that of the receiver may say anything.
func TestTTLCountsByTheSendersClockOnly(t *testing.T) {
	for _, at := range []time.Time{time.Unix(60, 0), time.Unix(1<<32, 0)} {
		t.Run(fmt.Sprint(at.Year()), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				b.set(at)
				short := do(b, once, 1, "sleep=8s")
				short.TTL = 10 * time.Second
				waits := do(b, once, 2)
				waits.TTL = 10 * time.Second
				late := do(b, once, 3)
				late.TTL = 5 * time.Second
				ids := a.send(short, waits, late)
				w.settled(time.Minute)
				wantList(t, "runs", b.numbers(once), []int{1, 2})
				want(t, "the one that waited too long", a.sent(ids[2]).State, message.StateExpired)
			})
		})
	}
}

// TestClockThatJumpsHoldsNothingUp: a message from the future is delivered as any other, and
// one that its own clock has overtaken expires without being sent.
func TestClockThatJumpsHoldsNothingUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.up.link.SetLink(false)
		m := do(b, once, 1)
		m.TTL = time.Minute
		a.send(m)
		synctest.Wait()
		a.set(time.Unix(60, 0))
		a.up.link.SetLink(true)
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1})

		a.up.link.SetLink(false)
		m = do(b, once, 2)
		m.TTL = time.Minute
		ids := a.send(m, do(b, once, 3))
		synctest.Wait()
		a.set(time.Now())
		a.up.link.SetLink(true)
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1, 3})
		want(t, "the one that was overtaken", a.sent(ids[0]).State, message.StateExpired)
	})
}
