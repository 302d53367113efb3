package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// breaking is a fleet of which the syncs of some nodes can fail.
type breaking struct {
	*fleet
	syncs map[string]*syncs
}

// emptyBreaking has nothing running yet.
func emptyBreaking(t *testing.T, nodes ...string) *breaking {
	t.Helper()
	b := &breaking{emptyFleet(t, 2*time.Minute), map[string]*syncs{}}
	b.disks = map[string]disk{}
	for _, name := range nodes {
		b.syncs[name] = newSyncs(t)
		b.disks[name] = b.syncs[name]
	}
	return b
}

// newBreaking is a broker, central and ship1, and they run.
func newBreaking(t *testing.T, nodes ...string) *breaking {
	t.Helper()
	b := emptyBreaking(t, nodes...)
	for _, name := range []string{"broker", "central", "ship1"} {
		b.start(name)
	}
	return b
}

// below reports whether a path is in a folder of a node.
func (b *breaking) below(node, folder string) func(path string) bool {
	prefix := filepath.Join(b.dir, node, folder)
	return func(path string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
}

// fail has syncs in a folder of a node fail.
func (b *breaking) fail(node, folder string) { b.syncs[node].set(b.below(node, folder)) }

// failures returns when n more of them have failed.
func (b *breaking) failures(node string, n int) {
	b.t.Helper()
	from := b.syncs[node].count()
	b.until(fmt.Sprintf("%d more syncs of %s have failed", n, node), func() bool { return b.syncs[node].count() >= from+n })
}

// work has all syncs work again, of each node of which some have to have failed.
func (b *breaking) work() {
	b.t.Helper()
	for name, s := range b.syncs {
		n := s.count()
		if b.t.Logf("%d syncs of %s have failed", n, name); n == 0 {
			b.t.Error("that is none")
		}
		s.set(nil)
	}
}

// refuse hands messages to central, which has to say that it does not accept them, and why.
func (b *breaking) refuse(messages []map[string]any) {
	b.t.Helper()
	text, err := json.Marshal(messages)
	if err != nil {
		b.t.Fatal(err)
	}
	conn, err := net.Dial("unix", b.socket("central"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(text); err != nil {
		b.t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, `{"error":`) || !strings.Contains(line, "input/output error") {
		b.t.Errorf("the answer is %q, %v", line, err)
	}
}

// alive fails the test when a node has ended.
func (b *breaking) alive(node string) {
	b.t.Helper()
	if err := b.procs[node].Process.Signal(syscall.Signal(0)); err != nil {
		b.t.Fatalf("%s: %v", node, err)
	}
}

// waiting kills a node, tells what waits on its ring buffer, and starts it again.
func (b *breaking) waiting(node string) map[kvstore.Stream]uint64 {
	b.t.Helper()
	b.kill(node)
	s, err := kvstore.Open(kvstore.Options{Path: filepath.Join(b.dir, node, "lib", node+".db"), Self: message.Node(node), MaxMessages: 1000, MaxBytes: 1 << 20})
	if err != nil {
		b.t.Fatal(err)
	}
	streams, err := s.Streams()
	if cerr := s.Close(); err != nil || cerr != nil {
		b.t.Fatal(err, cerr)
	}
	counts := map[kvstore.Stream]uint64{}
	for _, st := range streams {
		counts[st.Stream] = st.Count
	}
	b.start(node)
	return counts
}

// appending makes numbered messages that append a line each.
func appending(numbers []int) []map[string]any {
	var all []map[string]any
	for _, n := range numbers {
		all = append(all, map[string]any{"toNode": "ship1", "method": "REQToFileAppend", "data": []string{strconv.Itoa(n)},
			"directory": "eio", "fileName": "lines", "ACKTimeout": 1, "retries": 0})
	}
	return all
}

func numbers(from, to int) []int {
	var all []int
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

func (b *breaking) wantLines(node, path string, want ...string) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for got := b.lines(node, path); !slices.Equal(got, want) && len(got) <= len(want) && b.ctx.Err() == nil; got = b.lines(node, path) {
		<-tick.C
	}
	if got := b.lines(node, path); !slices.Equal(got, want) {
		b.t.Fatalf("%s on %s holds %q, want %q", path, node, got, want)
	}
}

func texts(numbers []int) []string {
	var all []string
	for _, n := range numbers {
		all = append(all, strconv.Itoa(n))
	}
	return all
}

// held is a command that leaves a line when it begins and one when it ends, which it does when the file go
// is there, and replies.
var held = map[string]any{"toNode": "ship1", "method": "REQCliCommand", "methodTimeout": 600, "fileName": "held", "ACKTimeout": 1, "retries": 0,
	"replyACKTimeout": 1, "replyRetries": 0, "data": []string{"sh", "-c", "echo begin >> held; until test -e go; do sleep 0.05; done; echo end >> held; echo ran"}}

// next begins when the end of held, and with it its reply, is on disk at its receiver.
var next = map[string]any{"toNode": "ship1", "method": "REQCliCommand", "replyMethod": "REQNone", "ACKTimeout": 1, "retries": 0,
	"data": []string{"sh", "-c", "echo next >> held"}}

func (b *breaking) letGo() {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "ship1", "go"), nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// reported looks whether a node has said what happened: in its log, and to central, for which it has no room
// as long as its syncs fail. It is stopped, since it would tell of repetitions only later.
func (b *breaking) reported(node string) {
	b.t.Helper()
	if !slices.ContainsFunc(b.lines(node, "log"), func(line string) bool { return strings.Contains(line, "input/output error") }) {
		b.t.Errorf("the log of %s does not say what happened", node)
	}
	b.stop(node)
	b.start(node)
	b.until("central's error log says so", func() bool {
		return slices.ContainsFunc(b.lines("central", "var/errorLog/"+node+"/error.log"), func(line string) bool {
			return strings.Contains(line, "store-failed") && strings.Contains(line, "input/output error")
		})
	})
}

// TestSenderWhoseSyncsFailAcceptsAndAcknowledgesNothing: and goes on when they work again.
func TestSenderWhoseSyncsFailAcceptsAndAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]bool{"and works again": false, "and is killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acceptNothing(t, killed)
		})
	}
}

