package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
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

// fleet is a broker and nodes, each a process of its own that can be killed.
type fleet struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	broker string           // host:port
	links  map[string]*link // of the nodes that have one to the broker; the others reach it straight
	args   []string         // further flags of all nodes
	knows  bool             // the nodes' own configurations say where the broker is
	apart  bool             // a Ctrl-C at the terminal is not for the processes
	disks  map[string]disk  // of the nodes whose disk may break
	procs  map[string]*exec.Cmd
}

// disk is what a process writes to. around has a command run with it, and what it returns has to be called
// when that was started.
type disk interface {
	around(*exec.Cmd) (started func())
}

// newFleet is a broker, central and ship1, and they run.
func newFleet(t *testing.T) *fleet {
	f := emptyFleet(t, 2*time.Minute)
	for _, name := range []string{"broker", "central", "ship1"} {
		f.start(name)
	}
	return f
}

// emptyFleet has nothing running yet. Nothing is waited for beyond limit.
func emptyFleet(t *testing.T, limit time.Duration) *fleet {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	broker, err := new(ports).free()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, ctx: ctx, dir: shortDir(t), broker: broker, links: map[string]*link{}, procs: map[string]*exec.Cmd{}}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for name := range f.procs {
			const most = 50_000
			log, _ := os.ReadFile(filepath.Join(f.dir, name, "log"))
			t.Logf("log of %s:\n%s", name, log[max(0, len(log)-most):])
		}
	})
	return f
}

// start starts a process and, for a node, waits until its socket takes connections.
func (f *fleet) start(name string) {
	f.t.Helper()
	var cmd *exec.Cmd
	if name == "broker" {
		cmd = command(f.t, "broker", f.broker)
	} else {
		broker := f.broker
		if l := f.links[name]; l != nil {
			broker = l.addr()
		}
		args := append([]string{"-nodeName=" + name}, f.args...)
		if !f.knows {
			args = append(args, "-brokerAddress="+broker)
		}
		cmd = command(f.t, "steward", args...)
		cmd.Dir = filepath.Join(f.dir, name)
		if err := os.MkdirAll(cmd.Dir, 0o700); err != nil {
			f.t.Fatal(err)
		}
		log, err := os.OpenFile(filepath.Join(cmd.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			f.t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if f.apart {
		setApart(cmd)
	}
	started := func() {}
	if d := f.disks[name]; d != nil {
		started = d.around(cmd)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.procs[name] = cmd
	started()
	if name != "broker" {
		f.until(name+" takes connections", func() bool { return answers(f.socket(name)) })
	}
}

// kill ends a process with SIGKILL.
func (f *fleet) kill(name string) {
	f.t.Helper()
	if err := f.procs[name].Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	_ = f.procs[name].Wait() // it was killed, and says so
}

// stop ends a node with SIGTERM: what it has begun it puts on disk.
func (f *fleet) stop(name string) {
	f.t.Helper()
	if err := f.procs[name].Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Fatal(err)
	}
	if err := f.procs[name].Wait(); err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
}

// until looks again and again until cond holds.
func (f *fleet) until(what string, cond func() bool) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			f.t.Fatalf("never: %s", what)
		}
	}
}

func (f *fleet) socket(name string) string { return filepath.Join(f.dir, name, "tmp", "steward.sock") }

// send hands messages to central and returns their ids once they are accepted.
func (f *fleet) send(messages []map[string]any) []string {
	f.t.Helper()
	ids, err := f.offer(messages)
	if err != nil {
		f.t.Fatal(err)
	}
	return ids
}

// offer is send while central may be killed: after an error the messages, all or none of them,
// may have been accepted all the same.
func (f *fleet) offer(messages []map[string]any) ([]string, error) {
	text, err := json.Marshal(messages)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", f.socket("central"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(text); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var answer struct{ Accepted []string }
	if err := json.Unmarshal(line, &answer); err != nil || len(answer.Accepted) != len(messages) {
		return nil, fmt.Errorf("%d messages, and the answer is %s", len(messages), line)
	}
	return answer.Accepted, nil
}

