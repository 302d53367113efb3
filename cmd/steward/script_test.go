package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"

	"steward/internal/certtest"
	"steward/kvstore"
	"steward/message"
)

// TestScripts runs the scripts of testdata/script. Each has a folder of its own in which its
// nodes live, and a port of its own for its broker. Besides what testscript knows, scripts
// use the commands in scriptCommands, and find in their environment
//
//	DOC      the folder doc of this repository
//	EXAMPLE  the folder example, too
//	SEED     the messages of the first documents, as they stand there
//	NEWLINE  the character
//	BROKER   host:port of the broker of this script, running or not
//	PORT     a port of 127.0.0.1 that nobody else uses
func TestScripts(t *testing.T) {
	// A program that hangs is not waited for as long as go test would.
	deadline := time.Now().Add(5 * time.Minute)
	if end, ok := t.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	var ports ports
	testscript.Run(t, testscript.Params{
		Dir:         filepath.Join("testdata", "script"),
		WorkdirRoot: shortDir(t),
		Deadline:    deadline,
		Setup: func(env *testscript.Env) error {
			w := &world{dir: env.WorkDir, deadline: deadline, procs: map[string]*proc{}}
			env.Values[worldKey{}] = w
			env.Defer(func() { w.end(env.T()) })
			var err error
			if w.broker, err = ports.free(); err != nil {
				return err
			}
			for name, folder := range map[string]string{"DOC": "../../doc", "EXAMPLE": exampleDir, "SEED": seedDir} {
				if folder, err = filepath.Abs(folder); err != nil {
					return err
				}
				env.Setenv(name, folder)
			}
			env.Setenv("NEWLINE", "\n")
			env.Setenv("BROKER", w.broker)
			extra, err := ports.free()
			if err != nil {
				return err
			}
			env.Setenv("PORT", strings.TrimPrefix(extra, "127.0.0.1:"))
			env.Vars = append(env.Vars, nodeEnv...)
			env.Vars = append(env.Vars, "STEWARD_BROKER_ADDRESS="+w.broker)
			return nil
		},
		Cmds: scriptCommands,
		Condition: func(cond string) (bool, error) {
			if cond == "root" { // whom no mode of a folder stops
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// A script that ends early, and so passes whatever stands behind that, is a mistake: testscript
// has commands for it with names that are easily mistaken for others.
func TestScriptsRunToTheirEnd(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %v, %v", scripts, err)
	}
	early := regexp.MustCompile(`^(\[[^]]*\] *)*(stop|skip)\b`)
	for _, path := range scripts {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(archive.Comment), "\n") {
			if early.MatchString(strings.TrimSpace(line)) {
				t.Errorf("%s:%d: %s", path, i+1, line)
			}
		}
	}
}

// scriptCommands are the commands of scripts; "!" is understood where it says so.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// start NAME [FLAG...]: starts a node in $WORK/NAME, which has its four folders, and waits
	// until its socket takes connections. Its output is in NAME/stdout and NAME/stderr.
	"start": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) > 0, "start NAME [FLAG...]")
		theWorld(ts).startNode(ts, args[0], args[1:])
	},
	// term NAME: SIGTERM; the node has to end with exit status 0. (stop would end the script.)
	"term": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "term NAME")
		p := theWorld(ts).proc(ts, args[0])
		p.signal(ts, "TERM")
		p.exited(ts, "0")
	},
	// kill9 NAME: SIGKILL.
	"kill9": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "kill9 NAME")
		p := theWorld(ts).proc(ts, args[0])
		p.signal(ts, "KILL")
		p.exited(ts, "killed")
	},
	// nag NAME sends it TERM again and again until it has ended.
	"nag": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "nag NAME")
		w := theWorld(ts)
		p := w.proc(ts, args[0])
		w.await(patience, func() bool {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			return p.ended()
		})
	},
	// signal INT|TERM|KILL|HUP NAME
	"signal": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "signal INT|TERM|KILL|HUP NAME")
		theWorld(ts).proc(ts, args[1]).signal(ts, args[0])
	},
	// exited NAME STATUS: waits for the end of a node and compares its exit status, which is
	// "terminated", "interrupt" or "killed" when it was a signal that ended it.
	"exited": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "exited NAME STATUS")
		theWorld(ts).proc(ts, args[0]).exited(ts, args[1])
	},
	// running NAME: the node has not ended.
	"running": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "running NAME")
		if p := theWorld(ts).proc(ts, args[0]); p.ended() {
			ts.Fatalf("%s has ended: %v", args[0], p.state())
		}
	},
	// nats start|stop|kill|restart [CONFIG]: the broker of the script, on the same port always, with
	// a configuration of its own where one is given. (broker is the program that this runs.)
	"nats": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && (len(args) == 1 || len(args) == 2), "nats start|stop|kill|restart [CONFIG]")
		w := theWorld(ts)
		if args[0] != "start" {
			p := w.proc(ts, brokerName)
			if args[0] == "kill" {
				p.signal(ts, "KILL")
				p.exited(ts, "killed")
			} else {
				p.signal(ts, "TERM")
				p.exited(ts, "0")
			}
		}
		if args[0] == "start" || args[0] == "restart" {
			var config []string
			for _, file := range args[1:] {
				config = append(config, ts.MkAbs(file))
			}
			w.startBroker(ts, config...)
		}
	},
	// nkey SEEDFILE NAME: makes a key; its seed goes into the file, its public half into the environment.
	"nkey": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "nkey SEEDFILE NAME")
		user, err := nkeys.CreateUser()
		ts.Check(err)
		seed, err := user.Seed()
		ts.Check(err)
		public, err := user.PublicKey()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), seed, 0o600))
		ts.Setenv(args[1], public)
	},
	// cert NAME: makes NAME.crt and NAME.key, which an authority of the script, in ca.pem, has signed.
	"cert": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "cert NAME")
		w := theWorld(ts)
		var err error
		if w.authority == nil {
			w.authority, err = certtest.New(w.dir)
			ts.Check(err)
		}
		_, _, err = w.authority.Issue(args[0])
		ts.Check(err)
	},
	// waitfor [-in DURATION] FILE TEXT [N]: waits until the file holds the text, N times or more.
	// With @FILE it is the file whose name is in that one.
	"waitfor": func(ts *testscript.TestScript, neg bool, args []string) {
		limit := patience
		if len(args) > 2 && args[0] == "-in" {
			var err error
			limit, err = time.ParseDuration(args[1])
			ts.Check(err)
			args = args[2:]
		}
		need(ts, !neg && (len(args) == 2 || len(args) == 3), "waitfor [-in DURATION] FILE TEXT [N]")
		file := args[0]
		if place, ok := strings.CutPrefix(file, "@"); ok {
			file = ts.ReadFile(place)
		}
		n := 1
		if len(args) == 3 {
			var err error
			n, err = strconv.Atoi(args[2])
			ts.Check(err)
		}
		var b []byte
		found := theWorld(ts).await(limit, func() bool {
			b, _ = os.ReadFile(ts.MkAbs(file))
			return strings.Count(string(b), args[1]) >= n
		})
		if !found {
			ts.Fatalf("%s does not hold %q %d times after %v; it holds %d bytes, which end with:\n%s",
				file, args[1], n, limit, len(b), b[max(0, len(b)-2000):])
		}
	},
	// waitabsent FILE: waits until there is no such file.
	"waitabsent": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "waitabsent FILE")
		gone := theWorld(ts).await(patience, func() bool {
			_, err := os.Lstat(ts.MkAbs(args[0]))
			return errors.Is(err, fs.ErrNotExist)
		})
		if !gone {
			ts.Fatalf("%s is still there", args[0])
		}
	},
	// waitsocket PATH: waits until a socket takes connections.
	"waitsocket": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "waitsocket PATH")
		if !theWorld(ts).await(patience, func() bool { return answers(ts.MkAbs(args[0])) }) {
			ts.Fatalf("no socket on %s", args[0])
		}
	},
	// waitgone PIDFILE: waits until the process whose number is in the file is no more.
	"waitgone": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "waitgone PIDFILE")
		pid := pidIn(ts, args[0])
		if !theWorld(ts).await(patience, func() bool { return !alive(pid) }) {
			ts.Fatalf("process %d still runs", pid)
		}
	},
	// [!] alive PIDFILE: the process whose number is in the file runs.
	"alive": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, len(args) == 1, "alive PIDFILE")
		if pid := pidIn(ts, args[0]); alive(pid) == neg {
			ts.Fatalf("process %d: alive is %v", pid, !neg)
		}
	},
	// killgroup PIDFILE: SIGKILL to the process group that the process leads.
	"killgroup": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "killgroup PIDFILE")
		ts.Check(killGroup(pidIn(ts, args[0])))
	},
	// code STATUS PROGRAM [ARG...]: runs a program and compares its exit status.
	"code": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) > 1, "code STATUS PROGRAM [ARG...]")
		got := 0
		var exit *exec.ExitError
		if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			ts.Fatalf("%v", err)
		}
		if strconv.Itoa(got) != args[0] {
			ts.Fatalf("exit status %d, want %s", got, args[0])
		}
	},
	// deadletters NAME: prints what a node, which must not run, has given up.
	"deadletters": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "deadletters NAME")
		withStore(ts, args[0], func(s *kvstore.Store) error {
			return s.DeadLetters(func(d kvstore.DeadLetter) bool {
				fmt.Fprintf(ts.Stdout(), "id=%s to=%s method=%s code=%s attempts=%d data=%q text=%q\n",
					d.Message.ID, d.Message.To, d.Message.Method, d.Code, d.Attempts, d.Message.Data, d.Text)
				return true
			})
		})
	},
	// lives NAME FILE: prints what a node, which must not run, knows of the messages that it has
	// accepted with the answer in FILE.
	"lives": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "lives NAME FILE")
		var answer struct {
			Accepted []message.ID `json:"accepted"`
		}
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &answer))
		withStore(ts, args[0], func(s *kvstore.Store) error {
			for _, id := range answer.Accepted {
				l, err := s.Sent(id)
				if err != nil {
					return err
				}
				fmt.Fprintf(ts.Stdout(), "id=%s to=%s method=%s state=%s code=%s text=%q\n", id, l.Peer, l.Method, l.State, l.Code, l.Text)
			}
			return nil
		})
	},
	// random FILE SIZE: writes that many bytes without a meaning, the same ones always.
	"random": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "random FILE SIZE")
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
	},
	// tmpfs DIR SIZE: mounts a small disk on a new folder, until the script ends. It needs root.
	"tmpfs": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "tmpfs DIR SIZE")
		dir := ts.MkAbs(args[0])
		ts.Check(os.MkdirAll(dir, 0o700))
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=700,size="+args[1], "tmpfs", dir).CombinedOutput(); err != nil {
			ts.Fatalf("mount: %v: %s", err, out)
		}
		// The nodes that use it are ended after that.
		ts.Defer(func() { _ = exec.Command("umount", "-l", dir).Run() })
	},
	// fill FILE: writes until the disk is full.
	"fill": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 1, "fill FILE")
		f, err := os.Create(ts.MkAbs(args[0]))
		ts.Check(err)
		page := make([]byte, 4096)
		for err == nil {
			_, err = f.Write(page)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			ts.Fatalf("fill: %v", err)
		}
		ts.Check(f.Close())
	},
	// hold N PATH: opens N connections to a socket and keeps them open until the script ends.
	"hold": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 2, "hold N PATH")
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		for range n {
			conn, err := net.Dial("unix", ts.MkAbs(args[1]))
			ts.Check(err)
			ts.Defer(func() { _ = conn.Close() })
		}
	},
	// web: a web server, and a proxy; its address is in WEB.
	"tty": tty,
	"web": web,
	// line FILE FORMAT FROM TO: appends a line for each number, with N in the format replaced.
	"line": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, !neg && len(args) == 4, "line FILE FORMAT FROM TO")
		from, err := strconv.Atoi(args[2])
		ts.Check(err)
		to, err := strconv.Atoi(args[3])
		ts.Check(err)
		var b strings.Builder
		for i := from; i <= to; i++ {
			b.WriteString(strings.ReplaceAll(args[1], "%N", strconv.Itoa(i)) + "\n")
		}
		f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		_, err = f.WriteString(b.String())
		ts.Check(errors.Join(err, f.Close()))
	},
}

// withStore opens the store of a node, which must not run.
func withStore(ts *testscript.TestScript, name string, look func(*kvstore.Store) error) {
	w := theWorld(ts)
	if p := w.procs[name]; p != nil && !p.ended() {
		ts.Fatalf("%s is running and has its store open", name)
	}
	s, err := kvstore.Open(kvstore.Options{Path: filepath.Join(w.dir, name, "lib", name+".db"),
		Self: message.Node(name), MaxMessages: 1, MaxBytes: 1})
	ts.Check(err)
	ts.Check(errors.Join(look(s), s.Close()))
}

func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// ports hands out addresses on loopback, none twice.
type ports struct {
	mu   sync.Mutex
	used []int
}

// free returns an address that nobody listens on. Its port is below those that the system
// hands to outgoing connections, so that none of them takes it while the broker is away.
func (p *ports) free() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if slices.Contains(p.used, port) {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		p.used = append(p.used, port)
		return addr, l.Close()
	}
	return "", errors.New("no free port")
}
