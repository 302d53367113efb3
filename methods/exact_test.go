package methods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"steward/message"
	"steward/process"
)

// crash is what a dying node panics with in these tests.
type crash struct{}

// faulty makes the n-th step of a disk go wrong; n counts from 0.
type faulty struct {
	n    int
	fail error // nil: the node dies
	met  bool
}

func (f *faulty) disk() disk {
	return disk{before: func(root *os.Root, step, name string) error {
		f.n--
		if f.n != -1 {
			return nil
		}
		f.met = true
		if step == "write" || step == "copy" { // half-way through it
			file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				panic(err)
			}
			if _, err := file.WriteString("half"); err != nil {
				panic(err)
			}
			if err := file.Close(); err != nil {
				panic(err)
			}
		}
		if f.fail != nil {
			return &fs.PathError{Op: step, Path: name, Err: f.fail}
		}
		panic(crash{})
	}}
}

// dies runs f and reports whether the node died in it.
func dies(f func()) (died bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			died = true
		}
	}()
	f()
	return false
}

// exact is a method under test, on a disk of one's choice.
type exact struct {
	runAll func(d disk, calls []*process.Call) []error
	mark   func(d disk, calls []*process.Call) ([]byte, error)
	undo   func(d disk, env *process.Env, mark []byte) error
}

func exactAppender(a appender) exact {
	on := func(d disk) appender { a := a; a.disk = d; return a }
	return exact{
		func(d disk, calls []*process.Call) []error { return on(d).runAll(context.Background(), calls) },
		func(d disk, calls []*process.Call) ([]byte, error) { return on(d).mark(calls) },
		func(d disk, env *process.Env, mark []byte) error { return on(d).undo(env, mark) },
	}
}

func exactReplacer() exact {
	return exact{
		func(d disk, calls []*process.Call) []error { return replacer{d}.runAll(context.Background(), calls) },
		func(d disk, calls []*process.Call) ([]byte, error) { return replacer{d}.mark(calls) },
		func(d disk, env *process.Env, mark []byte) error { return replacer{d}.undo(env, mark) },
	}
}

// model is what the files are to hold, and what the senders are at.
type model struct {
	env   process.Env
	files map[string]string
	count uint32
	parts map[message.ID]*[]string // replies under way
}

func newModel(t interface {
	Cleanup(func())
	Fatal(...any)
}) *model {
	dir, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close(); _ = os.RemoveAll(dir) })
	return &model{env: process.Env{Files: root}, files: map[string]string{}, parts: map[message.ID]*[]string{}}
}

func (o *model) call(m message.Message) *process.Call {
	o.count++
	m.ID = message.NewID(time.UnixMilli(1), o.count, 1)
	m.From = "ship1"
	return &process.Call{Env: &o.env, Message: &m, Attempt: 1}
}

// settle runs calls in a world where at one step, chosen by the property, something goes
// wrong, until all of them are done.
func (o *model) settle(t *rapid.T, x exact, calls []*process.Call) {
	for len(calls) > 0 {
		n := rapid.IntRange(1, len(calls)).Draw(t, "batch")
		batch := calls[:n]
		mark, err := x.mark(disk{}, batch)
		if err != nil {
			t.Fatalf("mark: %v", err)
		}
		f := &faulty{n: rapid.IntRange(0, 6*len(batch)+6).Draw(t, "step")}
		if rapid.Bool().Draw(t, "full") {
			f.fail = rapid.SampledFrom([]error{syscall.ENOSPC, syscall.EIO}).Draw(t, "errno")
		}
		var errs []error
		died := dies(func() { errs = x.runAll(f.disk(), batch) })
		// The node may also die when all is done, before anyone has noted that.
		if died || f.fail == nil && rapid.Bool().Draw(t, "late") {
			again := &faulty{n: rapid.IntRange(0, 8).Draw(t, "undo step")}
			if dies(func() { err = x.undo(again.disk(), &o.env, mark) }) || rapid.Bool().Draw(t, "twice") {
				err = x.undo(disk{}, &o.env, mark)
			}
			if err != nil {
				t.Fatalf("undo: %v", err)
			}
			continue // with a batch of another size
		}
		var left []*process.Call
		for i, err := range errs {
			switch {
			case err == nil:
			case f.fail != nil && f.met && errors.Is(err, process.ErrTryLater) && errors.Is(err, f.fail):
				left = append(left, batch[i])
			default:
				t.Fatalf("call %d of %d: %v", i, n, err)
			}
		}
		calls = append(left, calls[n:]...)
	}
}