// lines returns the lines of a file below the home of a node, none when there is no file.
func (f *fleet) lines(node, path string) []string {
	b, err := os.ReadFile(filepath.Join(f.dir, node, path))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// TestStreamSurvivesKill kills one of the three processes again and again in a stream of
// 1,000 messages that each append a line to a file, and wants each line once and in order.
func TestStreamSurvivesKill(t *testing.T) {
	t.Parallel()
	const rounds, each = 5, 200
	for _, victim := range []string{"central", "ship1", "broker"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			for round := range rounds {
				var batch []map[string]any
				for i := range each {
					batch = append(batch, map[string]any{"toNode": "ship1", "method": "REQToFileAppend",
						"data": []string{strconv.Itoa(round*each + i)}, "directory": "numbers", "fileName": "all", "ACKTimeout": 1, "retries": 0})
				}
				f.send(batch)
				f.kill(victim)
				f.start(victim)
			}
			file := "var/numbers/central/all"
			f.until("all lines are there", func() bool { return len(f.lines("ship1", file)) >= rounds*each })
			for i, line := range f.lines("ship1", file) {
				if line != strconv.Itoa(i) {
					t.Fatalf("line %d is %q", i, line)
				}
			}
		})
	}
}

// TestKilledReceiverRunsNoCommandTwice kills the receiver while it runs commands that each
// append a number to a file. A command that was running is not run again, and its sender
// learns that; all others run once, and in order.
func TestKilledReceiverRunsNoCommandTwice(t *testing.T) {
	t.Parallel()
	const rounds, each = 5, 20
	f := newFleet(t)
	numbers := filepath.Join(f.dir, "numbers")
	ids := map[int]string{}
	for round := range rounds {
		var batch []map[string]any
		for i := range each {
			batch = append(batch, map[string]any{"toNode": "ship1", "method": "REQCliCommand",
				"data": []string{"sh", "-c", fmt.Sprintf("echo %d >> %s", round*each+i, numbers)}, "ACKTimeout": 1, "retries": 0,
				"replyACKTimeout": 1, "replyRetries": 0})
		}
		for i, id := range f.send(batch) {
			ids[round*each+i] = id
		}
		f.until("some commands have run", func() bool { return len(f.numbers(numbers)) > round*each/2 })
		f.kill("ship1")
		f.start("ship1")
	}
	// Commands run in order, and so do their replies: when that to a command which was sent after
	// the last one is written, the ends of all before it are on disk.
	for i, text := range []string{"last", "over"} {
		send := map[string]any{"toNode": "ship1", "method": "REQCliCommand", "data": []string{"echo", text}, "fileName": "last",
			"ACKTimeout": 1, "retries": 0, "replyACKTimeout": 1, "replyRetries": 0}
		f.send([]map[string]any{send})
		f.until("the last command has ended", func() bool { return slices.Equal(f.lines("central", "var/ship1/last"), []string{"last", "over"}[:i+1]) })
	}
	f.kill("central")

	ran := f.numbers(numbers)
	if !slices.IsSorted(ran) || len(slices.Compact(slices.Clone(ran))) != len(ran) {
		t.Fatalf("out of order or run twice: %v", ran)
	}
	life := f.lives()
	for i, id := range ids {
		life := life(id)
		// A command can be through when its node is killed, with its end not on disk yet.
		if interrupted := life.Code == message.CodeInterrupted; !interrupted && (life.State != message.StateDone || !slices.Contains(ran, i)) {
			t.Errorf("command %d: %s, %s %s", i, life.State, life.Code, life.Text)
		}
	}
}

// lives opens the store of central, which must not run, and returns what tells the life of a
// message that was accepted there. A message that is no longer in the history has no state.
func (f *fleet) lives() func(id string) kvstore.Life {
	f.t.Helper()
	store, err := kvstore.Open(kvstore.Options{Path: filepath.Join(f.dir, "central", "lib", "central.db"), Self: "central",
		MaxMessages: 1000, MaxBytes: 1 << 20})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = store.Close() })
	return func(text string) kvstore.Life {
		f.t.Helper()
		id, err := message.ParseID(text)
		if err != nil {
			f.t.Fatal(err)
		}
		life, err := store.Sent(id)
		if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
			f.t.Fatal(err)
		}
		return life
	}
}

// numbers reads a file of numbers, one a line.
func (f *fleet) numbers(path string) []int {
	b, _ := os.ReadFile(path)
	var ns []int
	for line := range strings.Lines(string(b)) {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			f.t.Fatalf("%s: %v", path, err)
		}
		ns = append(ns, n)
	}
	return ns
}
