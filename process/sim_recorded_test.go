package process_test

import (
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
)

// What was recorded is told by the node that gets it also soon after its start, when others send what they had
// written for the one before, too.
func TestRecordedFramesAreToldSoonAfterAStart(t *testing.T) {
	for _, tt := range []struct {
		name   string
		replay func(w *world, a, b *simNode, replay func())
	}{
		{"their sender is away", func(w *world, a, b *simNode, replay func()) {
			a.stop()
			b.restart()
			replay()
		}},
		{"their sender was started anew", func(w *world, a, b *simNode, replay func()) {
			a.restart()
			b.restart()
			a.send(do(b, once, 10))
			replay()
		}},
		{"their sender speaks after them", func(w *world, a, b *simNode, replay func()) {
			b.restart()
			replay()
			a.send(do(b, once, 10))
		}},
		{"their sender has just spoken", func(w *world, a, b *simNode, replay func()) {
			b.restart()
			a.send(do(b, once, 10))
			w.settled(time.Second)
			replay()
		}},
		{"their sender was started anew while the receiver was not", func(w *world, a, b *simNode, replay func()) {
			a.restart()
			a.send(do(b, once, 10))
			w.settled(time.Second)
			w.advance(settling)
			replay()
		}},
		{"a second copy of a message without ACK", func(w *world, a, b *simNode, replay func()) { replay() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signed(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				w.sniffing()
				unacked := do(b, once, 2)
				unacked.ACKTimeout = 0
				a.send(do(b, once, 1), unacked)
				w.settled(time.Second)
				recorded := w.sniffing()
				w.advance(5 * time.Minute)
				runs, sent := len(b.ran(once)), len(w.asked)
				tt.replay(w, a, b, func() {
					for _, d := range recorded {
						if d.from == "a" && isFrame("", "", d.Delivery) {
							w.forge(d.Subject, d.Reply, d.Data)
							synctest.Wait()
						}
					}
				})
				w.advance(2 * time.Minute)
				if len(b.events.of(errorkernel.Unproven)) == 0 {
					t.Error("nothing is reported by the node that got them")
				}
				want(t, "runs", len(b.ran(once)), runs+len(w.asked)-sent)
			})
		})
	}
}

// settling is how long after a start what was written for the one before is usual.
const settling = 10 * time.Second

// The starts of honest nodes, with messages under way and links that fail, are nothing to tell of.
func TestStartsOfHonestNodesAreNotTakenForRecordedFrames(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		for i := range 5 {
			unacked := do(b, once, 100+i)
			unacked.ACKTimeout = 0
			b.stop()
			a.send(append(series(b, once, 10*i+1, 10*i+5), do(b, exact, 10*i+6), unacked)...)
			w.advance(time.Second)
			b.start()
			if i%2 == 0 {
				a.restart()
			}
			w.settled(time.Minute)
			a.restart()
			a.send(do(b, once, 10*i+7), unacked)
			w.settled(time.Minute)
			w.advance(2 * time.Minute)
			a.send(do(b, once, 10*i+8), unacked)
			w.settled(time.Minute)
		}
		w.advance(5 * time.Minute)
		for _, n := range w.nodes {
			for _, e := range n.events.of(errorkernel.Unproven) {
				if e.Process != "router" { // which gets the answers to what its node has sent just before a crash
					t.Errorf("%s reports %v", n.name, e)
				}
			}
		}
	})
}

// Frames that were never in doubt for long stay few in memory, and one line tells of them.
func TestManyRecordedFramesAreFewReports(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.sniffing()
		a.send(series(b, once, 1, 3)...)
		w.settled(time.Second)
		recorded := w.sniffing()
		a.stop()
		b.restart()
		for range 500 {
			for _, d := range recorded {
				if d.from == "a" && isFrame("", "", d.Delivery) {
					w.forge(d.Subject, d.Reply, d.Data)
				}
			}
			synctest.Wait()
		}
		w.advance(2 * time.Minute)
		want(t, "reports", len(b.events.of(errorkernel.Unproven)), 1)
	})
}
