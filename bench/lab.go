package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lab is where one run of a scenario takes place: a folder, and the processes in it. It belongs to
// the goroutine of the scenario.
type lab struct {
	*settings
	ctx   context.Context
	first bool // the first run
	dir   string
	procs []*proc
}

// patience is how long anything is waited for: far more than it takes.
const patience = 5 * time.Minute

func newLab(ctx context.Context, s *settings, first bool) (*lab, error) {
	// Not os.TempDir with a long name: the path of a unix socket ends at about 100 bytes.
	dir, err := os.MkdirTemp("", "steward-bench-")
	if err != nil {
		return nil, err
	}
	return &lab{settings: s, ctx: ctx, first: first, dir: dir}, nil
}

// close kills what still runs, and takes the folder away.
func (l *lab) close() error {
	for i := len(l.procs) - 1; i >= 0; i-- {
		l.procs[i].kill()
	}
	if l.keep {
		fmt.Fprintf(l.log, "its files are in %s\n", l.dir)
		return nil
	}
	return os.RemoveAll(l.dir)
}

// complaints are the last lines that the processes had to say.
func (l *lab) complaints() string {
	var b strings.Builder
	for _, p := range l.procs {
		if text, _ := os.ReadFile(p.log); len(text) > 0 {
			fmt.Fprintf(&b, "\nlog of %s:\n%s", p.name, text[max(0, len(text)-2000):])
		}
	}
	return b.String()
}

// proc is a process of the lab.
type proc struct {
	name string
	cmd  *exec.Cmd
	home string
	log  string // file with its output
	done chan struct{}
}

// start runs a program in a folder of its own, which another process of that name may have had before.
func (l *lab) start(name, program string, args ...string) (*proc, error) {
	return l.startReading(nil, name, program, args...)
}

// startReading is start for a program that reads from stdin, which is closed when it returns.
func (l *lab) startReading(stdin *os.File, name, program string, args ...string) (*proc, error) {
	p := &proc{name: name, home: filepath.Join(l.dir, name), done: make(chan struct{})}
	p.log = filepath.Join(p.home, "log")
	if err := os.MkdirAll(p.home, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.home, log, log
	if stdin != nil {
		p.cmd.Stdin = stdin
		defer stdin.Close()
	}
	// Nothing of the caller's environment configures a node.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "TMPDIR=" + l.dir}
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	l.procs = append(l.procs, p)
	go func() {
		_ = p.cmd.Wait() // nobody asks how it ended
		close(p.done)
	}()
	return p, nil
}

func (p *proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *proc) pid() int { return p.cmd.Process.Pid }

func (p *proc) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// stop ends a process in order.
func (l *lab) stop(p *proc) error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		return fmt.Errorf("%s does not end", p.name)
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
	l.forget(p)
	return nil
}

// forget leaves out a process that has ended, and was meant to.
func (l *lab) forget(p *proc) {
	l.procs = slices.DeleteFunc(l.procs, func(q *proc) bool { return p == q })
}

// await looks every millisecond until cond holds.
func (l *lab) await(what string, cond func() bool) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-timeout.C:
			return fmt.Errorf("after %v: not %s", patience, what)
		}
		for _, p := range l.procs {
			if p.ended() {
				return fmt.Errorf("%s ended, before %s", p.name, what)
			}
		}
	}
	return nil
}

// pause lets time pass.
func (l *lab) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// brokerProc is a nats-server in a process of its own.
type brokerProc struct {
	*proc
	addr    string
	monitor string // host:port of its statistics
}

// broker starts the broker of the nodes, as -embeddedBroker would, or a nats-server with JetStream.
func (l *lab) broker(role string) (*brokerProc, error) {
	b := &brokerProc{}
	var err error
	if b.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if b.monitor, err = freeAddr(); err != nil {
		return nil, err
	}
	return b, l.startBroker(b, role)
}

func (l *lab) startBroker(b *brokerProc, role string) (err error) {
	if b.proc, err = l.start(role, l.self, role, b.addr, b.monitor); err != nil {
		return err
	}
	return l.await("the broker listens", func() bool { return dials("tcp", b.addr) })
}

// nodeProc is a node in a process of its own.
type nodeProc struct {
	*proc
	socket, metrics, pprof string
}

// node starts a node and returns when it takes messages.
func (l *lab) node(name, broker string, args ...string) (*nodeProc, error) {
	return l.nodeOf(l.steward, name, broker, args...)
}

// nodeOf is node for another build of the program.
func (l *lab) nodeOf(program, name, broker string, args ...string) (*nodeProc, error) {
	n := &nodeProc{socket: filepath.Join(l.dir, name, "tmp", "steward.sock")}
	var err error
	if n.metrics, err = freeAddr(); err != nil {
		return nil, err
	}
	args = append([]string{"-nodeName=" + name, "-brokerAddress=" + broker, "-promHostAndPort=" + n.metrics, "-logLevel=warn",
		"-reconnectWait=1", "-reconnectJitter=0"}, args...)
	if l.profiled() {
		if n.pprof, err = freeAddr(); err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(n.pprof)
		args = append(args, "-profilingPort="+port)
	}
	if n.proc, err = l.start(name, program, args...); err != nil {
		return nil, err
	}
	return n, l.await(name+" takes messages", func() bool { return dials("unix", n.socket) })
}

// pair starts a broker, central and ship1, all connected.
func (l *lab) pair() (b *brokerProc, central, ship *nodeProc, err error) {
	if b, err = l.broker("broker"); err != nil {
		return
	}
	if central, err = l.node("central", b.addr); err != nil {
		return
	}
	if ship, err = l.node("ship1", b.addr); err != nil {
		return
	}
	err = errors.Join(l.connected(central), l.connected(ship))
	return
}

// connected waits until a node has a link to its broker.
func (l *lab) connected(n *nodeProc) error {
	return l.await(n.name+" is connected", func() bool {
		m, err := scrape(n.metrics)
		return err == nil && m["steward_broker_connected"] == 1
	})
}

// file is where a node stores what central had appended.
func (n *nodeProc) file(from, name string) string {
	return filepath.Join(n.home, "var", directory, from, name)
}

func dials(network, addr string) bool {
	conn, err := net.Dial(network, addr)
	return err == nil && conn.Close() == nil
}

// freeAddr is an address on loopback that nobody listens on. Its port is below those that the system
// hands to outgoing connections: one of them could take it while a broker is restarted.
func freeAddr() (addr string, err error) {
	for range 50 {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(5_000+rand.IntN(5_000)))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}

// client keeps no connections: what it asks comes and goes.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func fetch(url string) ([]byte, error) {
	res, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return b, err
}

// scrape reads the metrics of a node; those with labels are added up.
func scrape(addr string) (map[string]float64, error) {
	b, err := fetch("http://" + addr + "/metrics")
	if err != nil {
		return nil, err
	}
	m := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(line[:i], "{")
		m[name] += v
	}
	return m, nil
}
