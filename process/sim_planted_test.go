package process_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
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

// stranger does not know messages again by their ids.
type stranger struct {
	store
	l *life
}

func (s *stranger) Take(arrivals []kvstore.Arrival) ([]kvstore.Taken, error) {
	arrivals = slices.Clone(arrivals)
	for i := range arrivals {
		items := slices.Clone(arrivals[i].Items)
		for j := range items {
			if _, err := s.l.kv.Received(items[j].ID); err == nil {
				items[j].ID = message.NewID(time.Now(), rand.Uint32(), rand.Uint64())
			}
		}
		arrivals[i].Items = items
	}
	return s.store.Take(arrivals)
}

// hasty goes on before it is on disk that messages were given up: now and then that does not
// come to its end.
type hasty struct {
	store
	s     *storm
	calls atomic.Int32
}

func (h *hasty) Settle(id kvstore.Stream, settled []kvstore.Settled) <-chan error {
	gaveUp := func(e kvstore.Settled) bool { return e.Code != message.CodeDone }
	if h.s.over.Load() || !slices.ContainsFunc(settled, gaveUp) || h.calls.Add(1)%2 != 0 {
		return h.store.Settle(id, settled)
	}
	done := make(chan error, 1)
	done <- nil
	return done
}

// swapping runs the second of what waits before the first.
type swapping struct{ store }

func (s *swapping) ReadLane(id kvstore.Stream, after uint64, n, size int) ([]kvstore.Waiting, error) {
	w, err := s.store.ReadLane(id, after, n, size)
	if len(w) > 1 && w[0].Mark == nil && id.Method == repeat {
		w[0], w[1] = w[1], w[0]
	}
	return w, err
}

// silent gives replies up without a word.
type silent struct{ store }

func (s *silent) Settle(id kvstore.Stream, settled []kvstore.Settled) <-chan error {
	if id.Method == answer {
		settled = slices.Clone(settled)
		for i := range settled {
			settled[i].Code = message.CodeDone
		}
	}
	return s.store.Settle(id, settled)
}

// mute finishes runs without their replies, now and then.
type mute struct {
	store
	calls atomic.Int32
}

func (m *mute) Finish(id kvstore.Stream, mark uint64, finished []kvstore.Finished) error {
	if m.calls.Add(1)%5 == 0 {
		finished = slices.Clone(finished)
		for i := range finished {
			finished[i].Reply = nil
		}
	}
	return m.store.Finish(id, mark, finished)
}

// unmarked forgets that a run has begun.
type unmarked struct{ store }

func (u *unmarked) ReadLane(id kvstore.Stream, after uint64, n, size int) ([]kvstore.Waiting, error) {
	w, err := u.store.ReadLane(id, after, n, size)
	for i := range w {
		w[i].Mark = nil
	}
	return w, err
}

// generous takes messages that it could not store for taken.
type generous struct{ store }

func (g *generous) Take(arrivals []kvstore.Arrival) ([]kvstore.Taken, error) {
	taken, err := g.store.Take(arrivals)
	for i := range taken {
		if taken[i].Busy {
			taken[i].Busy, taken[i].Next = false, arrivals[i].End
		}
	}
	return taken, err
}

// polite says that it knows all that it is asked about.
type polite struct{ store }

func (p *polite) Known(message.Node, []message.ID) ([]kvstore.Fate, error) { return nil, nil }

// absent says that it knows nothing.
type absent struct{ store }

func (a *absent) Known(_ message.Node, ids []message.ID) ([]kvstore.Fate, error) {
	fates := make([]kvstore.Fate, len(ids))
	for i := range ids {
		fates[i].ID = ids[i]
	}
	return fates, nil
}

// TestRandomRunsFindPlantedFaults shows that the random runs would find the faults that
// matter most.
func TestRandomRunsFindPlantedFaults(t *testing.T) {
	for name, plant := range map[string]func(*storm, *life, store) store{
		"ack before commit":         func(s *storm, l *life, inner store) store { return &early{store: inner, l: l, s: s} },
		"forgotten base":            func(_ *storm, _ *life, inner store) store { return &baseless{inner} },
		"end not written down":      func(_ *storm, _ *life, inner store) store { return &forgetful{store: inner} },
		"position without epoch":    func(_ *storm, _ *life, inner store) store { return &timeless{inner} },
		"ids forgotten":             func(_ *storm, l *life, inner store) store { return &stranger{inner, l} },
		"give-up not written down":  func(s *storm, _ *life, inner store) store { return &hasty{store: inner, s: s} },
		"lane out of order":         func(_ *storm, _ *life, inner store) store { return &swapping{inner} },
		"reply given up in silence": func(_ *storm, _ *life, inner store) store { return &silent{inner} },
		"end without its reply":     func(_ *storm, _ *life, inner store) store { return &mute{store: inner} },
		"mark forgotten":            func(_ *storm, _ *life, inner store) store { return &unmarked{inner} },
		"lost requests not denied":  func(_ *storm, _ *life, inner store) store { return &polite{inner} },
		"known requests denied":     func(_ *storm, _ *life, inner store) store { return &absent{inner} },
		"full lane acknowledged":    func(_ *storm, _ *life, inner store) store { return &generous{inner} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 100
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
