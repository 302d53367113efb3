package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/message"
	"steward/methods"
	"steward/process"
)

// TestSoak runs a fleet for a while (make soak FOR=1h): central, three nodes and the broker as
// processes of their own, all other nodes in this one. Messages of all kinds go out all the
// time; broker and nodes are killed, links are cut. What is sampled on the way must not grow,
// and in the end all that was promised must have come.
func TestSoak(t *testing.T) {
	t.Parallel()
	long, nodes := 12*time.Second, 12
	if text := os.Getenv("STEWARD_SOAK"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		nodes = 50
	}
	s := newSoak(t, nodes, long)
	stop, done := signal.NotifyContext(s.ctx, os.Interrupt)
	defer done()
	began := time.Now()
	end := time.After(long)
	load, faults := time.NewTicker(250*time.Millisecond), time.NewTicker(max(2*time.Second, min(15*time.Second, long/20)))
	look := time.NewTicker(max(time.Second, min(30*time.Second, long/12)))
	defer load.Stop()
	defer faults.Stop()
	defer look.Stop()
	for {
		select {
		case <-load.C:
			s.load()
			continue
		case <-faults.C:
			s.fault()
			continue
		case <-look.C:
			s.sample(time.Since(began))
			continue
		case <-stop.Done():
			t.Logf("interrupted; nothing is judged: %d messages, %v", s.count, s.faults)
			return
		case <-end:
		}
		break
	}
	s.settle(stop)
	if stop.Err() != nil {
		t.Logf("interrupted; nothing is judged: %d messages, %v", s.count, s.faults)
		return
	}
	s.judge()
}

// soak is the fleet with all that is known of it.
type soak struct {
	*fleet
	rnd     *rand.Rand
	link    *link // of all nodes but central
	names   []string
	inside  map[string]*inside
	streams map[string]*soaked
	metrics string // address of central's metrics

	arrays, count int
	faults        map[string]int
	samples       []sample
	probed        map[string]time.Time // lines of pings that have not come back yet
	latencies     []time.Duration      // since the last sample
}

// soaked is what is sent to one node.
type soaked struct {
	appends, commands, aside, tail ledger
}

// inside is a node in this process.
type inside struct {
	cancel context.CancelFunc
	done   chan error
}

