package process_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steward/kvstore"
	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

var (
	simSeeds = flag.Int("sim.seeds", seedsAnyway, "how many random runs")
	simFirst = flag.Uint64("sim.first", 1, "the seed of the first one")
	simTally = flag.Bool("sim.tally", false, "print what the random runs did")
)

// tally counts what the random runs did.
var tally struct {
	messages, accepted, runs, crashes, losses, frames, lost, doubled, late, harms, skews, removed, ended atomic.Int64
}

// TestDeliveryUnderFaults plays random runs with all that can go wrong, and then looks
// whether what is promised was kept.
func TestDeliveryUnderFaults(t *testing.T) {
	start := time.Now()
	t.Run("run", func(t *testing.T) {
		for i := range uint64(*simSeeds) {
			seed := *simFirst + i
			run := func(name string, signs []string) {
				t.Run(fmt.Sprintf("%s=%d", name, seed), func(t *testing.T) {
					t.Parallel()
					defer func() {
						if t.Failed() {
							t.Logf("again: make simulate SEEDS=1 FIRST=%d", seed)
						}
					}()
					inWorld(t, func(_ *testing.T, w *world) {
						s := newStorm(w, seed, nil, signs...)
						s.rage()
						s.calm()
						w.check()
						tally.runs.Add(int64(len(w.runs)))
					})
				})
			}
			run("seed", nil)
			run("signed", [][]string{{"require"}, {"require"}, {"sign", "require"}, {"off", "sign"}}[seed%4])
		}
	})
	if *simTally {
		fmt.Printf("%d seeds in %v: %d messages handed in, %d accepted, %d runs of methods, %d ends seen; %d crashes, %d stores lost or set back, "+
			"%d frames and acks of which %d were lost, %d doubled, %d late; %d other faults, %d of them clocks; %d messages removed\n",
			*simSeeds, time.Since(start).Round(time.Second), tally.messages.Load(), tally.accepted.Load(), tally.runs.Load(), tally.ended.Load(),
			tally.crashes.Load(), tally.losses.Load(), tally.frames.Load(), tally.lost.Load(), tally.doubled.Load(), tally.late.Load(),
			tally.harms.Load(), tally.skews.Load(), tally.removed.Load())
	}
}

// storm is one random run. Its decisions depend on the seed alone; the order in which
// goroutines get to run does not.
type storm struct {
	w       *world
	rng     *rand.Rand
	numbers map[string]int // of the latest message of a stream
	backups map[*simNode][]byte
	losing  bool // stores get lost in this run
	over    atomic.Bool

	mu   sync.Mutex // guards what follows
	wire *rand.Rand
	// Chances in percent that a frame or ack is lost, doubled, or late.
	lost, doubled, late int
}

var stormMethods = []message.Method{repeat, once, exact, manyOnce, resumes}

// newStorm makes the nodes of a run. plant, if there is one, puts a fault into each; signs are their
// signatures, in turn.
func newStorm(w *world, seed uint64, plant func(*storm, *life, store) store, signs ...string) *storm {
	s := &storm{w: w, rng: rand.New(rand.NewPCG(seed, 1)), wire: rand.New(rand.NewPCG(seed, 2)), numbers: map[string]int{}, backups: map[*simNode][]byte{}}
	s.losing = s.chance(40)
	w.step = 200 * time.Millisecond
	for i := range 2 + s.rng.IntN(3) {
		n := w.add(message.Node(fmt.Sprintf("n%d", i)))
		if len(signs) > 0 {
			n.signs = signs[i%len(signs)]
		}
		n.laneMessages = s.oneOf(0, 1, 3, 20)
		n.window = int(s.oneOf(0, 1, 2, 8, 64))
		n.parallel = int(s.oneOf(0, 1, 3))
		n.idle = time.Duration(s.oneOf(0, 2, 5)) * time.Second
		n.askEvery = time.Duration(s.oneOf(2, 20, 60)) * time.Second
		n.offline = s.chance(10)
		n.ringMessages = s.oneOf(0, 0, 20)
		n.quota = process.QuotaOptions{Messages: s.oneOf(0, 0, 0, 5, 50), Bytes: s.oneOf(0, 0, 0, 2000)}
		if s.chance(20) {
			n.denied = []message.Method{append(stormMethods, answer)[s.rng.IntN(len(stormMethods)+1)]}
		}
		if plant != nil {
			n.plant = func(l *life, inner store) store { return plant(s, l, inner) }
		}
		n.start()
	}
	w.faults(s.fate)
	return s
}

