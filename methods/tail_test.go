package methods

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"steward/process"
)

// tailed is a log with its writer, and a tail of it that can be restarted.
type tailed struct {
	t    rapid.TB
	path string
	*tail

	n       int // lines so far
	partial bool
	rotated int
	want    strings.Builder
	got     bytes.Buffer
	noted   []byte
	parts   int
	dieAt   int // the part at which the node dies, 0 for none
	late    bool
}

var errDies = errors.New("the node died")

func newTailed(t rapid.TB) *tailed {
	dir, err := os.MkdirTemp("", "tail")
	if err != nil {
		t.Fatal(err)
	}
	l := &tailed{t: t, path: filepath.Join(dir, "app.log")}
	return l
}

func (l *tailed) close() {
	l.tail.close()
	l.check(os.RemoveAll(filepath.Dir(l.path)))
}

func (l *tailed) check(err error) {
	if err != nil {
		l.t.Fatalf("%v", err)
	}
}

// start starts the tail, or starts it again with what was noted last.
func (l *tailed) start() {
	if l.tail != nil {
		l.tail.close()
	}
	l.tail = &tail{path: l.path, log: slog.New(slog.DiscardHandler), emit: func(_ context.Context, body, note []byte) error {
		if len(body) > process.MaxPart+1 {
			l.t.Errorf("a part of %d bytes", len(body))
		}
		if l.parts++; l.parts == l.dieAt && !l.late {
			return errDies
		}
		l.got.Write(body)
		l.noted = note
		if l.parts == l.dieAt {
			return errDies
		}
		return nil
	}}
	if l.noted == nil {
		l.check(l.tail.begin(context.Background()))
	} else {
		l.check(l.tail.resume(l.noted))
	}
}

// look polls, and restarts a node that dies in it.
func (l *tailed) look() {
	for {
		err := l.poll(context.Background())
		if err == nil {
			return
		}
		if !errors.Is(err, errDies) {
			l.t.Fatalf("%v", err)
		}
		l.start()
	}
}

// write appends to a file.
func (l *tailed) write(path, text string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	l.check(err)
	_, err = f.WriteString(text)
	l.check(errors.Join(err, f.Close()))
}

// line writes lines, and the last one without its end if open.
func (l *tailed) line(path string, n int, open bool) {
	var b strings.Builder
	if l.partial {
		b.WriteString(" and its rest\n")
	}
	for i := range n {
		fmt.Fprintf(&b, "line %d", l.n)
		if l.n++; !open || i < n-1 {
			b.WriteByte('\n')
		}
	}
	l.partial = open && n > 0
	l.want.WriteString(b.String())
	l.write(path, b.String())
}

func (l *tailed) aside() string {
	l.rotated++
	return fmt.Sprintf("%s.%d", l.path, l.rotated)
}

func (l *tailed) copyTruncate(to string) {
	b, err := os.ReadFile(l.path)
	l.check(err)
	l.check(os.WriteFile(to, b, 0o600))
	l.check(os.Truncate(l.path, 0))
}

// seen reports whether the tail knows the file under the path.
func (l *tailed) seen() bool {
	fi, err := os.Stat(l.path)
	return err == nil && len(l.files) > 0 && os.SameFile(fi, l.files[len(l.files)-1].info)
}

func (l *tailed) same() {
	if got, want := l.got.String(), l.want.String(); got != want {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		l.t.Fatalf("got %d bytes, want %d; from byte %d on %.80q, want %.80q", len(got), len(want), i, got[i:], want[i:])
	}
}

func TestTailLosesAndRepeatsNoLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newTailed(t)
		defer l.close()
		if rapid.Bool().Draw(t, "is there at the start") {
			l.write(l.path, "was there before\n")
		}
		l.start()
		rotated := true // no more than once between two looks: what came and went unseen is lost
		look := func(*rapid.T) { l.look(); rotated = false }
		t.Repeat(map[string]func(*rapid.T){
			"look": look,
			"look, and die": func(t *rapid.T) {
				l.parts, l.dieAt, l.late = 0, rapid.IntRange(1, 3).Draw(t, "part"), rapid.Bool().Draw(t, "late")
				look(t)
				l.dieAt = 0
			},
			"restart": func(*rapid.T) { l.start() },
			"lines":   func(t *rapid.T) { l.line(l.path, rapid.IntRange(1, 50).Draw(t, "lines"), false) },
			"open":    func(t *rapid.T) { l.line(l.path, 1, true) },
			"many":    func(*rapid.T) { l.line(l.path, 30_000, false) },
			"rename": func(t *rapid.T) {
				if rotated || !l.seen() {
					t.Skip("not now")
				}
				if l.partial { // the writer ends its line before
					l.line(l.path, 0, false)
				}
				to := l.aside()
				l.check(os.Rename(l.path, to))
				if rapid.Bool().Draw(t, "and writes on for a while") {
					l.line(to, 3, false)
				}
				rotated = true
				l.line(l.path, rapid.IntRange(0, 3).Draw(t, "new"), false)
			},
			"copy and truncate": func(t *rapid.T) {
				// Of a file of which nothing was read, no copy is known again.
				if rotated || !l.seen() || l.files[len(l.files)-1].Offset == 0 {
					t.Skip("not now")
				}
				if l.partial {
					l.line(l.path, 0, false)
				}
				l.copyTruncate(l.aside())
				rotated = true
				l.line(l.path, rapid.IntRange(0, 300).Draw(t, "new"), false)
			},
		})
		if l.partial {
			l.line(l.path, 0, false)
		}
		_, missing := os.Stat(l.path) // it was not made at all, then
		if err := l.tail.end(context.Background()); (err == nil) != (missing == nil) {
			t.Errorf("it ended with %v", err)
		}
		l.same()
	})
}

