package node

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"steward/config"
	"steward/internal/natstest"
	"steward/message"
	"steward/methods"
)

var (
	stormNodes = flag.Int("storm.nodes", 100, "how many nodes lose their broker")
	stormTally = flag.Bool("storm.tally", false, "print how they came back")
)

// TestAllNodesComeBackAfterTheBroker: a fleet loses its broker, goes on to accept messages, and
// gets it back. All connect again, spread over the jitter, and what was queued on either side
// arrives once. How long that takes is printed and decides nothing.
func TestAllNodesComeBackAfterTheBroker(t *testing.T) {
	f := newStorm(t, *stormNodes)
	f.awaitLinks(t, true)
	start := time.Now()
	f.broker.Stop()
	f.awaitLinks(t, false)
	ids := make([][]message.ID, len(f.ships))
	f.each(func(i int, n *Node) error {
		var err error
		ids[i], err = n.router.Accept(t.Context(), []message.Message{note(f.central.self, n.self)})
		return err
	})
	msgs := make([]message.Message, 0, len(f.ships))
	for _, n := range f.ships {
		msgs = append(msgs, note(n.self, f.central.self))
	}
	sent, err := f.central.router.Accept(t.Context(), msgs)
	if err != nil {
		t.Fatal(err)
	}
	down := time.Since(start)

	back := time.Now()
	f.broker.Restart()
	up := f.awaitLinks(t, true)
	for i, n := range f.ships {
		f.awaitDone(t, n, ids[i][0])
		f.awaitDone(t, f.central, sent[i])
	}
	all := time.Since(back)
	for _, n := range f.ships {
		f.wantFile(t, f.central, n.self)
		f.wantFile(t, n, f.central.self)
	}
	if *stormTally {
		fmt.Printf("%d nodes without a broker for %v: the first link %v after its return, the last after %v; all that was queued delivered after %v; at most %d links in 100 ms\n",
			len(f.ships)+1, down.Round(time.Millisecond), slices.MinFunc(up, time.Time.Compare).Sub(back).Round(time.Millisecond),
			slices.MaxFunc(up, time.Time.Compare).Sub(back).Round(time.Millisecond), all.Round(time.Millisecond), peak(up, 100*time.Millisecond))
	}
}

// peak is the highest number of moments in any span of that length.
func peak(at []time.Time, span time.Duration) int {
	slices.SortFunc(at, time.Time.Compare)
	most, from := 0, 0
	for i := range at {
		for at[i].Sub(at[from]) >= span {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// note is a line for a file that is named after its sender.
func note(to, from message.Node) message.Message {
	return message.Message{To: to, Method: "REQToFileAppend", Data: []string{"here is " + string(from)}, FileName: "note", ReplyMethod: message.MethodNone,
		ACKTimeout: 5 * time.Second, MethodTimeout: time.Minute}
}

// storm is a broker with a central node and many others, all in this process.
type storm struct {
	t       *testing.T
	dir     string
	broker  *natstest.Broker
	central *Node
	ships   []*Node
}

// patience is how long anything may take on a machine that is busy with other things.
const patience = 5 * time.Minute

func newStorm(t *testing.T, ships int) *storm {
	t.Helper()
	f := &storm{t: t, dir: t.TempDir(), broker: natstest.Start(t), ships: make([]*Node, ships)}
	f.central = f.open("central")
	f.serve(f.central)
	f.each(func(i int, _ *Node) error {
		f.ships[i] = f.open(fmt.Sprintf("s%d", i))
		return nil
	})
	for _, n := range f.ships {
		f.serve(n)
	}
	return f
}

// each calls do for all ships, some at a time.
func (f *storm) each(do func(i int, n *Node) error) {
	f.t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	errs := make([]error, len(f.ships))
	for i, n := range f.ships {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(i, n)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *storm) open(name string) *Node {
	registry, err := methods.Builtin()
	var known []config.Method
	if err == nil {
		for _, spec := range registry.All() {
			known = append(known, config.Method{Name: spec.Name, Default: []string{"*"}})
		}
	}
	var cfg *config.Config
	if err == nil {
		dir := filepath.Join(f.dir, name)
		cfg, err = config.Load([]string{"-promHostAndPort=", "-nodeName=" + name, "-brokerAddress=" + f.broker.URL(), "-reconnectWait=1", "-reconnectJitter=1",
			"-configFolder=" + dir, "-socketFolder=" + dir, "-databaseFolder=" + dir, "-subscribersDataFolder=" + f.data(name)}, nil, known)
	}
	var n *Node
	if err == nil {
		n, err = New(Options{Config: cfg, Registry: registry, Log: slog.New(slog.DiscardHandler), Stdout: io.Discard, Stderr: io.Discard, Version: "test"})
	}
	if err != nil {
		f.t.Errorf("node %s: %v", name, err)
		return nil
	}
	return n
}

func (f *storm) data(name string) string { return filepath.Join(f.dir, name, "var") }

// serve runs a node until the test ends.
func (f *storm) serve(n *Node) {
	if n == nil {
		f.t.FailNow()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
		if err := n.Close(); err != nil {
			f.t.Error(err)
		}
	})
	<-n.Ready()
}

// awaitLinks waits until all nodes have a link, or none has, and returns when each came to that.
func (f *storm) awaitLinks(t *testing.T, want bool) []time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := append([]*Node{f.central}, f.ships...)
	at := make([]time.Time, len(all))
	var wg sync.WaitGroup
	for i, n := range all {
		wg.Go(func() {
			for {
				up, changed := n.Link()
				if up == want {
					at[i] = time.Now()
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
					t.Errorf("%s: its link is not as it should be (%v)", n.self, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return at
}

// awaitDone waits until a message has ended well.
func (f *storm) awaitDone(t *testing.T, n *Node, id message.ID) {
	t.Helper()
	steps, stop := n.Watch(id)
	defer stop()
	timeout := time.After(patience)
	for {
		life, err := n.store.Sent(id)
		if err != nil || life.State.Final() && life.State != message.StateDone {
			t.Fatalf("%s: %+v, %v", n.self, life, err)
		}
		if life.State == message.StateDone {
			return
		}
		select {
		case <-steps: // the end is on disk a moment after it
		case <-time.After(10 * time.Millisecond):
		case <-timeout:
			t.Fatalf("%s: not delivered: %+v", n.self, life)
		}
	}
}

// wantFile waits until a note of another node is there, and looks whether it is there once.
func (f *storm) wantFile(t *testing.T, n *Node, from message.Node) {
	t.Helper()
	name := filepath.Join(f.data(string(n.self)), string(from), "note")
	want := "here is " + string(from) + "\n"
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		b, err := os.ReadFile(name)
		if string(b) == want {
			return
		}
		if len(b) > len(want) {
			t.Fatalf("%s: %q, want %q", name, b, want)
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
}
