package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/ingress"
)

// ledger is a store that files are accepted into, and outlives who reads them.
type ledger struct {
	mu     sync.Mutex
	next   int
	ids    map[message.ID]bool
	data   []string // the first element of each message's data, in the order of acceptance
	events []errorkernel.Event
	// before and after, if set, are asked around the commit; an error of before prevents it.
	before func() error
	after  func()
}

func (l *ledger) Report(ev errorkernel.Event) errorkernel.Action {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, ev)
	return errorkernel.Continue
}

func (l *ledger) stamp(m *message.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	m.ID = id(l.next)
}

func (l *ledger) accept(_ context.Context, msgs []message.Message) ([]message.ID, error) {
	if l.before != nil {
		if err := l.before(); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	ids := make([]message.ID, len(msgs))
	for i, m := range msgs {
		if m.ACKTimeout > 0 {
			l.ids[m.ID] = true
		}
		l.data = append(l.data, strings.Join(m.Data, " "))
		ids[i] = m.ID
	}
	l.mu.Unlock()
	if l.after != nil {
		l.after()
	}
	return ids, nil
}

func (l *ledger) accepted(id message.ID) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[id], nil
}

func (l *ledger) got() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.data, ",")
}

func (l *ledger) reported(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range l.events {
		if strings.Contains(ev.Err.Error(), text) {
			return true
		}
	}
	return false
}

func (l *ledger) options(path string) ingress.FileOptions {
	return ingress.FileOptions{
		Path: path, Stamp: l.stamp, Accept: l.accept, Accepted: l.accepted, Report: l, Log: slog.New(slog.DiscardHandler),
		Resolve: func(drafts []wire.Draft) ([]message.Message, error) {
			return wire.ResolveAll(drafts, wire.Defaults{Self: "central", Catalog: catalog{}, ACKTimeout: time.Second, MethodTimeout: time.Second})
		},
	}
}

// fileWorld is a folder with a ledger, in false time.
type fileWorld struct {
	*ledger
	t   *testing.T
	dir string
}

func inFileWorld(t *testing.T, f func(t *testing.T, w *fileWorld)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f(t, &fileWorld{&ledger{ids: map[message.ID]bool{}}, t, dir})
	})
}

func (w *fileWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *fileWorld) write(name, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *fileWorld) append(name, text string) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *fileWorld) read(name string) string {
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (w *fileWorld) exists(name string) bool {
	_, err := os.Lstat(w.path(name))
	return err == nil
}

// run serves for a while and returns what Serve did; a panic stands for a crash.
func (w *fileWorld) run(s process.Service, d time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	done := make(chan error)
	go func() {
		defer func() {
			if recover() != nil {
				done <- errCrash
			}
		}()
		done <- s.Serve(ctx)
	}()
	return <-done
}

var errCrash = errors.New("crashed")

func (w *fileWorld) folder() *ingress.Folder {
	w.t.Helper()
	f, err := ingress.NewFolder(w.options(w.dir))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *fileWorld) wantRun(s process.Service, d time.Duration) {
	w.t.Helper()
	if err := w.run(s, d); err != nil {
		w.t.Fatal(err)
	}
}

func (w *fileWorld) want(data string) {
	w.t.Helper()
	if got := w.got(); got != data {
		w.t.Errorf("accepted %q, want %q", got, data)
	}
}

// say is a message that says what it is.
func say(data string) string {
	return fmt.Sprintf(`{"toNode":"a","method":"REQPing","data":[%q]}`, data)
}

func TestFilesOfAFolderAreReadInOrderAndPutAway(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("b.json", say("3"))
		w.write("a.json", "["+say("1")+"]\n["+say("2")+"]")
		w.write("c.yaml", "- toNode: a\n  method: REQPing\n  data: ['4']\n")
		w.write("empty.json", "")
		w.write(".hidden", say("no"))
		w.write("done/b.json", "an older one")
		w.wantRun(w.folder(), 5*time.Second)
		w.want("1,2,3,4")
		for _, name := range []string{"done/a.json", "done/c.yaml", ".hidden", "empty.json"} {
			if !w.exists(name) {
				t.Errorf("no %s", name)
			}
		}
		if got := w.read("done/b.json"); got != "an older one" {
			t.Errorf("overwritten with %q", got)
		}
		if list, err := filepath.Glob(w.path("done", "b.json.2*")); err != nil || len(list) != 1 {
			t.Errorf("beside it: %q, %v", list, err)
		}
		if w.exists("working/.note") || w.exists("a.json") {
			t.Error("something was left behind")
		}
	})
}

// All or nothing: a file that was mended can be put in again.
func TestNothingOfAFileWithAFaultIsAccepted(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		long := strings.Repeat("x", 250)
		for name, c := range map[string]struct{ text, want string }{
			"method":  {say("1") + `{"toNode":"a","method":"REQPong"}`, `array 2: message 1: unknown method "REQPong"`},
			"syntax":  {say("1") + `[{"toNode":`, "array 2: syntax error"},
			"nothing": {"\n\n", "there is no message in it"},
			"size":    {"[" + say(strings.Repeat("x", 2000)) + "]", "the limit is 1000"},
			long:      {"]", "array 1: syntax error"},
		} {
			w.write(name, c.text)
			opt := w.options(w.dir)
			opt.MaxFile = 1000
			f, err := ingress.NewFolder(opt)
			if err != nil {
				t.Fatal(err)
			}
			w.wantRun(f, 5*time.Second)
			at := "failed/" + name[:min(len(name), 200)]
			if got := w.read(at + ".error"); !strings.Contains(got, c.want) {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
			if w.read(at) != c.text || !w.reported(c.want) {
				t.Errorf("%s: it is not in failed, or not reported", name)
			}
		}
		w.want("")
	})
}