func newSoak(t *testing.T, nodes int, long time.Duration) *soak {
	metrics, err := new(ports).free()
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("%d nodes for %v with seed %d", nodes, long, seed)
	s := &soak{fleet: emptyFleet(t, long+5*time.Minute), rnd: rand.New(rand.NewPCG(seed, 0)), inside: map[string]*inside{}, streams: map[string]*soaked{},
		metrics: metrics, faults: map[string]int{}, probed: map[string]time.Time{}}
	s.apart = true
	s.link = newLink(t, s.broker)
	s.args = []string{"-startPubREQHello=5", "-logLevel=warn"}
	s.start("broker")
	for i := range nodes {
		name := fmt.Sprintf("ship%d", i)
		if i == 0 {
			name = "central"
		}
		s.streams[name] = &soaked{}
		s.names = append(s.names, name)
		if i > 3 {
			s.board(name)
			continue
		}
		if i > 0 {
			s.links[name] = s.link
		}
		s.startReal(name)
	}
	for _, name := range s.names[1:] {
		// Only what is written after a tail began counts.
		file := s.tailed(name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.send([]map[string]any{s.to(name, "REQTailFile", map[string]any{"data": []string{file}, "directory": "tails", "fileName": "lines", "methodTimeout": -1})})
	}
	for _, name := range s.names[1:] {
		s.until("the tail of "+name+" has begun", func() bool {
			s.logged(name)
			return len(s.lines("central", filepath.Join("var/tails", name, "lines"))) > 0
		})
	}
	return s
}

// startReal starts a process; central has its metrics on a port.
func (s *soak) startReal(name string) {
	all := s.args
	if name == "central" {
		s.args = append(slices.Clip(s.args), "-promHostAndPort="+s.metrics)
	}
	s.start(name)
	s.args = all
}

func (s *soak) tailed(name string) string { return filepath.Join(s.dir, name+".tailed") }

// logged writes the next line to the file that the tail of a node follows.
func (s *soak) logged(name string) {
	st := s.streams[name]
	f, err := os.OpenFile(s.tailed(name), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range st.tail.next(0, 1) {
		st.tail.sent[n].id = "a line of the tail"
		_, err = fmt.Fprintln(f, n)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// board starts a node in this process.
func (s *soak) board(name string) {
	registry, err := methods.Builtin()
	if err != nil {
		s.t.Fatal(err)
	}
	var known []config.Method
	for _, spec := range registry.All() {
		m := config.Method{Name: spec.Name}
		if spec.Access == process.AccessAll {
			m.Default = []string{"*"}
		}
		known = append(known, m)
	}
	dir := filepath.Join(s.dir, name)
	cfg, err := config.Load([]string{"-nodeName=" + name, "-brokerAddress=" + s.link.addr(), "-promHostAndPort=", "-reconnectWait=1", "-reconnectJitter=1",
		"-startPubREQHello=5", "-configFolder=" + dir + "/etc", "-socketFolder=" + dir + "/tmp", "-databaseFolder=" + dir + "/lib",
		"-subscribersDataFolder=" + dir + "/var"}, nil, known)
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := node.New(node.Options{Config: cfg, Registry: registry, Log: slog.New(slog.DiscardHandler), Stdout: io.Discard, Stderr: io.Discard, Version: "soak"})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	in := &inside{cancel: cancel, done: make(chan error, 1)}
	go func() { in.done <- errors.Join(n.Run(ctx), n.Close()) }()
	if s.inside[name] == nil {
		s.t.Cleanup(func() { s.ashore(name) })
	}
	s.inside[name] = in
}

// ashore stops a node in this process.
func (s *soak) ashore(name string) {
	in := s.inside[name]
	in.cancel()
	if err := <-in.done; err != nil {
		s.t.Errorf("%s: %v", name, err)
	}
	in.done <- nil // it may be asked again
}

func (s *soak) to(name, method string, more map[string]any) map[string]any {
	m := map[string]any{"toNode": name, "method": method, "ACKTimeout": 2, "retries": 0, "replyACKTimeout": 2, "replyRetries": 0, "methodTimeout": 60}
	for k, v := range more {
		m[k] = v
	}
	return m
}

// load hands in an array with messages of several kinds to some node.
func (s *soak) load() {
	name := s.names[1+s.rnd.IntN(len(s.names)-1)]
	st := s.streams[name]
	s.arrays++
	var messages []map[string]any
	var entries []*entry
	add := func(l *ledger, most int, make func(n string) map[string]any) {
		for _, n := range l.next(s.arrays, s.rnd.IntN(most+1)) {
			messages, entries = append(messages, make(strconv.Itoa(n))), append(entries, l.sent[n])
		}
	}
	add(&st.appends, 20, func(n string) map[string]any {
		return s.to(name, appends, map[string]any{"data": []string{n}, "directory": "soak", "fileName": "appends"})
	})
	add(&st.commands, 2, func(n string) map[string]any {
		return s.to(name, commands, map[string]any{"data": []string{"echo", n}, "fileName": "commands"})
	})
	add(&st.aside, 2, func(n string) map[string]any {
		return s.to(name, again, map[string]any{"data": []string{"sh", "-c", "sleep 0.1; echo " + n}, "fileName": "aside", "methodRetries": 1000})
	})
	if s.rnd.IntN(20) == 0 { // an error, which central gets to know
		messages = append(messages, s.to(name, commands, map[string]any{"data": []string{"false"}, "fileName": "errors"}))
	}
	if s.rnd.IntN(2) == 0 {
		probe := fmt.Sprintf("probe%d", s.arrays)
		s.probed[filepath.Join(s.dir, "central", "var", "probes", name, probe)] = time.Now()
		messages = append(messages, s.to(name, "REQPing", map[string]any{"directory": "probes", "fileName": probe}))
	}
	if s.rnd.IntN(4) == 0 {
		s.logged(name)
	}
	s.returned()
	if len(messages) == 0 {
		return
	}
	ids, err := s.offer(messages)
	if err != nil {
		s.t.Errorf("central refuses messages: %v", err)
	}
	s.count += len(ids)
	for i, e := range entries[:min(len(entries), len(ids))] {
		e.id = ids[i]
	}
}

// returned looks which pings have come back, to the precision of the load's interval.
func (s *soak) returned() {
	for path, at := range s.probed {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		s.latencies = append(s.latencies, info.ModTime().Sub(at))
		delete(s.probed, path)
		if err := os.Remove(path); err != nil {
			s.t.Error(err)
		}
	}
}

// fault kills or cuts something, and brings it back.
func (s *soak) fault() {
	count := func(what string) { s.faults[what]++ }
	switch s.rnd.IntN(6) {
	case 0:
		s.kill("broker")
		s.start("broker")
		count("kill broker")
	case 1:
		s.kill("central")
		s.startReal("central")
		count("kill central")
	case 2:
		name := s.names[1+s.rnd.IntN(3)]
		s.kill(name)
		s.start(name)
		count("kill node")
	case 3:
		name := s.names[4+s.rnd.IntN(len(s.names)-4)]
		s.ashore(name)
		s.board(name)
		count("restart node")
	case 4:
		s.link.cut()
		count("cut all links")
	case 5:
		s.link.hang(toBroker, toNode)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-s.ctx.Done():
		}
		s.link.resume()
		count("hang all links")
	}
}

// sample is what is looked at for growth. Where the system has no /proc, most of it is 0.
type sample struct {
	goroutines, descriptors, memory                      float64 // of this process: all nodes in it
	centralGoroutines, centralDescriptors, centralMemory float64
	file                                                 float64 // the store of central
}

var anonymous = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)

// resident returns the memory of a process in bytes that is not that of a file, which the
// system takes back when it needs it.
func resident(pid string) float64 {
	b, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if m := anonymous.FindSubmatch(b); m != nil {
		kb, _ := strconv.ParseFloat(string(m[1]), 64)
		return kb * 1024
	}
	return 0
}

func descriptors(pid string) float64 {
	list, _ := os.ReadDir(filepath.Join("/proc", pid, "fd"))
	return float64(len(list))
}

func (s *soak) sample(at time.Duration) {
	pid := strconv.Itoa(s.procs["central"].Process.Pid)
	now := sample{goroutines: float64(runtime.NumGoroutine()), descriptors: descriptors("self"), memory: resident("self"),
		centralGoroutines: s.goroutines(), centralDescriptors: descriptors(pid), centralMemory: resident(pid)}
	if info, err := os.Stat(filepath.Join(s.dir, "central", "lib", "central.db")); err == nil {
		now.file = float64(info.Size())
	}
	s.samples = append(s.samples, now)
	slices.Sort(s.latencies)
	var p50, p99 time.Duration
	if n := len(s.latencies); n > 0 {
		p50, p99 = s.latencies[n/2], s.latencies[n*99/100]
	}
	const mb = 1 << 20
	s.t.Logf("%v: %d messages, %d pings (p50 %v, p99 %v), %d on their way; central: %.0f goroutines, %.0f descriptors, %.1f MB, file %.1f MB; nodes in here: %.0f goroutines, %.0f descriptors, %.1f MB; %v",
		at.Round(time.Second), s.count, len(s.latencies), p50.Round(time.Millisecond), p99.Round(time.Millisecond), len(s.probed),
		now.centralGoroutines, now.centralDescriptors, now.centralMemory/mb, now.file/mb, now.goroutines, now.descriptors, now.memory/mb, s.faults)
	s.latencies = nil
}

var goGoroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)`)

// goroutines are those of central, 0 when it does not say.
func (s *soak) goroutines() float64 {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := client.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if m := goGoroutines.FindSubmatch(b); m != nil {
		n, _ := strconv.ParseFloat(string(m[1]), 64)
		return n
	}
	return 0
}

// settle waits until all that was accepted has ended, or somebody has lost patience.
func (s *soak) settle(stop context.Context) {
	wait, cancel := context.WithTimeout(stop, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	// The lines of commands come in order, so that of the last one is the end of all.
	lasts := map[string]bool{}
	for _, name := range s.names[1:] {
		st := s.streams[name]
		n := st.commands.next(-1, 1)[0]
		st.commands.sent[n].id = s.send([]map[string]any{s.to(name, commands, map[string]any{"data": []string{"echo", strconv.Itoa(n)}, "fileName": "commands"})})[0]
		lasts[name] = true
	}
	for len(lasts)+len(s.probed) > 0 {
		select {
		case <-wait.Done():
			return // judge says what is missing
		case <-tick.C:
		}
		s.returned()
		for name := range lasts {
			if s.complete(name, func(int, string) error { return nil }) == nil {
				delete(lasts, name)
			}
		}
	}
}

// complete says what is missing or wrong in what came from and to a node.
func (s *soak) complete(name string, excused func(int, string) error) error {
	st := s.streams[name]
	replies := s.lines("central", filepath.Join("var", name, "commands"))
	var err error
	if last := strconv.Itoa(len(st.commands.sent) - 1); len(replies) == 0 || replies[len(replies)-1] != last {
		err = fmt.Errorf("command %s has not answered", last)
	}
	for _, part := range []struct {
		what           string
		l              *ledger
		lines          []string
		inOrder, whole bool
		excused        func(int, string) error
	}{
		{"appends", &st.appends, s.lines(name, "var/soak/central/appends"), true, true, nil},
		{"commands", &st.commands, replies, true, false, excused},
		{"commands run again", &st.aside, s.lines("central", filepath.Join("var", name, "aside")), false, true, nil},
	} {
		if e := part.l.check(part.lines, part.inOrder, part.whole, part.excused); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", part.what, e))
		}
	}
	// A tail counts from its first line on: those before it were written before it began.
	tail := s.lines("central", filepath.Join("var/tails", name, "lines"))
	for i, line := range tail {
		if first, _ := strconv.Atoi(tail[0]); line != strconv.Itoa(first+i) {
			return errors.Join(err, fmt.Errorf("line %d of the tail is %q, and the first %d", i, line, first))
		}
	}
	if last := strconv.Itoa(len(st.tail.sent) - 1); len(tail) == 0 || tail[len(tail)-1] != last {
		err = errors.Join(err, fmt.Errorf("the last line of the tail is not %s", last))
	}
	return err
}

// judge looks at all promises.
func (s *soak) judge() {
	for _, name := range s.names[:4] {
		if !answers(s.socket(name)) {
			s.t.Errorf("%s does not answer", name)
		}
	}
	if len(s.probed) > 0 {
		s.t.Errorf("%d pings have not been answered", len(s.probed))
	}
	s.kill("central")
	life, interrupted, forgotten := s.lives(), 0, 0
	for _, name := range s.names[1:] {
		err := s.complete(name, func(_ int, id string) error {
			l := life(id)
			switch {
			case l.State == message.StateFailed && l.Code == message.CodeInterrupted:
				interrupted++
				return nil
			case l.State == "": // the history is bounded
				forgotten++
				return nil
			}
			return fmt.Errorf("%s, %s %s", l.State, l.Code, l.Text)
		})
		if err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	}
	s.grown()
	// More cannot be missing than were running, one a stream, when their nodes ended.
	if most := (s.faults["kill node"] + s.faults["restart node"]); interrupted+forgotten > most {
		s.t.Errorf("%d commands interrupted and %d without a reply, with %d nodes that went down", interrupted, forgotten, most)
	}
	s.t.Logf("%d messages to %d nodes, %d commands interrupted, %d forgotten, %v", s.count, len(s.names)-1, interrupted, forgotten, s.faults)
}

// grown compares the first and the last third of the samples. What may differ by chance, or
// because a buffer or a history is still being filled, is allowed for.
func (s *soak) grown() {
	const mb = 1 << 20
	for _, what := range []struct {
		name  string
		of    func(sample) float64
		slack float64
	}{
		{"goroutines here", func(s sample) float64 { return s.goroutines }, 500},
		{"descriptors here", func(s sample) float64 { return s.descriptors }, 200},
		{"memory here", func(s sample) float64 { return s.memory }, 200 * mb},
		{"goroutines of central", func(s sample) float64 { return s.centralGoroutines }, 200},
		{"descriptors of central", func(s sample) float64 { return s.centralDescriptors }, 50},
		{"memory of central", func(s sample) float64 { return s.centralMemory }, 64 * mb},
		// The history keeps some hundred bytes of each message, and half of a page may be empty.
		{"file of central", func(s sample) float64 { return s.file }, 16*mb + 2048*float64(s.count)},
	} {
		third := len(s.samples) / 3
		if third == 0 {
			s.t.Error("too few samples to say whether anything grows")
			return
		}
		first, last := median(s.samples[:third], what.of), median(s.samples[len(s.samples)-third:], what.of)
		if last > 1.5*first+what.slack {
			s.t.Errorf("%s: %.0f in the first third and %.0f in the last", what.name, first, last)
		}
	}
}

func median(samples []sample, of func(sample) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