func (s *storm) oneOf(of ...int64) int64 { return of[s.rng.IntN(len(of))] }
func (s *storm) chance(percent int) bool { return s.rng.IntN(100) < percent }
func (s *storm) upTo(d time.Duration) time.Duration {
	return time.Duration(s.rng.Int64N(int64(d) + 1)).Truncate(time.Millisecond)
}
func (s *storm) node() *simNode { return s.w.nodes[s.rng.IntN(len(s.w.nodes))] }

// fate decides about one frame or ack.
func (s *storm) fate(string, string, process.Delivery) memtransport.Fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := memtransport.Fate{Drop: s.wire.IntN(100) < s.lost}
	if s.wire.IntN(100) < s.doubled {
		f.Copies = 1
	}
	if s.wire.IntN(100) < s.late {
		f.Delay = time.Duration(s.wire.Int64N(int64(8 * time.Second)))
		tally.late.Add(1)
	} else {
		f.Delay = time.Duration(s.wire.Int64N(int64(50 * time.Millisecond)))
	}
	tally.frames.Add(1)
	if f.Drop {
		tally.lost.Add(1)
	}
	tally.doubled.Add(int64(f.Copies))
	return f
}

func (s *storm) weather(lost, doubled, late int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost, s.doubled, s.late = lost, doubled, late
}

// rage does things at random.
func (s *storm) rage() {
	for range 20 + s.rng.IntN(30) {
		if s.chance(60) {
			s.send()
		} else {
			s.harm()
		}
		if s.chance(70) {
			s.w.advance(s.upTo(3 * time.Second))
		}
		s.bury()
	}
}

// bury clears away the nodes that were killed at a commit.
func (s *storm) bury() {
	synctest.Wait()
	for _, n := range s.w.nodes {
		if n.up != nil && !n.up.alive() {
			tally.crashes.Add(1)
			n.bury()
		}
	}
}

func (s *storm) harm() {
	n, other := s.node(), s.node()
	if n.up == nil {
		if s.losing {
			s.loseStore(n)
		}
		n.offline = s.chance(10)
		n.start()
		return
	}
	tally.harms.Add(1)
	switch s.rng.IntN(10) {
	case 0:
		tally.crashes.Add(1)
		n.crash()
	case 1, 2:
		n.up.gate.dieAfter(1+s.rng.IntN(12), s.chance(50))
	case 3:
		n.stop()
	case 4:
		n.up.link.SetLink(s.chance(50))
	case 5:
		s.w.net.Cut(string(n.name), string(other.name), s.chance(60))
	case 6:
		s.weather(int(s.oneOf(0, 0, 10, 50)), int(s.oneOf(0, 10, 50)), int(s.oneOf(0, 10, 50)))
	case 7:
		ops := []string{"Take", "Begin", "Finish", "Settle", "AcceptOwn", "Read", "ReadLane"}
		n.up.gate.fill(s.chance(50), ops[s.rng.IntN(len(ops))])
	case 8:
		tally.skews.Add(1)
		sane := time.Now()
		jump := s.oneOf(0, int64(3*time.Hour), -int64(2*time.Hour), int64(time.Unix(60, 0).Sub(sane)))
		n.skew.Store(jump)
	case 9:
		s.clear(n, other)
	}
}

// loseStore takes a backup of the store of a node that is down, puts one back, or loses it.
func (s *storm) loseStore(n *simNode) {
	switch old := s.backups[n]; {
	case s.chance(50):
		s.backups[n] = n.backup()
	case old != nil && s.chance(60):
		n.restore(old)
		tally.losses.Add(1)
	case s.chance(30):
		n.wipe()
		tally.losses.Add(1)
	}
}

