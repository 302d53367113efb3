package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/transport/loopback"
	"steward/process/transport/memtransport"
	"steward/security"
)

// world is a network of nodes in fake time. Each node has a real store and real processes;
// only the wire, the methods and the moments of failure are the test's.
type world struct {
	t     *testing.T
	dir   string
	net   *memtransport.Network
	codec *wire.Codec
	log   *slog.Logger
	nodes []*simNode
	trust trust
	signs string // signatures of nodes that are added: off, sign or require

	mu    sync.Mutex // guards what follows
	fate  func(from, to string, d process.Delivery) memtransport.Fate
	wire  []sniffed // every frame and ack that was sent, while sniffing
	sniff bool
	runs  []run
	tries map[message.ID]int // of calls that are to be tried later
	lives int

	// Owned by the test's goroutine.
	step      time.Duration                // between two looks at the world
	found     *[]string                    // where faults go instead of failing the test, when they are planted
	schedules bool                         // there are messages that are run again
	asked     []asked                      // what was handed in, in order
	lost      []loss                       // of disks
	ends      map[message.ID]message.State // seen when all was quiet for the first time
}

// sniffed is what went over the wire from one node to another.
type sniffed struct {
	from, to string
	at       time.Time
	process.Delivery
}

// inWorld runs a test in fake time with a network that is taken down at its end.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir)
		defer w.close()
		test(t, w)
	})
}

// memoryDir is a folder in memory where there is one: a crash is played by what the store
// was told before it, so nothing here is proved by waiting for a real disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "steward-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newWorld(t *testing.T, dir string) *world {
	w := &world{t: t, dir: dir, signs: "off", codec: wire.NewCodec(), tries: map[message.ID]int{}, step: 10 * time.Millisecond, log: slog.New(slog.DiscardHandler)}
	w.net = memtransport.New(memtransport.Options{MaxPayload: 1 << 20, Fault: func(from, to string, d process.Delivery) memtransport.Fate {
		w.mu.Lock()
		fate := w.fate
		if w.sniff {
			d.Data = bytes.Clone(d.Data)
			w.wire = append(w.wire, sniffed{from, to, time.Now(), d})
		}
		w.mu.Unlock()
		if fate == nil {
			return memtransport.Fate{}
		}
		return fate(from, to, d)
	}})
	return w
}

func (w *world) close() {
	for _, n := range w.nodes {
		if n.up != nil {
			n.stop()
		}
	}
	if err := w.net.Close(context.Background()); err != nil {
		w.t.Error(err)
	}
}

// faults sets what happens to frames from now on, nil for nothing.
func (w *world) faults(f func(from, to string, d process.Delivery) memtransport.Fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fate = f
}

// lose loses the first n deliveries that match.
func (w *world) lose(n int, match func(from, to string, d process.Delivery) bool) {
	var mu sync.Mutex
	w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
		mu.Lock()
		defer mu.Unlock()
		if n > 0 && match(from, to, d) {
			n--
			return memtransport.Fate{Drop: true}
		}
		return memtransport.Fate{}
	})
}

func isAck(_, _ string, d process.Delivery) bool { return strings.Contains(d.Subject, ".ACK.") }
func isFrame(_, _ string, d process.Delivery) bool {
	_, err := message.ParseSubject(d.Subject)
	return err == nil
}

// forge sends a frame from a stranger on the network.
func (w *world) forge(subject, reply string, data []byte) {
	w.t.Helper()
	if err := w.net.Node("stranger").Publish(subject, reply, data); err != nil {
		w.t.Error(err)
	}
}

// noise is what cannot be compressed.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// sniffing returns what was sent since it was last called, and keeps what follows.
func (w *world) sniffing() []sniffed {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.wire
	w.wire, w.sniff = nil, true
	return all
}

// advance lets fake time pass.
func (w *world) advance(d time.Duration) { <-time.After(d) }

// until lets fake time pass until cond holds, at most d.
func (w *world) until(d time.Duration, what string, cond func() bool) {
	w.t.Helper()
	for end := time.Now().Add(d); ; w.advance(w.step) {
		synctest.Wait()
		if cond() {
			return
		}
		if !time.Now().Before(end) {
			if w.found == nil {
				w.t.Fatalf("after %v still not: %s\n%s", d, what, w.state())
			}
			w.fault("after %v still not: %s", d, what)
			return
		}
	}
}