func TestCrashWhileAFileIsAcceptedAcceptsItOnce(t *testing.T) {
	for name, crash := range map[string]func(w *fileWorld){
		"before the commit": func(w *fileWorld) { w.before = func() error { panic("crash") } },
		"after the commit":  func(w *fileWorld) { w.after = func() { panic("crash") } },
	} {
		t.Run(name, func(t *testing.T) {
			inFileWorld(t, func(t *testing.T, w *fileWorld) {
				w.write("a", say("1"))
				w.write("b", say("2"))
				crash(w)
				if err := w.run(w.folder(), 5*time.Second); err != errCrash {
					t.Fatal(err)
				}
				w.before, w.after = nil, nil
				w.wantRun(w.folder(), 5*time.Second)
				w.want("1,2")
				if !w.exists("done/a") || !w.exists("done/b") {
					t.Error("not put away")
				}
			})
		})
	}
}

// What nobody acknowledges is not in the store, and is not sent again by chance.
func TestCrashSendsMessagesWithoutACKOnceAtMost(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("a", `{"toNode":"a","method":"REQPing","data":["1"],"ACKTimeout":0}`)
		w.after = func() { panic("crash") }
		if err := w.run(w.folder(), 5*time.Second); err != errCrash {
			t.Fatal(err)
		}
		w.after = nil
		w.wantRun(w.folder(), 5*time.Second)
		w.want("1")
	})
}

// What a crash can leave behind in working/, made by hand.
func TestFolderGoesOnWhereARunHasEnded(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"moved, not noted":         {map[string]string{"working/a": say("1")}, "1"},
		"noted, not accepted":      {map[string]string{"working/a": say("1"), "working/.note": note(`\"a\"`, id(7))}, "1"},
		"accepted, not moved":      {map[string]string{"working/a": say("1"), "working/.note": note(`\"a\"`, id(99))}, ""},
		"moved, note still there":  {map[string]string{"done/a": say("1"), "working/.note": note(`\"a\"`, id(99)), "a": say("2")}, "2"},
		"the note of another file": {map[string]string{"working/a": say("1"), "working/.note": note(`\"b\"`, id(99))}, "1"},
		"half a note":              {map[string]string{"working/a": say("1"), "working/.note.new": `{"fi`}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			inFileWorld(t, func(t *testing.T, w *fileWorld) {
				w.ids[id(99)] = true
				for name, text := range c.files {
					w.write(name, text)
				}
				w.wantRun(w.folder(), 5*time.Second)
				w.want(c.want)
				if w.exists("working/a") || w.exists("working/.note") {
					t.Error("it was left in working")
				}
			})
		})
	}
}

func note(file string, id message.ID) string {
	return fmt.Sprintf(`{"file":"%s","id":"%s"}`, file, id)
}

func TestFullStoreDelaysAFileAndLosesNothing(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("a", say("1"))
		w.write("b", say("2"))
		full := 5
		w.before = func() error {
			if full--; full >= 0 {
				return errors.New("the ring buffer is full")
			}
			return nil
		}
		w.wantRun(w.folder(), 3*time.Minute)
		w.want("1,2")
		if !w.reported("it will be tried again: the ring buffer is full") {
			t.Error("not reported")
		}
	})
}

func TestMessagesThatCanNeverBeStoredFail(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("a", say("1"))
		w.before = func() error { return fmt.Errorf("%w message: too large", message.ErrInvalid) }
		w.wantRun(w.folder(), 5*time.Second)
		if got := w.read("failed/a.error"); got != "invalid message: too large\n" {
			t.Errorf("%q", got)
		}
	})
}

func TestStartupFolderIsReadAtEachStart(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("start/2", say("2"))
		w.write("start/1", say("1"))
		w.write("start/0", "{")
		for range 2 {
			s, err := ingress.NewStartup(w.options(w.path("start")))
			if err != nil {
				t.Fatal(err)
			}
			w.wantRun(s, time.Minute)
		}
		w.want("1,2,1,2")
		if !w.exists("start/0") || !w.reported("0: array 1: syntax error") {
			t.Error("the file with a fault has gone, or was not reported")
		}
		s, err := ingress.NewStartup(w.options(w.path("nowhere")))
		if err != nil {
			t.Fatal(err)
		}
		w.wantRun(s, time.Minute)
	})
}

func TestFileOptionsAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*ingress.FileOptions){
		"path":   func(o *ingress.FileOptions) { o.Path = "" },
		"accept": func(o *ingress.FileOptions) { o.Accept = nil },
		"log":    func(o *ingress.FileOptions) { o.Log = nil },
		"poll":   func(o *ingress.FileOptions) { o.Poll = -1 },
	} {
		opt := (&ledger{}).options("x")
		spoil(&opt)
		_, err1 := ingress.NewFolder(opt)
		_, err2 := ingress.NewInFile(opt)
		_, err3 := ingress.NewStartup(opt)
		if err1 == nil || err2 == nil || err3 == nil {
			t.Errorf("%s: %v, %v, %v", name, err1, err2, err3)
		}
	}
}
