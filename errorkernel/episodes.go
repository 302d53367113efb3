package errorkernel

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"steward/message"
)

const (
	maxEpisodes  = 1024 // different failures remembered at a time
	maxVarieties = 16   // different failures told apart for one class and process
)

// episode is one failure that may repeat. It is open for a window after it was last told
// about.
type episode struct {
	key, kind uint64
	ends      time.Time

	// The repetitions since it was last told about: how many, the latest, and the
	// messages they were about.
	count  int
	event  Event
	cause  string
	action Action
	ids    []message.ID
}

// episodes finds repetitions of the same failure. The zero value is not usable. It is
// guarded by the mutex of its kernel.
//
// Its size is bounded in two ways: a process that fails in ever new words (an outsider may
// choose them) has maxVarieties episodes, after that all its failures of that class are
// one; and there are maxEpisodes in all.
type episodes struct {
	window time.Duration
	seed   maphash.Seed
	open   map[uint64]*episode
	order  []*episode     // all in open, the one that ends first in front
	kinds  map[uint64]int // how many in open for each class and process
}

func newEpisodes(window time.Duration) episodes {
	return episodes{
		window: window,
		seed:   maphash.MakeSeed(),
		open:   make(map[uint64]*episode),
		kinds:  make(map[uint64]int),
	}
}

// verdict says what an event is among those before it.
type verdict uint8

const (
	first    verdict = iota + 1 // not seen in this window
	repeated                    // counted, and summed up at the end of the window
	tooMany                     // cannot be remembered
)

// take files ev, and returns how often it repeated in its window, with a first counted
// as 1.
func (e *episodes) take(ev Event, cause string, action Action, now time.Time) (verdict, int) {
	kind := e.hash(byte(ev.Class), ev.Process)
	key := e.hash(byte(ev.Class), ev.Process, ev.Subject, string(ev.Method), string(ev.From), cause)
	ep := e.open[key]
	if ep == nil && e.kinds[kind] >= maxVarieties {
		key = kind
		ep = e.open[key]
	}
	if ep != nil {
		ep.count++
		ep.event, ep.cause, ep.action = ev, cause, action
		ep.event.Stack = ""
		if !ev.ID.IsZero() && len(ep.ids) < maxIDs {
			ep.ids = append(ep.ids, ev.ID)
		}
		return repeated, ep.count
	}
	if len(e.open) >= maxEpisodes {
		return tooMany, 1
	}
	ep = &episode{key: key, kind: kind, ends: now.Add(e.window)}
	e.open[key] = ep
	e.order = append(e.order, ep)
	e.kinds[kind]++
	return first, 1
}

// due returns the sum of each episode whose window is over and that had repetitions. Such
// an episode stays open for another window, so that a failure that goes on is told about
// once in a window; one without repetitions is forgotten.
func (e *episodes) due(now time.Time) []episode {
	var sums []episode
	for len(e.order) > 0 && !e.order[0].ends.After(now) {
		ep := e.order[0]
		e.order[0] = nil
		e.order = e.order[1:]
		if ep.count == 0 {
			delete(e.open, ep.key)
			if e.kinds[ep.kind]--; e.kinds[ep.kind] == 0 {
				delete(e.kinds, ep.kind)
			}
			continue
		}
		sums = append(sums, *ep)
		*ep = episode{key: ep.key, kind: ep.kind, ends: now.Add(e.window)}
		e.order = append(e.order, ep)
	}
	return sums
}

// rest returns the sums of all open episodes at once, and forgets all of them.
func (e *episodes) rest() []episode {
	var sums []episode
	for _, ep := range e.order {
		if ep.count > 0 {
			sums = append(sums, *ep)
		}
	}
	*e = newEpisodes(e.window)
	return sums
}

// next returns when the next window ends, if one is open.
func (e *episodes) next() (time.Time, bool) {
	if len(e.order) == 0 {
		return time.Time{}, false
	}
	return e.order[0].ends, true
}

func (e *episodes) hash(class byte, parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	_ = h.WriteByte(class)
	var size [8]byte
	for _, p := range parts {
		binary.LittleEndian.PutUint64(size[:], uint64(len(p)))
		_, _ = h.Write(size[:])
		_, _ = h.WriteString(p)
	}
	return h.Sum64()
}
