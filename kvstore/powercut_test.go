package kvstore_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"steward/kvstore"
	"steward/message"
)

const sector = 512

// event is one thing that happened to the file, or that was answered.
type event struct {
	off   int64 // of a write of data; -1 for none
	data  []byte
	size  int64 // the length of the file before that write
	sync  bool  // all before is on disk
	state int   // after it the callers of so many steps had their answer
}

// disk records what a store does to its file: each write as bbolt makes it, and where bbolt
// syncs: ahead of the write of a meta page, and at the end of the commit. A bbolt that was told
// not to sync does not.
type disk struct {
	mu     sync.Mutex
	path   string
	base   []byte // the file when the recording began
	events []event
}

func record(t testing.TB, s *kvstore.Store, path string) *disk {
	t.Helper()
	d := &disk{path: path}
	s.DB(func(db *bbolt.DB) {
		base, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d.base = base
		page := int64(db.Info().PageSize)
		kvstore.OnWrite(db, func(b []byte, off int64) {
			info, err := os.Stat(path)
			if err != nil {
				t.Error(err)
				return
			}
			if off < 2*page && !db.NoSync {
				d.add(event{off: -1, sync: true})
			}
			d.add(event{off: off, data: append([]byte(nil), b...), size: info.Size()})
		})
	})
	s.SetCommit(func(tx *bbolt.Tx) error {
		db := tx.DB()
		err := tx.Commit()
		if err == nil && !db.NoSync {
			d.add(event{off: -1, sync: true})
		}
		return err
	})
	return d
}