func acceptNothing(t *testing.T, killed bool) {
	b := newBreaking(t, "central")
	b.send(append(appending(numbers(1, 10)), held, next))
	b.wantLines("ship1", "var/eio/central/lines", texts(numbers(1, 10))...)
	b.wantLines("ship1", "held", "begin")

	b.fail("central", "lib")
	for range 3 {
		b.refuse(appending(numbers(11, 20)))
	}
	b.letGo() // its reply finds nobody who can keep it
	b.wantLines("ship1", "held", "begin", "end", "next")
	b.failures("central", 3)
	if waits := b.waiting("ship1")[kvstore.Stream{Peer: "central", Method: "REQToFileAppend"}]; waits != 1 {
		t.Errorf("%d replies wait for central, want 1", waits)
	}
	b.alive("central")
	if killed {
		b.kill("central")
	}
	b.syncs["central"].set(nil)
	if killed {
		b.start("central")
	}
	b.send(appending(numbers(21, 30)))
	b.wantLines("ship1", "var/eio/central/lines", texts(append(numbers(1, 10), numbers(21, 30)...))...)
	b.wantLines("central", "var/ship1/held", "ran")
	if !killed {
		b.reported("central")
	}
	b.wantLines("ship1", "held", "begin", "end", "next")
}

// TestReceiverWhoseSyncsFailRunsAndAcknowledgesNothing: and goes on when they work again.
func TestReceiverWhoseSyncsFailRunsAndAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	b := newBreaking(t, "ship1")
	b.send([]map[string]any{held})
	b.wantLines("ship1", "held", "begin")

	b.fail("ship1", "lib")
	b.send(appending(numbers(1, 20)))
	b.failures("ship1", 3)
	b.letGo() // its end cannot be written down
	b.wantLines("ship1", "held", "begin", "end")
	b.failures("ship1", 3)
	if waits := b.waiting("central")[kvstore.Stream{Peer: "ship1", Method: "REQToFileAppend"}]; waits != 20 {
		t.Errorf("%d messages wait for ship1, want 20", waits)
	}
	b.alive("ship1")
	if lines := b.lines("ship1", "var/eio/central/lines"); len(lines) > 0 {
		t.Errorf("ship1 has run what it could not keep: %q", lines)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "central", "var/ship1/held")); err == nil {
		t.Error("there is a reply that ship1 could not keep")
	}

	b.syncs["ship1"].set(nil)
	b.wantLines("ship1", "var/eio/central/lines", texts(numbers(1, 20))...)
	b.wantLines("central", "var/ship1/held", "ran")
	b.reported("ship1")
	b.wantLines("ship1", "held", "begin", "end")
}