// after starts a tail of a log with a line in it and looks once.
func after(t *testing.T) *tailed {
	l := newTailed(t)
	t.Cleanup(l.close)
	l.line(l.path, 1, false)
	l.want.Reset()
	l.start()
	l.look()
	return l
}

func TestTailWaitsForTheEndOfALine(t *testing.T) {
	l := after(t)
	l.line(l.path, 2, true)
	l.look()
	if got := l.got.String(); got != "line 1\n" {
		t.Errorf("got %q", got)
	}
	l.line(l.path, 0, false)
	l.look()
	l.same()
	l.write(l.path, "never ended")
	l.look()
	l.same()
	l.check(l.end(t.Context()))
	l.want.WriteString("never ended\n")
	l.same()
}

func TestTailSendsALineThatIsLongerThanAPart(t *testing.T) {
	l := after(t)
	long := strings.Repeat("x", 3*process.MaxPart+5)
	for _, text := range []string{"before\n", long, "\nbehind\n"} {
		l.want.WriteString(text)
		l.write(l.path, text)
		l.look()
	}
	l.same()
}

func TestTailPassesOverTheHoleOfAWriterThatDoesNotAppend(t *testing.T) {
	l := after(t)
	w, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	l.check(err)
	defer w.Close()
	for i := range 3 {
		text := fmt.Sprintf("round %d %s\n", i, strings.Repeat("y", process.MaxPart))
		l.want.WriteString(text)
		_, err := w.WriteString(text)
		l.check(err)
		l.look()
		l.copyTruncate(l.aside())
		l.look()
	}
	text := "end\n"
	l.want.WriteString(text)
	_, err = w.WriteString(text)
	l.check(err)
	l.look()
	l.same()
}

func TestTailReadsACopyThatReplacesAnOlderOne(t *testing.T) {
	l := after(t)
	l.line(l.path, 3, false)
	l.look()
	l.check(os.Rename(l.path, l.path+".1"))
	l.line(l.path, 2, false)
	l.look()
	l.line(l.path, 2, false) // these are in the copy alone
	l.copyTruncate(l.path + ".1")
	l.line(l.path, 1, false)
	l.look()
	l.same()
}

func TestTailGoesOnInAFileThatCameBack(t *testing.T) {
	l := after(t)
	l.line(l.path, 2, false)
	l.look()
	l.check(os.Rename(l.path, l.path+".bak"))
	l.look()
	l.line(l.path+".bak", 1, false)
	l.look()
	l.check(os.Rename(l.path+".bak", l.path))
	l.line(l.path, 2, false)
	l.look()
	l.same()
}

func TestTailFollowsALink(t *testing.T) {
	l := after(t)
	link := filepath.Join(filepath.Dir(l.path), "current")
	l.check(os.Symlink("app.log", link))
	l.tail.path = link
	l.look()
	l.line(l.path, 2, false)
	other := filepath.Join(filepath.Dir(l.path), "other.log")
	l.line(other, 2, false)
	l.check(os.Remove(link))
	l.check(os.Symlink("other.log", link))
	l.look()
	l.line(other, 2, false)
	l.look()
	l.same()
}

func TestTailAcrossRotationWhileTheNodeWasDown(t *testing.T) {
	for name, rotate := range map[string]func(l *tailed){
		"not":      func(*tailed) {},
		"rename":   func(l *tailed) { l.check(os.Rename(l.path, l.path+"-20240101")) },
		"truncate": func(l *tailed) { l.copyTruncate(l.path + "-20240101") },
	} {
		t.Run(name, func(t *testing.T) {
			l := after(t)
			l.line(l.path, 20, false)
			l.look()
			l.line(l.path, 20, false)
			rotate(l)
			l.line(l.path, 100, false)
			l.start()
			l.look()
			l.same()
		})
	}
}

func TestTailGoesOnWhenItsFileCannotBeFoundAgain(t *testing.T) {
	l := after(t)
	l.line(l.path, 20, false)
	l.look()
	l.write(l.path, "lost\n")
	l.check(os.Remove(l.path))
	l.line(l.path, 2, false)
	l.start()
	l.look()
	l.same()
}
