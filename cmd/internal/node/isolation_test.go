package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"steward/internal/natstest"
	"steward/kvstore"
	"steward/message"
	"steward/process"
	"steward/process/transport/natstransport"
)

// until looks again and again until cond holds. A test that waits in vain ends with the
// patience of go test.
func until(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.FailNow()
		}
	}
}

// ping is a ping to a node that is tried until it is delivered.
func ping(to message.Node, file string) message.Message {
	return message.Message{To: to, Method: "REQPing", ReplyMethod: "REQPong", Directory: "pings", FileName: file,
		ACKTimeout: time.Second, ReplyACKTimeout: time.Second, MethodTimeout: 10 * time.Second, ReplyMethodTimeout: 10 * time.Second}
}

// put is a text of some size for a file on a node.
func put(to message.Node, text string) message.Message {
	return message.Message{To: to, Method: "REQToFileAppend", ReplyMethod: message.MethodNone, Directory: "puts", FileName: "all",
		Data: []string{text}, ACKTimeout: time.Second, MethodTimeout: 10 * time.Second}
}

func (n *Node) hand(t testing.TB, msgs ...message.Message) []message.ID {
	t.Helper()
	ids, err := n.router.Accept(t.Context(), msgs)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// isDone reports whether a message handed in here has got its answer.
func (n *Node) isDone(t testing.TB, id message.ID) bool {
	t.Helper()
	life, err := n.store.Sent(id)
	if err != nil {
		t.Fatal(err)
	}
	return life.State == message.StateDone
}

// waitsFor is how many messages wait for a node.
func (n *Node) waitsFor(t testing.TB, peer message.Node) (count uint64) {
	t.Helper()
	streams, err := n.store.Streams()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if s.Peer == peer {
			count += s.Count
		}
	}
	return count
}

// fleet is central and receivers, of which some can be stopped.
type fleet struct {
	central *Node
	args    []string
	names   []message.Node
	stops   []func()
}

func newFleet(t testing.TB, nodes int) *fleet {
	f := &fleet{args: []string{"-brokerAddress=" + natstest.Start(t).URL(), "-promHostAndPort=", "-reconnectWait=1", "-reconnectJitter=0"}}
	f.central, _ = start(t, f.args...)
	for i := range nodes {
		name := fmt.Sprintf("ship%d", i)
		n, stop := start(t, append(slices.Clip(f.args), "-nodeName="+name)...)
		f.names, f.stops = append(f.names, n.Name()), append(f.stops, stop)
	}
	return f
}

// round pings all nodes, and returns how long the pings took, without those to the first ones, which
// may be dead.
func (f *fleet) round(t testing.TB, dead int) []time.Duration {
	t.Helper()
	var msgs []message.Message
	for _, name := range f.names {
		msgs = append(msgs, ping(name, "all"))
	}
	steps, stop := f.central.Watch(message.ID{})
	defer stop()
	began := time.Now()
	open := map[message.ID]bool{}
	for i, id := range f.central.hand(t, msgs...) {
		open[id] = i >= dead
	}
	var took []time.Duration
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for len(took) < len(f.names)-dead {
		select {
		case s := <-steps:
			if s.What == process.StepAnswered && open[s.ID] {
				took, open[s.ID] = append(took, time.Since(began)), false
			}
		case <-tick.C: // a watcher that does not keep up loses steps
			for id, waits := range open {
				if waits && f.central.isDone(t, id) {
					took, open[id] = append(took, time.Since(began)), false
				}
			}
		}
	}
	return took
}

// Nodes that are dead hold up none of the others, and what is for them waits.
func TestDeadNodesHoldUpNobody(t *testing.T) {
	const nodes, dead, rounds = 10, 3, 5
	f := newFleet(t, nodes)
	for _, stop := range f.stops[:dead] {
		stop()
	}
	for range rounds {
		f.round(t, dead) // ends when the living have answered
	}
	for i, name := range f.names {
		if got := f.central.waitsFor(t, name); i < dead && got != rounds {
			t.Errorf("%d messages wait for %s, which is dead", got, name)
		}
	}
	// The dead come back, with new folders, and get what waited.
	for _, name := range f.names[:dead] {
		start(t, append(slices.Clip(f.args), "-nodeName="+string(name))...)
		until(t, func() bool { return f.central.waitsFor(t, name) == 0 })
	}
}

