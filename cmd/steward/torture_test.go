package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"steward/message"
)

// TestTorture kills the sender, the receiver and the broker, also two at once, and breaks their
// links, at random points in streams of numbered messages: lines that are appended to a file,
// commands in order that each leave a mark, and commands side by side that are run again when
// they were interrupted. Everything that was accepted has to arrive, in order and once; of a
// command that was running when its node was killed the sender learns just that.
//
// make torture ROUNDS=500 is the long form of it. The seed that it prints chooses the same
// victims and points again with SEED=…; which instruction a kill meets is up to the machine.
func TestTorture(t *testing.T) {
	t.Parallel()
	rounds, seed := 8, rand.Uint64()
	if text := os.Getenv("STEWARD_TORTURE_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("STEWARD_TORTURE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds with seed %d", rounds, seed)
	f := emptyFleet(t, 2*time.Minute+time.Duration(rounds)*5*time.Second)
	for _, name := range []string{"central", "ship1"} {
		f.links[name] = newLink(t, f.broker)
	}
	for _, name := range []string{"broker", "central", "ship1"} {
		f.start(name)
	}
	tt := &torture{fleet: f, rnd: rand.New(rand.NewPCG(seed, 0)), faults: map[string]int{}}
	const batch = 10
	for round := range rounds {
		tt.round()
		if round%batch == batch-1 || round == rounds-1 {
			tt.settle()
			t.Logf("%d rounds, %v: %d messages are in order", round+1, tt.faults, tt.count())
		}
	}
	tt.end()
}

// The streams of the torture, and where their messages leave their numbers.
const (
	appends  = "REQToFileAppend"
	commands = "REQCliCommand"
	again    = "REQnCliCommand"
)

type torture struct {
	*fleet
	rnd     *rand.Rand
	faults  map[string]int // what was done, how often
	arrays  int
	streams [3]ledger // appends, commands, again
}

// array is what one round hands in at a time.
type array struct {
	messages []map[string]any
	entries  []*entry // of the ledgers, in the order of the messages
}

// array makes messages for all streams.
func (tt *torture) array(most int) array {
	var a array
	tt.arrays++
	add := func(stream int, numbers []int, make func(n string) map[string]any) {
		for _, n := range numbers {
			m := make(strconv.Itoa(n))
			m["toNode"], m["ACKTimeout"], m["retries"], m["replyACKTimeout"], m["replyRetries"] = "ship1", 1, 0, 1, 0
			a.messages = append(a.messages, m)
			a.entries = append(a.entries, tt.streams[stream].sent[n])
		}
	}
	some := func(stream int) []int { return tt.streams[stream].next(tt.arrays, 1+tt.rnd.IntN(most)) }
	add(0, some(0), func(n string) map[string]any {
		return map[string]any{"method": appends, "data": []string{n}, "directory": "torture", "fileName": "appends"}
	})
	add(1, some(1), func(n string) map[string]any {
		wait := ""
		if tt.rnd.IntN(4) == 0 {
			wait = "; sleep 0.02"
		}
		return map[string]any{"method": commands, "fileName": "commands", "methodTimeout": 60,
			"data": []string{"sh", "-c", "echo " + n + " >> ran.commands" + wait + "; echo " + n}}
	})
	add(2, some(2), func(n string) map[string]any {
		return map[string]any{"method": again, "fileName": "again", "methodTimeout": 60, "methodRetries": 1000,
			"data": []string{"sh", "-c", "echo " + n + " $STEWARD_ATTEMPT >> ran.again; sleep 0.01; echo " + n}}
	})
	return a
}

// round hands in messages and does something bad meanwhile.
func (tt *torture) round() {
	tt.t.Helper()
	var arrays []array
	for range 1 + tt.rnd.IntN(4) {
		arrays = append(arrays, tt.array(12))
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, a := range arrays {
			ids, err := tt.offer(a.messages)
			if err != nil {
				continue // central is killed just now
			}
			for i, id := range ids {
				a.entries[i].id = id
			}
		}
	}()
	tt.point()
	tt.fault()
	<-sent
}

// point waits for a random point: some bytes further on in one of the files, or a moment.
func (tt *torture) point() {
	file := filepath.Join(tt.dir, "ship1", []string{"var/torture/central/appends", "ran.commands", "ran.again"}[tt.rnd.IntN(3)])
	size := func() int64 {
		info, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	enough := size() + tt.rnd.Int64N(60)
	limit, cancel := context.WithTimeout(tt.ctx, time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for size() < enough {
		select {
		case <-limit.Done(): // there may be nothing that could come
			return
		case <-tick.C:
		}
	}
	tt.wait(time.Duration(tt.rnd.IntN(5)) * time.Millisecond)
}

func (tt *torture) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-tt.ctx.Done():
	}
}

// fault is what a round suffers. When it returns everything runs again.
func (tt *torture) fault() {
	tt.t.Helper()
	victims := [][]string{{"central"}, {"central"}, {"ship1"}, {"ship1"}, {"ship1"}, {"broker"},
		{"central", "ship1"}, {"central", "broker"}, {"ship1", "broker"}}
	node := []string{"central", "ship1"}[tt.rnd.IntN(2)]
	other := map[string]string{"central": "ship1", "ship1": "central"}[node]
	l := tt.links[node]
	moment := time.Duration(tt.rnd.IntN(400)) * time.Millisecond
	choice, half, kill := tt.rnd.IntN(len(victims)+6), tt.rnd.IntN(2) == 0, tt.rnd.IntN(3)
	count := func(what string) { tt.faults[what]++ }
	switch choice -= len(victims); choice {
	default:
		names := victims[choice+len(victims)]
		for _, name := range names {
			tt.kill(name)
		}
		for _, name := range names {
			tt.start(name)
		}
		count("kill " + strings.Join(names, " and "))
	case 0:
		l.cut()
		count("cut " + node)
	case 1, 2, 3: // between delivery and ack
		fired := l.set("PUB "+other+".ACK.", half)
		select {
		case <-fired:
			if half {
				count("ack of " + node + " lost, link half open")
				tt.wait(moment)
				l.cut()
			} else {
				count("ack of " + node + " lost with the link")
			}
		case <-time.After(2 * time.Second): // nothing was to be acknowledged
			l.unset()
			l.cut()
			count("cut " + node)
		}
	case 4, 5:
		directions := []int{toBroker, toNode}
		if half {
			directions = directions[kill%2 : kill%2+1]
		}
		l.hang(directions...)
		tt.wait(moment)
		if kill == 0 { // the others find out that the link is gone; it comes too late else
			tt.kill(node)
			tt.start(node)
		}
		if kill == 1 {
			l.cut()
		}
		l.resume()
		count("hang " + node)
	}
}

// settle waits until all that was accepted has ended, and looks whether it is right.
func (tt *torture) settle() {
	tt.t.Helper()
	// What is lost never comes: a long run need not wait until its end to say so.
	all := tt.ctx
	limit, cancel := context.WithTimeout(all, 2*time.Minute)
	tt.ctx = limit
	defer func() { cancel(); tt.ctx = all }()
	a := tt.array(1)
	for i, id := range tt.send(a.messages) {
		a.entries[i].id = id
	}
	last := func(stream int) string { return strconv.Itoa(len(tt.streams[stream].sent) - 1) }
	arrived := func(stream int, node, path string) {
		tt.until("the last line of "+path, func() bool {
			lines := tt.lines(node, path)
			return len(lines) > 0 && lines[len(lines)-1] == last(stream)
		})
	}
	arrived(0, "ship1", "var/torture/central/appends")
	arrived(1, "central", "var/ship1/commands")
	// Commands side by side do not end in order.
	tt.until("the replies to all commands that are run again", func() bool {
		return tt.streams[2].check(tt.lines("central", "var/ship1/again"), false, true, nil) == nil
	})
	if err := tt.streams[0].check(tt.lines("ship1", "var/torture/central/appends"), true, true, nil); err != nil {
		tt.t.Errorf("appends: %v", err)
	}
	maybe := func(int, string) error { return nil } // said at the end
	if err := tt.streams[1].check(tt.lines("ship1", "ran.commands"), true, false, maybe); err != nil {
		tt.t.Errorf("commands that ran: %v", err)
	}
	if err := tt.streams[1].check(tt.lines("central", "var/ship1/commands"), true, false, maybe); err != nil {
		tt.t.Errorf("replies of commands: %v", err)
	}
	tt.attempts()
	if tt.t.Failed() {
		tt.t.FailNow()
	}
}

// attempts looks at the commands that are run again: the attempts of each are counted, and none
// of them comes twice.
func (tt *torture) attempts() {
	tt.t.Helper()
	before := map[int]int{}
	for _, line := range tt.lines("ship1", "ran.again") {
		var n, attempt int
		if _, err := fmt.Sscanf(line, "%d %d", &n, &attempt); err != nil {
			tt.t.Fatalf("ran.again: %q: %v", line, err)
		}
		// A run that was killed before it left its mark is missing.
		if attempt <= before[n] {
			tt.t.Errorf("command %d: attempt %d after attempt %d", n, attempt, before[n])
		}
		before[n] = attempt
	}
}

func (tt *torture) count() int {
	n := 0
	for i := range tt.streams {
		n += len(tt.streams[i].sent)
	}
	return n
}

// end looks into the store of central: each command ended once, with the reply that is there or
// as interrupted.
func (tt *torture) end() {
	tt.t.Helper()
	// Nothing is left on the way, and no node has ended by itself.
	for _, name := range []string{"central", "ship1"} {
		if !answers(tt.socket(name)) {
			tt.t.Errorf("%s does not answer", name)
		}
	}
	if conn, err := net.Dial("tcp", tt.broker); err != nil {
		tt.t.Error(err)
	} else if err := conn.Close(); err != nil {
		tt.t.Error(err)
	}
	replies, ran := tt.lines("central", "var/ship1/commands"), tt.lines("ship1", "ran.commands")
	tt.stop("central") // the end of the last command may be in its file and not yet in the store
	life := tt.lives()
	interrupted, reran := 0, 0
	err := tt.streams[1].check(replies, true, false, func(n int, id string) error {
		l := life(id)
		if l.State != message.StateFailed || l.Code != message.CodeInterrupted {
			return fmt.Errorf("%s, %s %s", l.State, l.Code, l.Text)
		}
		interrupted++
		return nil
	})
	for n, e := range tt.streams[1].sent {
		if !slices.Contains(replies, strconv.Itoa(n)) || e.id == "" {
			continue
		}
		if l := life(e.id); l.State != message.StateDone {
			err = errors.Join(err, fmt.Errorf("command %d has its reply and is %s, %s %s", n, l.State, l.Code, l.Text))
		}
		if !slices.Contains(ran, strconv.Itoa(n)) {
			err = errors.Join(err, fmt.Errorf("command %d has a reply and did not run", n))
		}
	}
	if err != nil {
		tt.t.Error(err)
	}
	for _, line := range tt.lines("ship1", "ran.again") {
		if !strings.HasSuffix(line, " 1") {
			reran++
		}
	}
	tt.t.Logf("%d messages, %d commands interrupted, %d runs again: %v", tt.count(), interrupted, reran, tt.faults)
}
