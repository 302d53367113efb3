package process_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

// clear takes messages off a node's ring.
func (n *simNode) clear(f process.QueueFilter) []process.Cleared {
	n.w.t.Helper()
	got, err := n.up.router.Clear(n.w.t.Context(), f, "the test")
	n.must(err)
	return got
}

func TestClearingTheFirstInFlightLetsTheRestGoOn(t *testing.T) {
	for name, which := range map[string]int{"the first": 0, "one in the middle": 2, "the last": 4} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				w.faults(func(string, string, process.Delivery) memtransport.Fate { return memtransport.Fate{Drop: true} })
				ids := a.send(series(b, once, 1, 5)...)
				synctest.Wait()
				wantList(t, "cleared", a.clear(process.QueueFilter{ID: ids[which]}), []process.Cleared{{To: "b", Method: once, Messages: 1}})
				wantList(t, "cleared again", a.clear(process.QueueFilter{ID: ids[which]}), nil)
				w.faults(nil)
				a.send(do(b, once, 6))
				w.settled(time.Minute)
				var left []int
				for n := 1; n <= 6; n++ {
					if n != which+1 {
						left = append(left, n)
					}
				}
				wantList(t, "runs", b.numbers(once), left)
				want(t, "state", a.sent(ids[which]).State, message.StateRemoved)
				want(t, "given up", len(a.events.of(errorkernel.GivenUp)), 0)
				want(t, "dead letters", len(a.dead()), 1)
			})
		})
	}
}

func TestWhatIsClearedInFlightIsNotTriedAgainAndEndsOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a")
		b := w.add("b")
		a.start()
		m := do(b, once, 1)
		m.Retries = 3
		ids := a.send(m, do(b, once, 2), do(b, repeat, 3))
		w.advance(6 * time.Second)
		wantList(t, "cleared", a.clear(process.QueueFilter{To: "b", Method: once}), []process.Cleared{{To: "b", Method: once, Messages: 2}})
		synctest.Wait()
		w.sniffing()
		w.advance(time.Minute)
		for _, d := range w.sniffing() {
			if s, err := message.ParseSubject(d.Subject); err == nil && s.Method == once {
				t.Errorf("sent after it was removed: %s", d.Subject)
			}
		}
		want(t, "state", a.sent(ids[0]).State, message.StateRemoved)
		want(t, "given up", len(a.events.of(errorkernel.GivenUp)), 0)
		b.start()
		a.send(do(b, once, 4))
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{4})
		wantList(t, "runs", b.numbers(repeat), []int{3})
	})
}

func TestClearTakesWhatFitsAllThatIsSaid(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a"), w.add("b"), w.add("c")
		a.start()
		a.send(do(b, once, 1), do(b, repeat, 2), do(c, once, 3))
		w.advance(10 * time.Second)
		young := a.send(do(b, once, 4))
		for _, none := range []process.QueueFilter{{OlderThan: 11 * time.Second}, {To: "d"}, {Method: exact}, {ID: message.ID{1}}, {ID: young[0], To: "c"}} {
			wantList(t, "cleared", a.clear(none), nil)
		}
		wantList(t, "by age and node", a.clear(process.QueueFilter{OlderThan: 5 * time.Second, To: "b"}),
			[]process.Cleared{{To: "b", Method: once, Messages: 1}, {To: "b", Method: repeat, Messages: 1}})
		wantList(t, "by method", a.clear(process.QueueFilter{Method: once}),
			[]process.Cleared{{To: "b", Method: once, Messages: 1}, {To: "c", Method: once, Messages: 1}})
		want(t, "waiting", a.up.waiting(), "")
	})
}

func TestRestingPublisherBeginsAgainWithTheNextMessageOrWhenWoken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		stream := kvstore.Stream{Peer: "b", Method: once}
		rest := func() error { return a.up.router.Rest(context.Background(), stream) }
		if err := rest(); !errors.Is(err, process.ErrNoProcess) {
			t.Errorf("nothing to stop: %v", err)
		}
		a.send(do(b, once, 1))
		synctest.Wait()
		a.must(rest())
		b.start()
		w.advance(time.Minute)
		wantList(t, "while it rests", b.numbers(once), nil)
		a.send(do(b, once, 2))
		w.settled(time.Minute)
		wantList(t, "after another message", b.numbers(once), []int{1, 2})

		b.stop()
		a.send(do(b, once, 3))
		synctest.Wait()
		a.must(rest())
		b.start()
		a.up.router.Wake(stream)
		w.settled(time.Minute)
		wantList(t, "after it was woken", b.numbers(once), []int{1, 2, 3})
	})
}

func TestPublisherNamesAreTakenApart(t *testing.T) {
	m, to, ok := process.ParsePublisherName(process.PublisherName("REQPing", "ww.central"))
	if m != "REQPing" || to != "ww.central" || !ok {
		t.Errorf("%s, %s, %v", m, to, ok)
	}
	for _, other := range []string{"", "REQPing", "lane REQPing from central", "publisher REQPing to"} {
		if _, _, ok := process.ParsePublisherName(other); ok {
			t.Errorf("%q is taken for a publisher", other)
		}
	}
}
