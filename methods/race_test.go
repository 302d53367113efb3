//go:build unix

package methods_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"steward/message"
	"steward/process"
)

// swaps makes a folder a symbolic link to elsewhere and a folder again, in turn.
type swaps struct {
	tried    chan struct{} // one call is over
	over     chan struct{}
	all      sync.WaitGroup
	ok, fail int // calls that were carried out, and that were refused
}

func swapping(t *testing.T, name, elsewhere string) *swaps {
	t.Helper()
	aside, link := name+".aside", name+".link"
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	s := &swaps{tried: make(chan struct{}), over: make(chan struct{})}
	rename := func(from, to string) {
		for range 10_000 {
			if os.Rename(from, to) == nil {
				return
			}
			// A call has made the folder anew while there was nothing, and may be about to do it again.
			_ = os.RemoveAll(to)
		}
		t.Errorf("%s does not become %s", from, to)
	}
	s.all.Go(func() {
		for round := 0; ; round++ {
			// Now and then each state stays for as long as a whole call takes.
			if round%10 == 0 && !s.stay() {
				return
			}
			rename(name, aside)
			rename(link, name)
			if round%10 == 0 {
				s.stay()
			}
			rename(name, link)
			rename(aside, name)
		}
	})
	return s
}

// stay waits until a call that has begun after it is over. It reports whether there is another one.
func (s *swaps) stay() bool {
	for range 2 {
		select {
		case <-s.tried:
		case <-s.over:
			return false
		}
	}
	return true
}

// try makes calls until enough were carried out, and refused as is right while there is a link.
func (s *swaps) try(call func(i int) error) {
	const enough = 40
	for i := 0; s.ok < enough || s.fail < enough; i++ {
		if call(i) == nil {
			s.ok++
		} else {
			s.fail++
		}
		select {
		case s.tried <- struct{}{}:
		default:
		}
	}
	close(s.over)
	s.all.Wait()
}

// Nothing is written outside of the data folder while somebody swaps a folder in it for a link.
func TestNothingLeavesTheDataFolderWhileLinksAreSwappedIn(t *testing.T) {
	for _, method := range both {
		t.Run(string(method), func(t *testing.T) {
			b := newBench(t)
			outside := t.TempDir()
			if err := b.Files.MkdirAll("d/e/central", 0o700); err != nil {
				t.Fatal(err)
			}
			// What a follower of the link would find there.
			if err := os.MkdirAll(filepath.Join(outside, "e", "central"), 0o700); err != nil {
				t.Fatal(err)
			}
			victim := filepath.Join(outside, "e", "central", "log")
			if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			swapping(t, filepath.Join(b.dir, "d"), outside).try(func(i int) error {
				name := "log"
				if i%2 == 0 {
					name = fmt.Sprint("new", i%10)
				}
				return b.runMaybe(t, method, message.Message{Directory: "d/e", FileName: name, Body: []byte("x")})
			})
			if entries, err := os.ReadDir(filepath.Dir(victim)); err != nil || len(entries) != 1 {
				t.Errorf("outside of the data folder: %v, %v", entries, err)
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != "mine" {
				t.Errorf("the file outside holds %q, %v", got, err)
			}
		})
	}
}

// runMaybe runs a call that may fail at its mark, too.
func (b *bench) runMaybe(t *testing.T, name message.Method, m message.Message) error {
	t.Helper()
	s := spec(t, name)
	m.Method = name
	c := b.call(m)
	c.Emit = nil
	calls := []*process.Call{c}
	if _, err := s.Mark(calls); err != nil {
		return err
	}
	return s.RunAll(t.Context(), calls)[0]
}

// The same for a socket that is written to.
func TestNoSocketOutsideIsWrittenToWhileLinksAreSwappedIn(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // other systems dial a socket by its path
	}
	b := newBench(t)
	outside, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(outside) }()
	var got [2]atomic.Int64
	var all sync.WaitGroup
	defer all.Wait()
	for i, folder := range []string{filepath.Join(b.dir, "d", "central"), filepath.Join(outside, "central")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(folder, "s"))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		defer func() { _ = l.Close() }()
		all.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, conn)
				got[i].Add(1)
				_ = conn.Close()
			}
		})
	}
	swapping(t, filepath.Join(b.dir, "d"), outside).try(func(int) error {
		return b.runMaybe(t, message.MethodToFileAppend, message.Message{Directory: "d", FileName: "s", Body: []byte("x")})
	})
	// A connection of our own is behind all others.
	for _, folder := range []string{b.dir + "/d", outside} {
		conn, err := net.Dial("unix", filepath.Join(folder, "central", "s"))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, conn) // until it is closed
		_ = conn.Close()
	}
	if in, out := got[0].Load(), got[1].Load(); out != 1 || in < 2 {
		t.Errorf("besides ours the socket outside got %d connections, that in the data folder %d", out-1, in-1)
	}
}

// What would hold up whoever opens it is refused.
func TestPipesAndDevicesHoldNobodyUp(t *testing.T) {
	for _, method := range both {
		b := newBench(t)
		if err := b.Files.MkdirAll("central", 0o700); err != nil {
			t.Fatal(err)
		}
		pipe := filepath.Join(b.dir, "central", "pipe")
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"pipe": "there is a named pipe and no file"}
		if os.Geteuid() == 0 { // else nobody may make one
			if err := syscall.Mknod(filepath.Join(b.dir, "central", "null"), syscall.S_IFCHR|0o600, 1<<8|3); err != nil {
				t.Fatal(err)
			}
			want["null"] = "there is a device and no file"
		}
		for _, reader := range []bool{false, true} {
			if reader { // with one, the pipe could be opened
				f, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = f.Close() }()
			}
			for name, text := range want {
				err := b.runMaybe(t, method, message.Message{FileName: name, Body: []byte("x")})
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%s, %s: %v", method, name, err)
				}
			}
		}
	}
}

// A part of a reply that is a pipe by now does not hold up the command that is to read it.
func TestPartThatBecameAPipeHoldsNobodyUp(t *testing.T) {
	b := newBench(t)
	m := message.Message{Data: []string{"cat"}, Body: []byte("x")}
	if _, err := b.run(t, "REQCliCommand", reply(m, 0, true)); err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob(filepath.Join(b.dir, ".replies", "central", ".steward-*"))
	if err != nil || len(parts) != 1 {
		t.Fatal(parts, err)
	}
	if err := os.Remove(parts[0]); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(parts[0], 0o600); err != nil {
		t.Fatal(err)
	}
	m.Data = []string{"echo", "{{STEWARD_DATA}}"}
	if _, err := b.run(t, "REQCliCommand", reply(m, 1, false)); err == nil || !strings.Contains(err.Error(), "named pipe") {
		t.Error(err)
	}
}