// settled lets fake time pass until nothing waits anywhere and all requests have ended, at most d.
func (w *world) settled(d time.Duration) {
	w.t.Helper()
	w.until(d, "all rings and inboxes empty, and all requests ended", func() bool {
		for _, n := range w.nodes {
			if n.up == nil || n.up.waiting() != "" {
				return false
			}
		}
		return true
	})
}

// fault fails the test, or notes what was found when it is looked for.
func (w *world) fault(format string, args ...any) {
	w.t.Helper()
	if w.found == nil {
		w.t.Errorf(format, args...)
		return
	}
	*w.found = append(*w.found, fmt.Sprintf(format, args...))
}

// state describes what waits where, for the text of a failure.
func (w *world) state() string {
	var b strings.Builder
	for _, n := range w.nodes {
		if n.up == nil {
			fmt.Fprintf(&b, "%s is down\n", n.name)
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", n.name, n.up.waiting())
		events := n.events.reported()
		for _, ev := range events[max(0, len(events)-5):] {
			fmt.Fprintf(&b, "  event %v %s: %v\n", ev.Class, ev.Process, ev.Err)
		}
	}
	return b.String()
}

// simNode is one node; it keeps its disk while it is down.
type simNode struct {
	w       *world
	name    message.Node
	path    string
	disk    disk
	events  journal
	up      *life        // nil while it is down
	skew    atomic.Int64 // what its clock on the wall is wrong by
	cleared bool         // an operator has removed messages

	// What the next start uses.
	offline      bool // without a link
	laneMessages int64
	ringMessages int64
	window       int
	idle         time.Duration
	askEvery     time.Duration
	parallel     int
	without      message.Method // has no subscriber
	silent       bool           // does not answer what others ask about their requests
	signs        string         // as world.signs
	key          *security.Key
	allowed      func(message.Node) bool
	denied       []message.Method         // to all; may be changed while nothing happens
	quota        process.QuotaOptions     // of each other node
	plant        func(*life, store) store // puts a fault between processes and store
}

// add makes a node that is down.
func (w *world) add(name message.Node) *simNode {
	n := &simNode{w: w, name: name, signs: w.signs, key: w.newKey(), path: filepath.Join(w.dir, string(name)+".db"), allowed: func(message.Node) bool { return true }}
	n.disk.files = map[string][]entry{}
	w.trust.add(name, n.key)
	w.nodes = append(w.nodes, n)
	return n
}

// pair makes the nodes a and b and starts them.
func (w *world) pair() (a, b *simNode) {
	a, b = w.add("a"), w.add("b")
	a.start()
	b.start()
	synctest.Wait() // a word of presence that comes later would have something sent twice
	return a, b
}

// life is a node from its start to its end.
type life struct {
	n        *simNode
	number   int
	link     *memtransport.Node
	loop     *loopback.Transport
	kv       *kvstore.Store
	gate     *gate
	router   *process.Router
	proves   *process.Signatures
	quota    *process.Quota
	progress process.Progress
	root     *process.Supervisor
	cancel   context.CancelFunc
	over     chan error
	killed   chan struct{}
}

func (n *simNode) must(err error) {
	n.w.t.Helper()
	if err != nil {
		n.w.t.Fatalf("%s: %v", n.name, err)
	}
}

// start starts the node and returns when it takes messages.
func (n *simNode) start() {
	n.w.t.Helper()
	if n.up != nil {
		n.w.t.Fatalf("%s is up already", n.name)
	}
	n.w.lives++
	l := &life{n: n, number: n.w.lives, over: make(chan error, 1), killed: make(chan struct{})}
	ring := n.ringMessages
	if ring == 0 {
		ring = 10_000
	}
	var err error
	l.kv, err = kvstore.Open(kvstore.Options{Path: n.path, Self: n.name, MaxMessages: ring, MaxBytes: 64 << 20, LaneMessages: n.laneMessages, Now: n.now})
	n.must(err)
	var inner store = l.kv
	if n.plant != nil {
		inner = n.plant(l, inner)
	}
	l.gate = &gate{store: inner, kill: l.kill}
	l.link = n.w.net.Node(string(n.name))
	l.link.SetLink(!n.offline)
	l.loop, err = loopback.New(loopback.Options{Inner: l.link, Mine: func(subject string) bool {
		if s, err := message.ParseSubject(subject); err == nil {
			return s.Node == n.name
		}
		return process.IsAckSubject(n.name, subject)
	}})
	n.must(err)
	l.build()
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	n.up = l
	go func() { l.over <- l.root.Serve(ctx) }()
	select {
	case <-l.root.Ready():
	case <-l.killed:
	}
}

// build makes the tree of processes, as the node builder does.
func (l *life) build() {
	n := l.n
	supervisor := func(name string, children ...process.Child) *process.Supervisor {
		s, err := process.NewSupervisor(process.SupervisorOptions{Name: name, Children: children, Report: &n.events, Log: n.w.log})
		n.must(err)
		return s
	}
	publishers, lanes := supervisor("publishers"), supervisor("lanes")
	var err error
	if n.signs != "off" {
		l.proves, err = process.NewSignatures(process.SignaturesOptions{Self: n.name, Key: n.key,
			Trusted: security.NewKeyring(n.name, n.key.Public(), &n.w.trust), Require: n.signs == "require", Report: &n.events})
		n.must(err)
	}
	limits := n.quota
	limits.Report = &n.events
	l.quota, err = process.NewQuota(limits)
	n.must(err)
	log := n.w.log.With("node", n.name, "life", l.number)
	l.router, err = process.NewRouter(process.RouterOptions{
		Self: n.name, Store: l.gate, Transport: l.loop, Codec: n.w.codec, Signatures: l.proves, Publishers: publishers,
		Kind:   func(message.Method) message.Kind { return message.CommandACK },
		Report: &n.events, Progress: &l.progress, Log: log,
		WindowMessages: n.window, Idle: n.idle, AskEvery: n.askEvery, Now: n.now,
	})
	n.must(err)
	env := &process.Env{Self: n.name, Central: "central", Stdout: io.Discard, Stderr: io.Discard}
	var subscribers []process.Child
	for _, spec := range l.methods() {
		if spec.Name == n.without {
			continue
		}
		allowed := func() process.Allowed {
			return func(from message.Node, _ *message.Message) error {
				if slices.Contains(n.denied, spec.Name) || !n.allowed(from) {
					return errors.New("it is on no list")
				}
				return nil
			}
		}
		opts := process.SubscriberOptions{Spec: spec, Env: env, Allowed: allowed, Store: l.gate, Send: l.router,
			Transport: l.loop, Codec: n.w.codec, Signatures: l.proves, Quota: l.quota, Lanes: lanes, Report: &n.events, Progress: &l.progress, Log: log,
			MaxParallel: n.parallel, Idle: n.idle, Now: n.now}
		_, err := process.NewSubscriber(opts)
		n.must(err)
		subscribers = append(subscribers, l.child(string(spec.Name), func() process.Service {
			s, err := process.NewSubscriber(opts)
			if err != nil {
				return process.ServiceFunc(func(context.Context) error { return err })
			}
			return s
		}))
	}
	branch := supervisor("subscribers", subscribers...)
	var proves []process.Child
	if l.proves != nil {
		proves = append(proves, l.child("signatures", func() process.Service { return l.proves }))
	}
	l.root, err = process.NewSupervisor(process.SupervisorOptions{Name: string(n.name), Report: &n.events, Log: n.w.log, MaxFailures: 5,
		Children: append(proves,
			l.child("publishers", func() process.Service { return publishers }),
			l.child("lanes", func() process.Service { return lanes }),
			l.child("subscribers", func() process.Service { return branch }),
			l.child("router", func() process.Service { return l.router }),
			l.child("inquiry", func() process.Service {
				if n.silent {
					return process.ServiceFunc(func(ctx context.Context) error { <-ctx.Done(); return nil })
				}
				return l.router.Inquiry()
			}),
			l.child("presence", l.router.Presence),
		)})
	n.must(err)
}

func (l *life) child(name string, make func() process.Service) process.Child {
	return process.Child{Name: name, Make: make, Restart: process.Permanent, Grace: 15 * time.Second}
}

// waiting says what is on the ring and in the inbox, and which replies are not here; empty for nothing.
func (l *life) waiting() string {
	var b strings.Builder
	streams, err := l.kv.Streams()
	l.n.must(err)
	for _, s := range streams {
		fmt.Fprintf(&b, "%d of %s to %s from %d on; ", s.Count, s.Method, s.Peer, s.First)
	}
	lanes, err := l.kv.Lanes()
	l.n.must(err)
	for _, s := range lanes {
		fmt.Fprintf(&b, "some of %s from %s in the inbox; ", s.Method, s.Peer)
	}
	nodes, err := l.kv.Awaited()
	l.n.must(err)
	for _, n := range nodes {
		fmt.Fprintf(&b, "a reply from %s is awaited; ", n)
	}
	if l.n.w.schedules && b.Len() == 0 { // it is a commit
		_, err := l.kv.Unschedule(message.ID{}, func(s kvstore.Scheduled) bool {
			fmt.Fprintf(&b, "%s of %s waits for its next run; ", s.ID, s.Method)
			return false
		}, "")
		l.n.must(err)
	}
	return b.String()
}

// kill is a crash at this very moment: what the store has not been told by now, it will
// not be told, and nothing more goes over the wire. It may be called by the node's own
// processes; bury has to follow.
func (l *life) kill() {
	if l.gate.die() {
		l.link.Close()
		l.cancel()
		close(l.killed)
	}
}

// alive reports whether what a method does now has an effect.
func (l *life) alive() bool { return !l.gate.isDead() }

// crash kills the node and clears away what is left of it. Its disk stays.
func (n *simNode) crash() {
	n.w.t.Helper()
	n.up.kill()
	n.bury()
}

// bury clears away a node that was killed.
func (n *simNode) bury() {
	n.w.t.Helper()
	<-n.up.killed
	<-n.up.over // what it says does not matter: it is dead
	n.end()
}

// stop ends the node the clean way.
func (n *simNode) stop() {
	n.w.t.Helper()
	n.up.cancel()
	if err := <-n.up.over; err != nil && n.up.alive() {
		n.w.t.Errorf("%s: stop: %v", n.name, err)
	}
	n.end()
}

func (n *simNode) end() {
	n.w.t.Helper()
	l := n.up
	n.up = nil
	n.must(l.loop.Close(context.Background()))
	l.link.Close()
	n.must(l.kv.Close())
}

// restart is a crash and a new start.
func (n *simNode) restart() {
	n.w.t.Helper()
	n.crash()
	n.start()
}

// now is the time by the node's clock on the wall.
func (n *simNode) now() time.Time { return time.Now().Round(0).Add(time.Duration(n.skew.Load())) }

// loss is that of a node's store, or of what it has written since a backup. What was handed in
// before may be lost, or done again.
type loss struct {
	node   message.Node
	before int // of world.asked
}

// wipe loses the store of a node that is down.
func (n *simNode) wipe() {
	n.w.t.Helper()
	n.w.lost = append(n.w.lost, loss{n.name, len(n.w.asked)})
	n.must(os.Remove(n.path))
}

// backup copies the store of a node that is down; restore puts the copy back.
func (n *simNode) backup() []byte {
	n.w.t.Helper()
	b, err := os.ReadFile(n.path)
	n.must(err)
	return b
}

func (n *simNode) restore(b []byte) {
	n.w.t.Helper()
	n.w.lost = append(n.w.lost, loss{n.name, len(n.w.asked)})
	n.must(os.WriteFile(n.path, b, 0o600))
}

// asked is a message that was handed in.
type asked struct {
	message.Message // its id is zero when the node died before it answered
	by              message.Node
	n, at           int // its number, and its place in world.asked
}

// send accepts messages on the node.
func (n *simNode) send(msgs ...message.Message) []message.ID {
	n.w.t.Helper()
	ids, err := n.try(msgs...)
	n.must(err)
	return ids
}

// try hands messages in on a node that may die of it.
func (n *simNode) try(msgs ...message.Message) ([]message.ID, error) {
	ids, err := n.up.router.Accept(context.Background(), msgs)
	for i := range msgs {
		a := asked{Message: msgs[i], by: n.name, n: number(&msgs[i]), at: len(n.w.asked)}
		if a.ID = (message.ID{}); err == nil {
			a.ID = ids[i]
		}
		n.w.asked = append(n.w.asked, a)
	}
	return ids, err
}

// sent returns the life of a message at its sender.
func (n *simNode) sent(id message.ID) kvstore.Life {
	n.w.t.Helper()
	l, err := n.up.kv.Sent(id)
	n.must(err)
	return l
}

// dead returns the ids of the dead letters.
func (n *simNode) dead() map[message.ID]kvstore.DeadLetter {
	n.w.t.Helper()
	all := map[message.ID]kvstore.DeadLetter{}
	n.must(n.up.kv.DeadLetters(func(d kvstore.DeadLetter) bool { all[d.Message.ID] = d; return true }))
	return all
}
