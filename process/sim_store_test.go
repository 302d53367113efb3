package process_test

import (
	"errors"
	"sync"
	"time"

	"steward/kvstore"
	"steward/message"
	"steward/process"
)

// store is what delivery uses of a store.
type store interface {
	process.Outbox
	process.Inbox
}

var (
	errDown = errors.New("the node is dead")
	errDisk = errors.New("no space left on device")
)

// gate is the way to a store. After its node's death it lets nothing through; it can die
// before or after a call, and refuse calls as a full disk does.
type gate struct {
	store
	kill func()

	mu      sync.Mutex // guards what follows
	dead    bool
	calls   int             // that write, so far
	dieAt   int             // the number of the call at which the node dies, 0 for none
	dieLate bool            // after the call was done, and before anybody knows
	full    map[string]bool // calls that fail
	seen    map[string]int  // calls by name, the failed ones too
	onCall  func(op string) // is told of each call that is let through
}

// die lets nothing through any more. It reports whether that is new.
func (g *gate) die() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.dead
	g.dead = true
	return !was
}

func (g *gate) isDead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

// dieAfter makes the node die at a call from now, counted from 1.
func (g *gate) dieAfter(calls int, late bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dieAt, g.dieLate = g.calls+calls, late
}

// fill makes calls fail, or succeed again.
func (g *gate) fill(full bool, ops ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.full == nil {
		g.full = map[string]bool{}
	}
	for _, op := range ops {
		g.full[op] = full
	}
}

func (g *gate) count(op string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen[op]
}

// read lets a call through that changes nothing.
func (g *gate) read(op string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return errDown
	}
	if g.full[op] {
		return errDisk
	}
	return nil
}

// write does a call that changes the store.
func (g *gate) write(op string, call func() error) error {
	g.mu.Lock()
	if g.dead {
		g.mu.Unlock()
		return errDown
	}
	if g.seen == nil {
		g.seen = map[string]int{}
	}
	g.seen[op]++
	if g.full[op] {
		g.mu.Unlock()
		return errDisk
	}
	g.calls++
	dies, late := g.calls == g.dieAt, g.dieLate
	onCall := g.onCall
	g.mu.Unlock()
	if onCall != nil {
		onCall(op)
	}
	if dies && !late {
		g.kill()
		return errDown
	}
	err := call()
	if dies {
		g.kill()
	}
	if g.isDead() {
		return errDown
	}
	return err
}

func (g *gate) Accept(m []message.Message) (ids []message.ID, err error) {
	err = g.write("Accept", func() (err error) { ids, err = g.store.Accept(m); return err })
	return ids, err
}

func (g *gate) Submit(m []message.Message) (ids []message.ID, done <-chan error) {
	result := make(chan error, 1)
	result <- g.write("Submit", func() (err error) {
		ids, done = g.store.Submit(m)
		return <-done
	})
	return ids, result
}

func (g *gate) AcceptOwn(m []message.Message) (ids []message.ID, err error) {
	err = g.write("AcceptOwn", func() (err error) { ids, err = g.store.AcceptOwn(m); return err })
	return ids, err
}

func (g *gate) AcceptNoting(m message.Message, lane kvstore.Stream, arrival uint64, mark kvstore.Mark) (ids []message.ID, err error) {
	err = g.write("AcceptNoting", func() (err error) { ids, err = g.store.AcceptNoting(m, lane, arrival, mark); return err })
	return ids, err
}

func (g *gate) Note(m *message.Message, code message.Code, why string) error {
	return g.write("Note", func() error { return g.store.Note(m, code, why) })
}

func (g *gate) Streams() ([]kvstore.StreamInfo, error) {
	if err := g.read("Streams"); err != nil {
		return nil, err
	}
	return g.store.Streams()
}

func (g *gate) Read(id kvstore.Stream, from uint64, n, size int) (kvstore.StreamInfo, []kvstore.Queued, error) {
	if err := g.read("Read"); err != nil {
		return kvstore.StreamInfo{}, nil, err
	}
	return g.store.Read(id, from, n, size)
}

func (g *gate) Settle(id kvstore.Stream, settled []kvstore.Settled) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- g.write("Settle", func() error { return <-g.store.Settle(id, settled) })
	}()
	return done
}

func (g *gate) Remove(id kvstore.Stream, settled []kvstore.Settled) (ids []message.ID, err error) {
	err = g.write("Remove", func() (err error) { ids, err = g.store.Remove(id, settled); return err })
	return ids, err
}

func (g *gate) Take(a []kvstore.Arrival) (taken []kvstore.Taken, err error) {
	err = g.write("Take", func() (err error) { taken, err = g.store.Take(a); return err })
	return taken, err
}

func (g *gate) Lanes() ([]kvstore.Stream, error) {
	if err := g.read("Lanes"); err != nil {
		return nil, err
	}
	return g.store.Lanes()
}

func (g *gate) ReadLane(id kvstore.Stream, after uint64, n, size int) ([]kvstore.Waiting, error) {
	if err := g.read("ReadLane"); err != nil {
		return nil, err
	}
	return g.store.ReadLane(id, after, n, size)
}

func (g *gate) Begin(id kvstore.Stream, first uint64, mark kvstore.Mark) error {
	return g.write("Begin", func() error { return g.store.Begin(id, first, mark) })
}

func (g *gate) Finish(id kvstore.Stream, mark uint64, finished []kvstore.Finished) error {
	return g.write("Finish", func() error { return g.store.Finish(id, mark, finished) })
}

func (g *gate) Due(m message.Method, now time.Time) (lanes []kvstore.Stream, next time.Time, err error) {
	err = g.write("Due", func() (err error) { lanes, next, err = g.store.Due(m, now); return err })
	return lanes, next, err
}

func (g *gate) Tell(m []message.Message, told [][]byte, lost uint64) (ids []message.ID, err error) {
	err = g.write("Tell", func() (err error) { ids, err = g.store.Tell(m, told, lost); return err })
	return ids, err
}

func (g *gate) Unschedule(id message.ID, fits func(kvstore.Scheduled) bool, why string) (removed []kvstore.Scheduled, err error) {
	err = g.write("Unschedule", func() (err error) { removed, err = g.store.Unschedule(id, fits, why); return err })
	return removed, err
}

func (g *gate) Awaited() ([]message.Node, error) {
	if err := g.read("Awaited"); err != nil {
		return nil, err
	}
	return g.store.Awaited()
}

func (g *gate) AwaitedFrom(peer message.Node, after message.ID, n int) ([]message.ID, error) {
	if err := g.read("AwaitedFrom"); err != nil {
		return nil, err
	}
	return g.store.AwaitedFrom(peer, after, n)
}

func (g *gate) Known(by message.Node, ids []message.ID) ([]kvstore.Fate, error) {
	if err := g.read("Known"); err != nil {
		return nil, err
	}
	return g.store.Known(by, ids)
}

func (g *gate) EndAwaited(peer message.Node, fates []kvstore.Fate) (ended []message.ID, err error) {
	err = g.write("EndAwaited", func() (err error) { ended, err = g.store.EndAwaited(peer, fates); return err })
	return ended, err
}

// heal ends all that was planned.
func (g *gate) heal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dieAt, g.full = 0, nil
}