// clear is an operator who removes messages, and replies. That they were given up is said
// all the same.
func (s *storm) clear(n, to *simNode) {
	method := append(stormMethods, answer)[s.rng.IntN(len(stormMethods)+1)]
	f := process.QueueFilter{To: to.name, Method: method, OlderThan: time.Duration(s.oneOf(0, 0, int64(2*time.Second)))}
	n.cleared = true
	gone, err := n.up.router.Clear(context.Background(), f, "the test")
	for _, c := range gone {
		tally.removed.Add(int64(c.Messages))
	}
	if err != nil && n.up.alive() && !errors.Is(err, errDisk) {
		s.w.fault("%s: clear: %v", n.name, err)
	}
}

// send hands in a few messages.
func (s *storm) send() {
	from := s.node()
	if from.up == nil || !from.up.alive() {
		return
	}
	to, method := s.node(), stormMethods[s.rng.IntN(len(stormMethods))]
	stream := fmt.Sprint(from.name, to.name, method)
	var msgs []message.Message
	for range 1 + s.rng.IntN(8) {
		s.numbers[stream]++
		msgs = append(msgs, s.message(to, method, s.numbers[stream]))
	}
	ids, err := from.try(msgs...)
	tally.messages.Add(int64(len(msgs)))
	tally.accepted.Add(int64(len(ids)))
	if err != nil && from.up.alive() && !errors.Is(err, kvstore.ErrFull) {
		s.w.fault("%s does not accept: %v", from.name, err)
	}
}

func (s *storm) message(to *simNode, method message.Method, n int) message.Message {
	m := do(to, method, n)
	m.ACKTimeout = time.Second + s.upTo(4*time.Second)
	m.RetryWait = time.Duration(s.oneOf(0, 0, 1, 3)) * time.Second
	m.Retries = int(s.oneOf(0, 0, 0, 1, 3))
	m.MethodTimeout = 3 * time.Second
	m.MethodRetries = int(s.oneOf(0, 0, 2))
	if s.chance(20) {
		m.TTL = time.Second + s.upTo(20*time.Second)
	}
	what := []string{"", "", "", "", "sleep=" + s.upTo(2*time.Second).String(), "fail", "failures=1", "hang", "later=1", "panic", "parts=2"}[s.rng.IntN(11)]
	if what != "" && (what != "parts=2" || method != exact) {
		m.Data = append(m.Data, what)
	}
	if method == resumes {
		m.Data = append(m.Data, "steps=2")
		if s.chance(30) {
			every := time.Second + s.upTo(5*time.Second)
			m.Schedule = &message.Schedule{Every: every, For: every + s.upTo(15*time.Second)}
			s.w.schedules = true
		}
	}
	if s.chance(50) {
		m = answered(m)
		m.ReplyACKTimeout = time.Second + s.upTo(4*time.Second)
		m.ReplyRetries = int(s.oneOf(0, 0, 1, 2))
		if s.chance(5) {
			m.ReplyACKTimeout = 0
		}
	}
	if s.chance(5) && method != exact {
		m.Data = nil // the receiver refuses it
	}
	return m
}

// calm ends all faults and waits until everything has settled.
func (s *storm) calm() {
	s.weather(0, 0, 0)
	s.over.Store(true)
	s.bury()
	for i, n := range s.w.nodes {
		if n.up != nil && s.chance(50) {
			n.crash()
		}
		if n.offline = false; n.up == nil {
			n.start()
		}
		n.up.link.SetLink(true)
		n.up.gate.heal()
		for _, other := range s.w.nodes[:i] {
			s.w.net.Cut(string(n.name), string(other.name), false)
		}
	}
	const patience = 10 * time.Minute
	s.w.settled(patience)
	s.w.ends = s.w.known()
	for _, n := range s.w.nodes {
		if s.chance(30) {
			n.restart()
		}
	}
	s.w.advance(10 * time.Second) // what was late is here, and changes nothing
	s.w.settled(patience)
	tally.ended.Add(int64(len(s.w.ends)))
}