func (o *model) compare(t *rapid.T) {
	seen := map[string]string{}
	err := fs.WalkDir(o.env.Files.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".steward-") {
			return err
		}
		b, err := o.env.Files.ReadFile(p)
		seen[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range seen {
		if _, ok := o.files[name]; !ok {
			t.Fatalf("%s holds %q and should not be there", name, seen[name])
		}
	}
	for name, want := range o.files {
		if got, ok := seen[name]; !ok || got != want {
			t.Fatalf("%s holds %q, want %q", name, got, want)
		}
	}
}

func text(t *rapid.T) string {
	return strings.Repeat(rapid.StringOfN(rapid.RuneFrom([]rune("abc\n")), 1, 3, -1).Draw(t, "text"), rapid.IntRange(0, 3).Draw(t, "times"))
}

func TestAppendIsExactThroughFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newModel(t)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			var calls []*process.Call
			for range rapid.IntRange(1, 5).Draw(t, "calls") {
				dir := rapid.SampledFrom([]string{"", "a", "a/b"}).Draw(t, "dir")
				file := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "file")
				body := text(t)
				calls = append(calls, o.call(message.Message{Directory: dir, FileName: file, Body: []byte(body)}))
				o.files[path.Join(dir, "ship1", file)] += body
			}
			o.settle(t, exactAppender(toFileAppend), calls)
			o.compare(t)
		}
	})
}

func TestReplaceIsExactThroughFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newModel(t)
		type stream struct {
			id   message.ID
			name string
			sent []string
		}
		var streams []*stream
		for round := range rapid.IntRange(1, 5).Draw(t, "rounds") {
			var calls []*process.Call
			for range rapid.IntRange(1, 6).Draw(t, "calls") {
				name := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "file")
				m := message.Message{Directory: "d", FileName: name, Body: []byte(text(t))}
				pick := rapid.IntRange(-2, len(streams)).Draw(t, "stream")
				if pick < 0 { // a message of its own
					o.files["d/ship1/"+name] = string(m.Body)
					calls = append(calls, o.call(m))
					continue
				}
				if pick == len(streams) {
					streams = append(streams, &stream{id: message.NewID(time.UnixMilli(2), o.count, uint64(round)), name: name})
				}
				s := streams[pick]
				m.FileName, m.InReplyTo, m.Part = s.name, s.id, uint32(len(s.sent))
				s.sent = append(s.sent, string(m.Body))
				if rapid.IntRange(0, 2).Draw(t, "last") == 0 {
					m.Result = &message.Result{Code: message.CodeDone}
					o.files["d/ship1/"+s.name] = strings.Join(s.sent, "")
					streams = slices.Delete(streams, pick, pick+1)
				}
				calls = append(calls, o.call(m))
			}
			o.settle(t, exactReplacer(), calls)
			o.compare(t)
		}
	})
}

func TestErrorLogIsExactThroughRotationAndFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newModel(t)
		small := errorLog
		small.rotate = 200
		x := exactAppender(small)
		whole := x.mark
		x.mark = func(_ disk, calls []*process.Call) ([]byte, error) {
			f := &faulty{n: rapid.IntRange(0, 10).Draw(t, "rotation step")}
			var mark []byte
			var err error
			if dies(func() { mark, err = whole(f.disk(), calls) }) {
				return whole(disk{}, calls)
			}
			return mark, err
		}
		var want []string
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			var calls []*process.Call
			for range rapid.IntRange(1, 2).Draw(t, "calls") {
				line := fmt.Sprintf("error %d", len(want))
				want = append(want, line)
				calls = append(calls, o.call(message.Message{Data: []string{line}}))
			}
			o.settle(t, x, calls)
		}
		// The newest lines are all there, in order and once.
		var got []string
		for i := rotateKeep; i >= 0; i-- {
			name := "errorLog/ship1/error.log"
			if i > 0 {
				name += fmt.Sprintf(".%d", i)
			}
			b, err := o.env.Files.ReadFile(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 200 {
				t.Fatalf("%s has %d bytes", name, len(b))
			}
			for line := range strings.Lines(string(b)) {
				_, text, _ := strings.Cut(line, "error ")
				got = append(got, "error "+strings.TrimSpace(text))
			}
		}
		if len(got) < min(len(want), 10) || len(got) > len(want) || !slices.Equal(got, want[len(want)-len(got):]) {
			t.Fatalf("got %q, want the end of %q", got, want)
		}
	})
}