// TestNodeThatIsKilledWhileSyncsFailDoesNothingTwice: what it had begun to write is taken back at the next
// start, or has come to its end. It does not start as long as they fail, and says why.
func TestNodeThatIsKilledWhileSyncsFailDoesNothingTwice(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"lib", "var"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			b := newBreaking(t, "ship1")
			b.send(appending(numbers(1, 10)))
			b.wantLines("ship1", "var/eio/central/lines", texts(numbers(1, 10))...)
			b.fail("ship1", folder)
			b.send(appending(numbers(11, 20)))
			b.failures("ship1", 2)
			b.kill("ship1")
			if folder == "lib" {
				cmd := command(t, "steward", "-nodeName=ship1", "-brokerAddress="+b.broker)
				cmd.Dir = filepath.Join(b.dir, "ship1")
				var log strings.Builder
				cmd.Stdout, cmd.Stderr = &log, &log
				started := b.syncs["ship1"].around(cmd)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				started()
				if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(log.String(), "input/output error") {
					t.Errorf("it ended with %v, and says %s", err, log.String())
				}
			}
			b.syncs["ship1"].set(nil)
			b.start("ship1")
			b.send(appending(numbers(21, 30)))
			b.wantLines("ship1", "var/eio/central/lines", texts(numbers(1, 30))...)
		})
	}
}

// TestFilesWhoseSyncsFailAreWrittenLater: exactly once, and commands go on meanwhile.
func TestFilesWhoseSyncsFailAreWrittenLater(t *testing.T) {
	t.Parallel()
	b := newBreaking(t, "ship1")
	b.fail("ship1", "var")
	b.send(appending(numbers(1, 20)))
	b.failures("ship1", 2)
	b.letGo()
	b.send([]map[string]any{held})
	b.wantLines("central", "var/ship1/held", "ran")
	b.failures("ship1", 2)
	b.alive("ship1")
	b.syncs["ship1"].set(nil)
	b.wantLines("ship1", "var/eio/central/lines", texts(numbers(1, 20))...)
	b.reported("ship1")
	b.stop("ship1")
	b.wantLines("ship1", "var/eio/central/lines", texts(numbers(1, 20))...)
}

// TestSyncsThatFailNowAndThenLoseNothing: on both nodes, wherever it hits them.
func TestSyncsThatFailNowAndThenLoseNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := newBreaking(t, "central", "ship1")
	for i, name := range []string{"central", "ship1"} {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		b.syncs[name].set(func(string) bool { return rnd.IntN(4) == 0 })
	}
	var lines, commands ledger
	const rounds, each = 40, 5
	for round := range rounds {
		var arrays [2][]map[string]any
		linesNow, commandsNow := lines.next(round, each), commands.next(round, each)
		arrays[0] = appending(linesNow)
		for _, n := range commandsNow {
			arrays[1] = append(arrays[1], map[string]any{"toNode": "ship1", "method": "REQCliCommand", "fileName": "replies", "ACKTimeout": 1, "retries": 0,
				"replyACKTimeout": 1, "replyRetries": 0, "data": []string{"sh", "-c", fmt.Sprintf("echo %d >> ran; echo %d", n, n)}})
		}
		for i, l := range []*ledger{&lines, &commands} {
			if ids, err := b.offer(arrays[i]); err == nil {
				for j, id := range ids {
					l.sent[[][]int{linesNow, commandsNow}[i][j]].id = id
				}
			}
		}
	}
	b.work()
	last := lines.next(rounds, 1)
	end := commands.next(rounds, 1)
	ids := b.send(append(appending(last), map[string]any{"toNode": "ship1", "method": "REQCliCommand", "fileName": "replies", "ACKTimeout": 1, "retries": 0,
		"replyACKTimeout": 1, "replyRetries": 0, "data": []string{"sh", "-c", fmt.Sprintf("echo %d >> ran; echo %d", end[0], end[0])}}))
	lines.sent[last[0]].id, commands.sent[end[0]].id = ids[0], ids[1]
	for _, w := range []struct {
		l          *ledger
		node, path string
	}{{&lines, "ship1", "var/eio/central/lines"}, {&commands, "ship1", "ran"}, {&commands, "central", "var/ship1/replies"}} {
		over := strconv.Itoa(len(w.l.sent) - 1)
		b.until("the last is in "+w.path, func() bool { return slices.Contains(b.lines(w.node, w.path), over) })
		arrived := b.lines(w.node, w.path)
		if err := w.l.check(arrived, true, true, nil); err != nil {
			t.Errorf("%s: %v", w.path, err)
		}
		refused := 0
		for _, e := range w.l.sent {
			if e.id == "" {
				refused++
			}
		}
		if len(arrived) != len(w.l.sent)-refused {
			t.Errorf("%s: %d lines of %d, of which %d were refused", w.path, len(arrived), len(w.l.sent), refused)
		}
	}
}

