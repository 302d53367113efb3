package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"steward/internal/certtest"
)

// world is what one script has running. It belongs to the goroutine of the script.
type world struct {
	dir      string
	broker   string // host:port
	deadline time.Time
	tty      *terminal        // the one that was opened last
	procs    map[string]*proc // by name, also when they have ended
	// authority signs the certificates of the script; nil before the first.
	authority *certtest.Authority
}

type worldKey struct{}

func theWorld(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

const (
	// patience is how long a script waits for anything, if it does not say. It is far more
	// than anything takes: a slow machine is no failure.
	patience   = 30 * time.Second
	brokerName = "the broker"
)

// await looks again and again until cond holds, and reports whether it did in time.
func (w *world) await(limit time.Duration, cond func() bool) bool {
	limit = min(limit, time.Until(w.deadline)-10*time.Second)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-timeout.C:
			return cond()
		}
	}
	return true
}

// proc is a node or a broker.
type proc struct {
	w    *world
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (w *world) proc(ts *testscript.TestScript, name string) *proc {
	p := w.procs[name]
	if p == nil {
		ts.Fatalf("%s was not started", name)
	}
	return p
}

// start runs one of the programs of the test binary in dir, with its output in files there.
func (w *world) start(ts *testscript.TestScript, name, dir, program string, args ...string) *proc {
	if p := w.procs[name]; p != nil && !p.ended() {
		ts.Fatalf("%s is running", name)
	}
	ts.Check(os.MkdirAll(dir, 0o700))
	path, err := exec.LookPath(program)
	ts.Check(err)
	p := &proc{w: w, name: name, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = []string{"PWD=" + dir}
	known := []string{"PATH", "HOME", "TMPDIR", "GORACE", "GOCOVERDIR", "CONFIGFOLDER", "CONFIG_FOLDER", "STEWARD_BROKER_ADDRESS", "STEWARD_NODE_NAME",
		"STEWARD_ROOT_CA_PATH", "STEWARD_NKEY_SEED_FILE", "HTTP_PROXY"}
	for _, v := range nodeEnv {
		name, _, _ := strings.Cut(v, "=")
		known = append(known, name)
	}
	for _, name := range known {
		if v := ts.Getenv(name); v != "" || slices.Contains(nodeEnv, name+"=") {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	var files []*os.File
	for _, stream := range []string{"stdout", "stderr"} {
		f, err := os.OpenFile(filepath.Join(dir, stream), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		files = append(files, f)
	}
	p.cmd.Stdout, p.cmd.Stderr = files[0], files[1]
	err = p.cmd.Start()
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	ts.Check(err)
	w.procs[name] = p
	go func() {
		_ = p.cmd.Wait() // the state says it
		close(p.done)
	}()
	return p
}

func (w *world) startNode(ts *testscript.TestScript, name string, args []string) {
	named := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(strings.TrimLeft(a, "-"), "node") })
	if !named && ts.Getenv("STEWARD_NODE_NAME") == "" {
		args = append([]string{"-nodeName=" + name}, args...)
	}
	p := w.start(ts, name, filepath.Join(w.dir, name), "steward", args...)
	socket := filepath.Join(w.dir, name, "tmp", "steward.sock")
	up := w.await(patience, func() bool { return answers(socket) || p.ended() })
	if !up || p.ended() {
		ts.Fatalf("%s did not open its socket: %v\n%s", name, p.state(), p.stderr())
	}
}

// answers reports whether a unix socket takes connections.
func answers(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func (w *world) startBroker(ts *testscript.TestScript, config ...string) {
	dir := filepath.Join(w.dir, ".broker")
	ts.Check(os.RemoveAll(dir))
	p := w.start(ts, brokerName, dir, "broker", append([]string{w.broker}, config...)...)
	up := w.await(patience, func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "stdout"))
		return strings.HasSuffix(string(b), "\n") || p.ended()
	})
	if !up || p.ended() {
		ts.Fatalf("the broker does not listen on %s: %v\n%s", w.broker, p.state(), p.stderr())
	}
}

func (p *proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// state says in a word how it ended: the exit status, or the name of the signal.
func (p *proc) state() string {
	if !p.ended() {
		return "running"
	}
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal().String()
	}
	return strconv.Itoa(p.cmd.ProcessState.ExitCode())
}

func (p *proc) stderr() string {
	b, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "stderr"))
	return string(b[max(0, len(b)-10_000):])
}

func (p *proc) signal(ts *testscript.TestScript, name string) {
	sig, ok := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill, "HUP": syscall.SIGHUP}[name]
	if !ok {
		ts.Fatalf("no signal %s", name)
	}
	if p.ended() {
		ts.Fatalf("%s has ended: %s\n%s", p.name, p.state(), p.stderr())
	}
	ts.Check(p.cmd.Process.Signal(sig))
}

func (p *proc) exited(ts *testscript.TestScript, want string) {
	if !p.w.await(patience, p.ended) {
		ts.Fatalf("%s does not end", p.name)
	}
	if got := p.state(); got != want {
		ts.Fatalf("%s ended with %s, want %s\n%s", p.name, got, want, p.stderr())
	}
}

// end kills what still runs, and shows what nodes had to say when the script has failed.
func (w *world) end(t testscript.T) {
	failed := false
	if f, ok := t.(interface{ Failed() bool }); ok {
		failed = f.Failed()
	}
	names := slices.Sorted(maps.Keys(w.procs))
	slices.SortFunc(names, func(a, b string) int { // the broker last, so that nobody misses it
		return cmp.Compare(strings.Index(a, brokerName), strings.Index(b, brokerName))
	})
	for _, name := range names {
		p := w.procs[name]
		if !p.ended() {
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		if failed {
			t.Log(fmt.Sprintf("stderr of %s:\n%s", name, p.stderr()))
		}
	}
}

func pidIn(ts *testscript.TestScript, file string) int {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(file)))
	ts.Check(err)
	return pid
}