func TestUndoNeverTouchesWhatIsNotOurs(t *testing.T) {
	o := newModel(t)
	root := o.env.Files
	write := func(name, text string) {
		t.Helper()
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is := func(name, want string) {
		t.Helper()
		if b, err := root.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	call := o.call(message.Message{FileName: "x", Body: []byte("new")})
	for name, x := range map[string]exact{"append": exactAppender(toFileAppend), "replace": exactReplacer()} {
		t.Run(name, func(t *testing.T) {
			write("ship1/x", "0123456789")
			mark, err := x.mark(disk{}, []*process.Call{call})
			if err != nil {
				t.Fatal(err)
			}
			write("ship1/x", "0123") // somebody shortened it: it is not made longer
			if err := x.undo(disk{}, &o.env, mark); err != nil {
				t.Error(err)
			}
			is("ship1/x", "0123")

			write("ship1/other", "quite another file, and long")
			if err := root.Rename("ship1/other", "ship1/x"); err != nil {
				t.Fatal(err)
			}
			if err := x.undo(disk{}, &o.env, mark); err != nil {
				t.Error(err)
			}
			is("ship1/x", "quite another file, and long")

			if err := root.RemoveAll("ship1"); err != nil {
				t.Fatal(err)
			}
			if err := x.undo(disk{}, &o.env, mark); err != nil {
				t.Error(err)
			}
			write("ship1", "a file where a folder was")
			if err := x.undo(disk{}, &o.env, mark); err != nil {
				t.Error(err)
			}
			if err := root.Remove("ship1"); err != nil {
				t.Fatal(err)
			}
			if err := x.undo(disk{}, &o.env, []byte("{nonsense")); err == nil {
				t.Error("took nonsense for a mark")
			}
		})
	}
}

func TestFullDiskHoldsUpOnlyItsFile(t *testing.T) {
	o := newModel(t)
	a := toFileAppend
	a.disk.before = func(_ *os.Root, step, name string) error {
		if step == "write" && name == "ship1/full" {
			return syscall.EDQUOT
		}
		return nil
	}
	errs := a.runAll(context.Background(), []*process.Call{
		o.call(message.Message{FileName: "full", Body: []byte("1")}),
		o.call(message.Message{FileName: "free", Body: []byte("2")}),
		o.call(message.Message{FileName: "../x", Body: []byte("3")}),
		o.call(message.Message{FileName: "full", Body: []byte("4")}),
	})
	for i, later := range []bool{true, false, false, true} {
		if errors.Is(errs[i], process.ErrTryLater) != later {
			t.Errorf("call %d: %v", i, errs[i])
		}
	}
	if errs[1] != nil || !errors.Is(errs[2], message.ErrInvalid) {
		t.Errorf("errors %v", errs)
	}
}

func TestBatchSyncsEachFileOnce(t *testing.T) {
	o := newModel(t)
	count := map[string]int{}
	a := toFileAppend
	a.disk.before = func(_ *os.Root, step, name string) error {
		count[step+" "+name]++
		return nil
	}
	var calls []*process.Call
	for i := range 50 {
		calls = append(calls, o.call(message.Message{FileName: string(rune('a' + i%2)), Body: []byte("x")}))
	}
	for range 2 {
		if err := errors.Join(a.runAll(context.Background(), calls)...); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []string{"open", "write", "sync"} {
		if n := count[step+" ship1/a"]; n != 2 {
			t.Errorf("%d times %s for two batches", n, step)
		}
	}
	if n := count["sync folder ship1"]; n != 2 {
		t.Errorf("the folder was synced %d times for two new files", n)
	}
}

func TestAbandonedPartsAreSweptUp(t *testing.T) {
	o := newModel(t)
	part := func(n int64, part uint32) *process.Call {
		return o.call(message.Message{FileName: "x", Body: []byte("p"), InReplyTo: message.NewID(time.UnixMilli(n), 1, 1), Part: part})
	}
	run := func(c *process.Call) error {
		return replacer{}.runAll(context.Background(), []*process.Call{c})[0]
	}
	if err := errors.Join(run(part(1, 0)), run(part(2, 0))); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-partsKept - time.Hour)
	if err := o.env.Files.Chtimes(partsFile("ship1/x", message.NewID(time.UnixMilli(1), 1, 1), 1), old, old); err != nil {
		t.Fatal(err)
	}
	if err := run(part(3, 0)); err != nil {
		t.Fatal(err)
	}
	if err := run(part(1, 1)); !errors.Is(err, errNoParts) {
		t.Errorf("old parts: %v", err)
	}
	if err := run(part(2, 1)); err != nil {
		t.Errorf("young parts: %v", err)
	}
}