func (d *disk) add(e event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// steps are what the scenario does. Each is one operation, answered before the next one begins.
func powerSteps(t fatal, seed uint64, n int) []func(*kvstore.Store) error {
	rnd := rand.New(rand.NewPCG(seed, 1))
	peer := func() message.Node { return message.Node(fmt.Sprintf("ship%d", 1+rnd.IntN(2))) }
	next := map[message.Node]uint64{"ship1": 1, "ship2": 1} // of the incoming streams
	all := []func() func(*kvstore.Store) error{
		func() func(*kvstore.Store) error { // an array
			p, k, size := peer(), 1+rnd.IntN(20), 1+rnd.IntN(3000)
			return func(s *kvstore.Store) error {
				var m []message.Message
				for i := range k {
					m = append(m, msg(p, strconv.Itoa(i)+strings.Repeat("x", size)))
				}
				_, err := s.Accept(m)
				return err
			}
		},
		func() func(*kvstore.Store) error { // a frame
			p, k, begin := peer(), uint64(1+rnd.IntN(8)), rnd.IntN(2) == 0
			first := next[p]
			next[p] += k
			return func(s *kvstore.Store) error {
				a := arrival(p, 7, first, first, first+k)
				for i := range k {
					a.Items = append(a.Items, incoming(t, first+i, message.Message{Data: []string{strings.Repeat("y", 200)}}))
				}
				if begin {
					a.Begin = &kvstore.Begin{}
				}
				_, err := s.Take([]kvstore.Arrival{a})
				return err
			}
		},
		func() func(*kvstore.Store) error { // a run begins
			p := peer()
			return func(s *kvstore.Store) error {
				w, err := s.ReadLane(stream(p), 0, 1, 1)
				if err != nil || len(w) == 0 {
					return err
				}
				return s.Begin(stream(p), w[0].Arrival, kvstore.Mark{Last: w[0].Arrival, Attempt: 1})
			}
		},
		func() func(*kvstore.Store) error { // runs end, with replies
			p, k := peer(), 1+rnd.IntN(6)
			return func(s *kvstore.Store) error {
				w, err := s.ReadLane(stream(p), 0, k, 1<<20)
				if err != nil || len(w) == 0 {
					return err
				}
				var f []kvstore.Finished
				for _, w := range w {
					reply := msg(p, "done")
					f = append(f, kvstore.Finished{Arrival: w.Arrival, Message: w.Message, Result: message.Result{Code: message.CodeDone, Attempt: 1}, Reply: &reply})
				}
				return s.Finish(stream(p), w[0].Arrival, f)
			}
		},
		func() func(*kvstore.Store) error { // acks, or the end without one
			p, k, code := peer(), 1+rnd.IntN(30), message.CodeDone
			remove := rnd.IntN(3) == 0
			if remove {
				code = message.CodeUnreachable
			}
			return func(s *kvstore.Store) error {
				_, q, err := s.Read(stream(p), 0, k, 1<<20)
				if err != nil {
					return err
				}
				var e []kvstore.Settled
				for _, q := range q {
					e = append(e, kvstore.Settled{Seq: q.Seq, ID: q.ID, Code: code, Attempts: 1, At: time.Now()})
				}
				if remove {
					_, err = s.Remove(stream(p), e)
					return err
				}
				return <-s.Settle(stream(p), e)
			}
		},
	}
	var steps []func(*kvstore.Store) error
	for range n {
		steps = append(steps, all[rnd.IntN(len(all))]())
	}
	return steps
}

// powerRun is a recorded run: the states of the store after each step, and what was written.
type powerRun struct {
	*disk
	states []string // states[i] after i steps
	epoch  uint64
}

func runSteps(t testing.TB, seed uint64, n int, change func(*bbolt.DB)) powerRun {
	t.Helper()
	path := filepath.Join(t.TempDir(), "steward.db")
	s := open(t, options(path))
	accept(t, s, msg("ship1", "the first"))
	s.DB(change)
	r := powerRun{disk: record(t, s, path)}
	info, _, err := s.Read(stream("ship1"), 0, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	r.epoch = info.Epoch
	note := func() {
		state, err := s.Dump()
		if err != nil {
			t.Fatal(err)
		}
		r.states = append(r.states, state)
		r.add(event{off: -1, state: len(r.states) - 1})
	}
	note()
	for _, step := range powerSteps(t, seed, n) {
		if err := step(s); err != nil {
			t.Fatal(err)
		}
		note()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// cuts calls fn with images of the file as a loss of power may leave it after each event: all
// writes since the last sync in full, none of them, some of them in any order, and any sectors of
// some of them. answered is how many steps were answered by then.
func (d *disk) cuts(rnd *rand.Rand, each int, fn func(image []byte, answered int) error) (points int, err error) {
	synced := append([]byte(nil), d.base...)
	var pending []event
	answered := 0
	for _, e := range d.events {
		switch {
		case e.sync:
			for _, p := range pending {
				synced = p.put(synced, nil)
			}
			pending = nil
		case e.off < 0:
			answered = e.state
		default:
			pending = append(pending, e)
		}
		points++
		all := func(event) func() bool { return nil }
		none := func(event) func() bool { return func() bool { return false } }
		half := func(event) func() bool { return func() bool { return rnd.IntN(2) == 0 } }
		choices := []func(event) func() bool{none, all}
		for i := range each {
			some := rnd.IntN(2) == 0
			choices = append(choices, func(e event) func() bool {
				switch {
				case i%3 == 0: // whole writes are there or not
					return map[bool]func(event) func() bool{true: all, false: none}[rnd.IntN(2) == 0](e)
				case i%3 == 1 && len(pending) > 0 && e.off != pending[len(pending)-1].off: // the last is torn
					return map[bool]func(event) func() bool{true: all, false: none}[some](e)
				}
				return half(e)
			})
		}
		if len(pending) == 0 {
			choices = choices[:1]
		}
		for _, choose := range choices {
			image := append([]byte(nil), synced...)
			for _, p := range pending {
				image = p.put(image, choose(p))
			}
			if err := fn(image, answered); err != nil {
				return points, fmt.Errorf("cut %d, with %d writes since the last sync: %w", points, len(pending), err)
			}
		}
	}
	return points, nil
}

// put writes into an image; keep says of each sector whether it gets there, nil for all.
func (e event) put(image []byte, keep func() bool) []byte {
	if grow := e.size - int64(len(image)); grow > 0 {
		image = append(image, make([]byte, grow)...)
	}
	for at := 0; at < len(e.data); at += sector {
		if keep == nil || keep() {
			copy(image[e.off+int64(at):], e.data[at:min(at+sector, len(e.data))])
		}
	}
	return image
}

// survives opens an image and compares it with the states that it may hold: the one that was
// answered, or the next one as a whole.
func (r *powerRun) survives(path string, image []byte, answered int) (err error) {
	if err := os.WriteFile(path, image, 0o600); err != nil {
		return err
	}
	s, err := kvstore.Open(options(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if aside := s.SetAside(); aside != "" {
		return fmt.Errorf("set aside: %s", aside)
	}
	got, err := s.Dump()
	if err != nil {
		return err
	}
	if got != r.states[answered] && (answered+1 == len(r.states) || got != r.states[answered+1]) {
		for i, state := range r.states {
			if got == state {
				return fmt.Errorf("%d steps were answered, and it is as after %d", answered, i)
			}
		}
		return fmt.Errorf("%d steps were answered, and it is as after none", answered)
	}
	before, _, err := s.Read(stream("ship1"), 0, 1, 1)
	if err != nil {
		return err
	}
	if before.Epoch <= r.epoch {
		return fmt.Errorf("epoch %d after %d: sequence numbers are given twice", before.Epoch, r.epoch)
	}
	if _, err := s.Accept(msgs("ship1", 2)); err != nil {
		return err
	}
	after, _, err := s.Read(stream("ship1"), 0, 1, 1)
	if err != nil || after.Next != before.Next+2 {
		return fmt.Errorf("the next sequence number was %d, and is %d: %w", before.Next, after.Next, err)
	}
	return s.Audit()
}

func (r *powerRun) check(t testing.TB, seed uint64, each int) (points, images int, err error) {
	t.Helper()
	path := filepath.Join(memory(t), "steward.db")
	seen := map[string]bool{}
	points, err = r.cuts(rand.New(rand.NewPCG(seed, 2)), each, func(image []byte, answered int) error {
		key := fmt.Sprintf("%x %d", sha256.Sum256(image), answered)
		if seen[key] {
			return nil
		}
		seen[key] = true
		images++
		return r.survives(path, image, answered)
	})
	return points, images, err
}

// memory is a folder of the test; a sync costs nothing there, where there is such a thing.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "steward")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// powerSize is how much is tried: more with STEWARD_POWERCUT=N, in N runs.
func powerSize(t testing.TB) (runs, steps, each int) {
	t.Helper()
	v := os.Getenv("STEWARD_POWERCUT")
	if v == "" {
		return 1, 40, 5
	}
	runs, err := strconv.Atoi(v)
	if err != nil || runs < 1 {
		t.Fatalf("STEWARD_POWERCUT=%q is no number of runs", v)
	}
	return runs, 100, 12
}

func TestPowerCutAtEveryWriteLosesNothingAnswered(t *testing.T) {
	runs, steps, each := powerSize(t)
	for i := range runs {
		seed := uint64(i + 1)
		r := runSteps(t, seed, steps, func(*bbolt.DB) {})
		points, images, err := r.check(t, seed, each)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if points < 3*steps/2 || images < points {
			t.Errorf("seed %d: %d images of %d points are too few", seed, images, points)
		}
		t.Logf("seed %d: %d cut points, %d images", seed, points, images)
	}
}

// A store that answers before the sync must not pass.
func TestPowerCutFindsAStoreThatDoesNotSync(t *testing.T) {
	r := runSteps(t, 1, 10, func(db *bbolt.DB) { db.NoSync = true })
	_, _, err := r.check(t, 1, 4)
	if err == nil || !strings.Contains(err.Error(), "steps were answered") && !strings.Contains(err.Error(), "set aside") {
		t.Errorf("it was not found out: %v", err)
	}
}
