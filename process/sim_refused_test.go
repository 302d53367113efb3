package process_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

// forbid has the broker refuse what a node sends to another one, as long as the returned value is set.
func (w *world) forbid(from, to *simNode) *atomic.Bool {
	var forbidden atomic.Bool
	forbidden.Store(true)
	w.faults(func(f, t string, d process.Delivery) memtransport.Fate {
		if !forbidden.Load() || f != string(from.name) || t != string(to.name) || !isFrame(f, t, d) {
			return memtransport.Fate{}
		}
		return memtransport.Fate{Drop: from.up.router.Denied(d.Subject)}
	})
	return &forbidden
}

// What the broker does not let through waits with that as its reason, is reported once, and goes when the
// permissions are mended.
func TestBrokerThatLetsNothingThroughIsTheReason(t *testing.T) {
	const why = "the broker does not let this node send to b"
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		b.start()
		synctest.Wait()
		forbidden := w.forbid(a, b)
		ids := a.send(series(b, once, 1, 5)...)
		reports := func() (n int) {
			for _, ev := range a.events.of(errorkernel.LinkFailed) {
				if strings.Contains(ev.Err.Error(), why) && strings.Contains(ev.Err.Error(), "embeddedBrokerReach") && ev.Method == once {
					n++
				}
			}
			return n
		}
		for attempts := range 4 {
			w.advance(time.Second)
			if o, ok := a.outlook(b, once, ids[0]); !ok || o.Reason != why || !o.Denied || !o.Linked || o.Attempts != attempts || o.Next.IsZero() {
				t.Errorf("after %d attempts: %+v, %t", attempts, o, ok)
			}
			want(t, "reports", reports(), 1)
			w.advance(4 * time.Second)
		}
		late := do(b, once, 6)
		late.TTL = 3 * time.Second
		expired := a.send(late)[0]
		w.advance(8 * time.Second)
		if l := a.sent(expired); l.Code != message.CodeExpired || !strings.HasSuffix(l.Text, why) {
			t.Errorf("what was not sent in time: %+v", l)
		}
		forbidden.Store(false)
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1, 2, 3, 4, 5})
		if o, ok := a.outlook(b, once, message.ID{}); !ok || o.Reason != "" || o.Denied {
			t.Errorf("when all was delivered: %+v, %t", o, ok)
		}
		// It is told anew when it begins anew.
		forbidden.Store(true)
		a.send(do(b, once, 7))
		w.advance(time.Second)
		want(t, "reports", reports(), 2)
		forbidden.Store(false)
		w.settled(time.Minute)
	})
}

// A node to which nothing may be sent is not told apart for ever from one that is silent.
func TestReasonEndsWhenTheBrokerLetsThroughWhatNobodyAnswers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		b.start()
		synctest.Wait()
		w.forbid(a, b)
		id := a.send(do(b, once, 1))[0]
		w.advance(time.Second)
		if o, ok := a.outlook(b, once, id); !ok || !o.Denied {
			t.Errorf("at first: %+v, %t", o, ok)
		}
		w.faults(nil)
		w.net.Cut("a", "b", true)
		w.advance(10 * time.Second)
		if o, ok := a.outlook(b, once, id); !ok || o.Denied || o.Reason != "" {
			t.Errorf("later: %+v, %t", o, ok)
		}
		w.net.Cut("a", "b", false)
		w.settled(time.Minute)
	})
}

// What is no stream with a publisher is for others to tell.
func TestOnlyWhatIsUnderWayIsDenied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		b.start()
		synctest.Wait()
		forbidden := w.forbid(a, b)
		a.send(do(b, once, 1))
		w.advance(time.Second)
		for subject, known := range map[string]bool{
			message.Subject{Node: b.name, Method: once, Kind: message.CommandACK}.String():   true,
			message.Subject{Node: b.name, Method: once, Kind: message.EventNACK}.String():    false,
			message.Subject{Node: b.name, Method: repeat, Kind: message.CommandACK}.String(): false,
			string(b.name) + ".HERE": false, string(b.name) + ".ACK.x": false, "": false, ">": false,
		} {
			if got := a.up.router.Denied(subject); got != known {
				t.Errorf("%q: %t", subject, got)
			}
		}
		forbidden.Store(false)
		w.settled(time.Minute)
	})
}