// TestWaysInWhoseSyncsFailHandInOnce: what is read from a folder and a file is accepted once, and in order.
func TestWaysInWhoseSyncsFailHandInOnce(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := emptyBreaking(t, "central")
	b.args = []string{"-readFolder=./in", "-inFile=./inmsg.txt"}
	home := filepath.Join(b.dir, "central")
	if err := os.MkdirAll(filepath.Join(home, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.start("broker")
	b.start("central")
	rnd, left := rand.New(rand.NewPCG(seed, 0)), 8 // each may cost seconds of waiting
	b.syncs["central"].set(func(string) bool {
		if left == 0 || rnd.IntN(3) > 0 {
			return false
		}
		left--
		return true
	})
	line := func(file string, n int) []byte {
		return fmt.Appendf(nil, `{"toNode":"local","method":"REQToFileAppend","directory":"ways","fileName":%q,"data":["%d"]}`+"\n", file, n)
	}
	const files = 12
	for n := 1; n <= files; n++ {
		temp := filepath.Join(home, "moved in")
		if err := os.WriteFile(temp, line("folder", n), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, filepath.Join(home, "in", fmt.Sprintf("%03d.json", n))); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(home, "inmsg.txt"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(line("file", n)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if n%4 == 0 { // what is there is read and erased, or that fails
			b.wantLines("central", "var/ways/central/file", texts(numbers(1, n))...)
		}
	}
	b.wantLines("central", "var/ways/central/folder", texts(numbers(1, files))...)
	b.until("the file was erased", func() bool {
		info, err := os.Stat(filepath.Join(home, "inmsg.txt"))
		return err == nil && info.Size() == 0
	})
	b.stop("central")
	b.syncs["central"].set(nil)
	b.start("central")
	b.wantLines("central", "var/ways/central/folder", texts(numbers(1, files))...)
	b.wantLines("central", "var/ways/central/file", texts(numbers(1, files))...)
}

// TestNodeStartsWhenItsConfigurationCannotBeSynced: it says so, and has all that it needs.
func TestNodeStartsWhenItsConfigurationCannotBeSynced(t *testing.T) {
	t.Parallel()
	b := emptyBreaking(t, "central")
	b.fail("central", "etc")
	b.start("central")
	if !slices.ContainsFunc(b.lines("central", "log"), func(line string) bool {
		return strings.Contains(line, "WARN") && strings.Contains(line, "input/output error")
	}) {
		t.Errorf("its log says %q", b.lines("central", "log"))
	}
}

// TestSyncsThatFailAndKillsLoseNothing: a node is killed while its syncs fail now and then, and its next start
// finds what they left.
func TestSyncsThatFailAndKillsLoseNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := newBreaking(t, "central", "ship1")
	rnd := rand.New(rand.NewPCG(seed, 0))
	breakDown := func(name string) {
		rnd := rand.New(rand.NewPCG(seed, rnd.Uint64()))
		b.syncs[name].set(func(string) bool { return rnd.IntN(4) == 0 })
	}
	breakDown("central")
	breakDown("ship1")
	var lines ledger
	refused := map[string]bool{}
	const rounds, arrays, each = 8, 6, 5
	for round := range rounds {
		for i := range arrays {
			numbers := lines.next(round*arrays+i, each)
			ids, err := b.offer(appending(numbers))
			for j, n := range numbers {
				if err == nil {
					lines.sent[n].id = ids[j]
				} else if strings.Contains(err.Error(), `{"error":`) {
					refused[strconv.Itoa(n)] = true
				}
			}
		}
		victim := []string{"central", "ship1"}[rnd.IntN(2)]
		b.kill(victim)
		b.syncs[victim].set(nil)
		b.start(victim)
		breakDown(victim)
	}
	b.work()
	last := lines.next(rounds*arrays, 1)
	lines.sent[last[0]].id = b.send(appending(last))[0]
	const file = "var/eio/central/lines"
	b.until("the last line is there", func() bool { return slices.Contains(b.lines("ship1", file), strconv.Itoa(last[0])) })
	arrived := b.lines("ship1", file)
	if err := lines.check(arrived, true, true, nil); err != nil {
		t.Error(err)
	}
	for _, n := range arrived {
		if refused[n] {
			t.Errorf("%s was refused, and came", n)
		}
	}
}
