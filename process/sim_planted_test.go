package process_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"steward/kvstore"
)

// early acknowledges frames before they are on disk: now and then the node dies in between.
type early struct {
	store
	l     *life
	s     *storm
	calls atomic.Int32
}

func (e *early) Take(arrivals []kvstore.Arrival) ([]kvstore.Taken, error) {
	if e.s.over.Load() || e.calls.Add(1)%5 != 0 {
		return e.store.Take(arrivals)
	}
	taken := make([]kvstore.Taken, len(arrivals))
	for i, a := range arrivals {
		taken[i].Next = a.End
	}
	time.AfterFunc(time.Millisecond, e.l.kill)
	return taken, nil
}

// baseless forgets that senders give up messages.
type baseless struct{ store }

func (b *baseless) Take(arrivals []kvstore.Arrival) ([]kvstore.Taken, error) {
	arrivals = slices.Clone(arrivals)
	for i := range arrivals {
		arrivals[i].Base = 1
	}
	return b.store.Take(arrivals)
}

// timeless takes all epochs of a stream for one.
type timeless struct{ store }

func (e *timeless) Take(arrivals []kvstore.Arrival) ([]kvstore.Taken, error) {
	arrivals = slices.Clone(arrivals)
	for i := range arrivals {
		arrivals[i].Epoch = 1
	}
	return e.store.Take(arrivals)
}

// forgetful finishes a run without taking it out of the inbox in the same commit.
type forgetful struct {
	store
	calls atomic.Int32
}

func (f *forgetful) Finish(id kvstore.Stream, mark uint64, finished []kvstore.Finished) error {
	if f.calls.Add(1)%5 == 0 {
		return nil
	}
	return f.store.Finish(id, mark, finished)
}

// TestRandomRunsFindPlantedFaults shows that the random runs would find the faults that
// matter most.
func TestRandomRunsFindPlantedFaults(t *testing.T) {
	for name, plant := range map[string]func(*storm, *life, store) store{
		"ack before commit":    func(s *storm, l *life, inner store) store { return &early{store: inner, l: l, s: s} },
		"forgotten base":       func(_ *storm, _ *life, inner store) store { return &baseless{inner} },
		"end not written down": func(_ *storm, _ *life, inner store) store { return &forgetful{store: inner} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 30
			for seed := uint64(1); seed <= most; seed++ {
				var found []string
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
					inWorld(t, func(_ *testing.T, w *world) {
						w.found = &found
						s := newStorm(w, seed, plant)
						s.rage()
						s.calm()
						w.check()
					})
				})
				if len(found) > 0 {
					t.Logf("seed %d: %s", seed, found[0])
					return
				}
			}
			t.Errorf("not found in %d runs", most)
		})
	}
}

func TestNewStoreFindsPositionsWithoutEpoch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.plant = func(_ *life, inner store) store { return &timeless{inner} }
		a.start()
		b.start()
		var found []string
		w.found = &found
		a.send(series(b, once, 1, 5)...)
		w.settled(time.Second)
		a.stop()
		a.wipe()
		a.start()
		a.send(series(b, once, 6, 8)...)
		w.settled(time.Minute)
		if slices.Equal(b.numbers(once), upTo(8)) && len(found) == 0 {
			t.Error("nothing was lost, though the receiver knows no epochs")
		}
	})
}