// BenchmarkDeadNodes compares the time of pings to 70 nodes while 30 others are alive, and while
// those are dead; all 100 are pinged. The metric is the ratio of the 99th percentiles.
func BenchmarkDeadNodes(b *testing.B) {
	const nodes, dead = 100, 30
	f := newFleet(b, nodes)
	p99 := func() time.Duration {
		var all []time.Duration
		for range 50 {
			all = append(all, f.round(b, dead)...)
		}
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	var alive, some time.Duration
	for b.Loop() {
		if some == 0 {
			f.round(b, 0) // the first contact
			alive = p99()
			for _, stop := range f.stops[:dead] {
				stop()
			}
		}
		some = p99()
	}
	b.ReportMetric(alive.Seconds()*1e3, "ms-p99-alive")
	b.ReportMetric(some.Seconds()*1e3, "ms-p99-with-dead")
	b.ReportMetric(some.Seconds()/alive.Seconds(), "ratio")
}

// heap is the memory that is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What waits for a node that is not there, or that takes everything and never answers, is on
// disk and not in memory, and the others are not held up.
func TestWhatWaitsIsNotInMemory(t *testing.T) {
	for _, kind := range []string{"absent", "silent"} {
		t.Run(kind, func(t *testing.T) {
			f := newFleet(t, 1)
			var heard chan int
			if kind == "silent" {
				heard = make(chan int, 1)
				heard <- 0
				raw, err := natstransport.Open(natstransport.Options{Servers: []string{strings.TrimPrefix(f.args[0], "-brokerAddress=")}, Name: "silent"})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := raw.Close(context.Background()); err != nil {
						t.Error(err)
					}
				})
				if _, err := raw.Subscribe("away.REQToFileAppend.EventACK", func(d process.Delivery) { heard <- <-heard + len(d.Data) }); err != nil {
					t.Fatal(err)
				}
				until(t, func() bool { up, _ := raw.State(); return up })
			}
			const batches, each, size, most = 100, 100, 8 << 10, 32 << 20
			before := heap()
			text := strings.Repeat("x", size)
			for range batches {
				var msgs []message.Message
				for range each {
					msgs = append(msgs, put("away", text))
				}
				f.central.hand(t, msgs...)
			}
			f.round(t, 0)
			// 80 MB wait.
			if grown := heap() - before; grown > most {
				t.Errorf("the heap has grown by %d bytes", grown)
			}
			if got := f.central.waitsFor(t, "away"); got != batches*each {
				t.Errorf("%d messages wait", got)
			}
			if kind == "silent" {
				var n int
				until(t, func() bool { n = <-heard; heard <- n; return n > 0 })
				if n > batches*each*size/4 {
					t.Errorf("a receiver that never answered was sent %d bytes", n)
				}
			}
		})
	}
}

// BenchmarkQueue hands messages for an absent node in: with -benchtime=1000000x it says what a
// million of them take.
func BenchmarkQueue(b *testing.B) {
	n, _ := start(b, "-brokerAddress="+natstest.Start(b).URL(), "-promHostAndPort=", "-ringBufferSize=10000000")
	before := heap()
	b.ResetTimer()
	for done := 0; done < b.N; {
		var msgs []message.Message
		for range min(1000, b.N-done) {
			msgs = append(msgs, put("away", "some text"))
		}
		n.hand(b, msgs...)
		done += len(msgs)
	}
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/(1<<20), "MB-heap")
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			var kb float64
			if _, err := fmt.Sscanf(line, "RssAnon: %f kB", &kb); err == nil {
				b.ReportMetric(kb/1024, "MB-anonymous")
			}
			if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
				b.ReportMetric(kb/1024, "MB-resident")
			}
		}
	}
}

// A sender that floods a receiver fills its own place there and no more; what others send runs.
func TestFloodHoldsUpNobody(t *testing.T) {
	f := newFleet(t, 1)
	ship := f.names[0]
	other, _ := start(t, append(slices.Clip(f.args), "-nodeName=other")...)
	release := filepath.Join(t.TempDir(), "release")
	command := func(args ...string) message.Message {
		return message.Message{To: ship, Method: "REQCliCommand", ReplyMethod: message.MethodNone, Data: args,
			ACKTimeout: time.Second, ReplyACKTimeout: time.Second, MethodTimeout: time.Hour}
	}
	f.central.hand(t, command("sh", "-c", "until test -e "+release+"; do sleep 0.05; done"))
	const batches, each, lane = 20, 1000, 16 << 10 // as much as a lane of kvstore holds
	for range batches {
		f.central.hand(t, slices.Repeat([]message.Message{command("true")}, each)...)
	}
	// The lane is full when the rest stays at the sender.
	until(t, func() bool { return f.central.waitsFor(t, ship) <= 1+batches*each-lane })
	for range 20 {
		id := other.hand(t, command("true"), ping(ship, "other"))
		for _, id := range id {
			until(t, func() bool { return other.isDone(t, id) })
		}
	}
	if got := f.central.waitsFor(t, ship); got != 1+batches*each-lane {
		t.Errorf("%d messages wait at the sender: the receiver has taken %d", got, 1+batches*each-int(got))
	}
}

// A full ring refuses at the door, in words, takes more when there is room, and has room for
// the node's own replies all the time.
func TestFullRingStillAnswers(t *testing.T) {
	f := newFleet(t, 0)
	ship, _ := start(t, append(slices.Clip(f.args), "-nodeName=ship", "-ringBufferSize=10", "-startSubREQCliCommand=*")...)
	for range 10 {
		ship.hand(t, put("away", "x"))
	}
	if _, err := ship.router.Accept(t.Context(), []message.Message{put("away", "x")}); !errors.Is(err, kvstore.ErrFull) {
		t.Errorf("the eleventh of ten: %v", err)
	}
	id := f.central.hand(t, ping("ship", "full"))[0]
	until(t, func() bool { return f.central.isDone(t, id) })
	away, _ := start(t, append(slices.Clip(f.args), "-nodeName=away")...)
	until(t, func() bool { return ship.waitsFor(t, away.Name()) == 0 })
	ship.hand(t, put("away", "x"))
}

// Clients that send a byte now and then hold up nobody, and leave nothing behind.
func TestSlowClientsHoldUpNobody(t *testing.T) {
	n, _ := start(t, "-brokerAddress=127.0.0.1:1", "-promHostAndPort=")
	before := runtime.NumGoroutine()
	const clients = 200
	var conns []net.Conn
	for range clients {
		c, err := net.Dial("unix", n.SocketPath())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	text := `{"toNode":"local","method":"REQToFileAppend","data":["x"]}`
	for i := range text[:20] {
		for _, c := range conns {
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		c, err := net.Dial("unix", n.SocketPath())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "accepted") {
			t.Fatalf("%q, %v", line, err)
		}
		_ = c.Close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
	until(t, func() bool { return runtime.NumGoroutine() < before+clients/4 })
}
