package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"github.com/rogpeppe/go-internal/testscript"
)

// tty runs a program of the test binary on a terminal of its own. Of its verbs, those that look at the screen wait
// until it is as they say.
//
//	tty open COLUMNSxLINES PROGRAM [ARG...]   as TERM says, or an xterm
//	tty shows REGEXP        a line of the screen holds that
//	tty hides REGEXP        none does
//	tty types TEXT...       writes each as if it was typed; ENTER, CTRL-C and ESC are those keys
//	tty resize COLUMNSxLINES
//	tty exits STATUS        waits for the end
func tty(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) > 1, "tty open|shows|hides|types|resize|exits ARG...")
	w := theWorld(ts)
	if args[0] == "open" {
		need(ts, len(args) > 2, "tty open COLUMNSxLINES PROGRAM [ARG...]")
		w.tty = openTerminal(ts, args[1], args[2], args[3:])
		return
	}
	t := w.tty
	if t == nil {
		ts.Fatalf("no terminal was opened")
	}
	switch args[0] {
	case "shows", "hides":
		re, err := regexp.Compile(args[1])
		ts.Check(err)
		shows := func() bool {
			for line := range strings.Lines(t.text()) {
				if re.MatchString(strings.TrimRight(line, " \n")) {
					return true
				}
			}
			return false
		}
		if !w.await(patience, func() bool { return shows() == (args[0] == "shows") }) {
			ts.Fatalf("that is not so; the screen:\n%s", t.text())
		}
	case "types":
		for _, text := range args[1:] {
			if key, ok := map[string]string{"ENTER": "\r", "CTRL-C": "\x03", "ESC": "\x1b"}[text]; ok {
				text = key
			}
			_, err := io.WriteString(t.master, text)
			ts.Check(err)
		}
	case "resize":
		size := sizeOf(ts, args[1])
		t.mu.Lock()
		t.screen.Resize(int(size.Cols), int(size.Rows))
		t.mu.Unlock()
		ts.Check(pty.Setsize(t.master, size))
	case "exits":
		if !w.await(patience, t.ended) {
			ts.Fatalf("it does not end; the screen:\n%s", t.text())
		}
		if got := fmt.Sprint(t.cmd.ProcessState.ExitCode()); got != args[1] {
			ts.Fatalf("exit status %s, want %s; the screen:\n%s", got, args[1], t.text())
		}
	default:
		ts.Fatalf("tty does not know %s", args[0])
	}
}

// terminal is a terminal with a program on it.
type terminal struct {
	master *os.File
	cmd    *exec.Cmd
	over   chan struct{} // closed when the program has ended, and all that it wrote was read

	mu     sync.Mutex // guards screen
	screen vt10x.Terminal
}

func openTerminal(ts *testscript.TestScript, size, program string, args []string) *terminal {
	path, err := exec.LookPath(program)
	ts.Check(err)
	ws := sizeOf(ts, size)
	t := &terminal{cmd: exec.Command(path, args...), over: make(chan struct{}), screen: vt10x.New(vt10x.WithSize(int(ws.Cols), int(ws.Rows)))}
	t.cmd.Dir = ts.MkAbs(".")
	t.cmd.Env = append(os.Environ(), nodeEnv...)
	t.cmd.Env = append(t.cmd.Env, "TERM="+cmp.Or(ts.Getenv("TERM"), "xterm"), "STEWARD_BROKER_ADDRESS="+ts.Getenv("STEWARD_BROKER_ADDRESS"))
	t.master, err = pty.StartWithSize(t.cmd, ws)
	ts.Check(err)
	go func() {
		defer close(t.over)
		buf := make([]byte, 4096)
		for {
			n, err := t.master.Read(buf)
			t.mu.Lock()
			_, _ = t.screen.Write(buf[:n]) // it cannot fail
			t.mu.Unlock()
			if err != nil { // of the other side being closed, too
				break
			}
		}
		_ = t.cmd.Wait() // the state says it
	}()
	ts.Defer(func() {
		if !t.ended() {
			_ = t.cmd.Process.Kill()
		}
		<-t.over
		_ = t.master.Close()
	})
	return t
}

func (t *terminal) ended() bool {
	select {
	case <-t.over:
		return true
	default:
		return false
	}
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

func sizeOf(ts *testscript.TestScript, text string) *pty.Winsize {
	var ws pty.Winsize
	if _, err := fmt.Sscanf(text, "%dx%d", &ws.Cols, &ws.Rows); err != nil {
		ts.Check(errors.Join(errors.New("want COLUMNSxLINES"), err))
	}
	return &ws
}
