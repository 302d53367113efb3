package ingress_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"steward/message"
	"steward/process/ingress"
)

func (w *fileWorld) inFile() *ingress.InFile {
	w.t.Helper()
	f, err := ingress.NewInFile(w.options(w.path("inmsg.txt")))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *fileWorld) wantErased() {
	w.t.Helper()
	if got := w.read("inmsg.txt"); got != "" {
		w.t.Errorf("left in the file: %q", got)
	}
	if w.exists("inmsg.txt.note") {
		w.t.Error("the note was left behind")
	}
}

// with serves while f runs.
func (w *fileWorld) with(f func()) {
	w.t.Helper()
	done := make(chan error)
	go func() { done <- w.run(w.inFile(), time.Hour) }()
	f()
	if err := <-done; err != nil {
		w.t.Error(err)
	}
}

func TestWhatIsAppendedIsReadAndErased(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.with(func() {
			<-time.After(time.Second)
			w.append("inmsg.txt", "["+say("1")+"]\n"+say("2")+"\n")
			<-time.After(3 * time.Second)
			w.want("1,2")
			w.wantErased()
			w.append("inmsg.txt", say("3")+"\n- {toNode: a, method: REQPing, data: ['4']}\n---\n")
			<-time.After(3 * time.Second)
			w.want("1,2,3,4")
			w.wantErased()
		})
	})
}

func TestHalfAnArrayWaitsForItsRest(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.with(func() {
			text := "[" + say("2") + "," + say("3é") + "]"
			w.append("inmsg.txt", say("1"))
			for i := range len(text) {
				w.append("inmsg.txt", text[i:i+1])
				<-time.After(2 * time.Second)
				if i < len(text)-1 && w.got() != "1" {
					t.Fatalf("after %q: %q", text[:i+1], w.got())
				}
			}
			w.want("1,2,3é")
			w.append("inmsg.txt", "- toNode: a\n  method: REQPing\n")
			<-time.After(10 * time.Minute)
			w.want("1,2,3é")
			w.append("inmsg.txt", "  data: ['4']\n---\n")
			<-time.After(3 * time.Second)
			w.want("1,2,3é,4")
			w.wantErased()
		})
	})
}

func TestWhatIsRefusedIsKeptWithTheReason(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		bad := `[{"toNode":"a","method":"REQPong"}]`
		w.append("inmsg.txt", say("1")+bad+say("2"))
		w.wantRun(w.inFile(), 5*time.Second)
		w.want("1,2")
		w.wantErased()
		if got := w.read("inmsg.txt.error"); !strings.HasPrefix(got, "# ") || !strings.Contains(got, "unknown method \"REQPong\"") || !strings.HasSuffix(got, "\n"+bad+"\n") {
			t.Errorf("%q", got)
		}
		if !w.reported("unknown method") {
			t.Error("not reported")
		}
		w.append("inmsg.txt", say("3")+"]"+say("no"))
		w.wantRun(w.inFile(), 5*time.Second)
		w.want("1,2,3")
		w.wantErased()
		if got := w.read("inmsg.txt.error"); !strings.HasSuffix(got, "\n]"+say("no")+"\n") {
			t.Errorf("%q", got)
		}
	})
}

func TestOneMessageThatCannotBeStoredSpoilsNoOther(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		n := 0
		w.before = func() error {
			if n++; n == 1 || n == 3 { // all of them, and then the second alone
				return fmt.Errorf("%w message: too large", message.ErrInvalid)
			}
			return nil
		}
		w.append("inmsg.txt", say("1")+say("2")+say("3"))
		w.wantRun(w.inFile(), 5*time.Second)
		w.want("1,3")
		if got := w.read("inmsg.txt.error"); !strings.HasSuffix(got, "too large\n"+say("2")+"\n") {
			t.Errorf("%q", got)
		}
	})
}

func TestFileThatIsWrittenAnewIsReadFromItsBegin(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.with(func() {
			w.append("inmsg.txt", say("1")+"[")
			<-time.After(3 * time.Second)
			w.want("1")
			w.write("inmsg.txt", say("2")+say("3")) // longer than what was read of the old one
			<-time.After(3 * time.Second)
			w.want("1,2,3")
			w.wantErased()
			if err := os.Remove(w.path("inmsg.txt")); err != nil {
				t.Fatal(err)
			}
			<-time.After(3 * time.Second)
			w.append("inmsg.txt", say("4"))
			<-time.After(3 * time.Second)
			w.want("1,2,3,4")
		})
	})
}

func TestWriterThatKeepsTheFileOpenIsHeard(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.with(func() {
			f, err := os.OpenFile(w.path("inmsg.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var want []string
			for i, pause := range []time.Duration{3, 3, 30, 3, 30} {
				want = append(want, fmt.Sprint(i))
				if _, err := f.WriteString(say(want[i])); err != nil {
					t.Fatal(err)
				}
				<-time.After(pause * time.Second)
				w.want(strings.Join(want, ","))
			}
			w.wantErased()
		})
	})
}

func TestFullStoreDelaysTheInFile(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		full := 5
		w.before = func() error {
			if full--; full >= 0 {
				return errors.New("the ring buffer is full")
			}
			return nil
		}
		w.append("inmsg.txt", say("1")+say("2"))
		w.wantRun(w.inFile(), 3*time.Minute)
		w.want("1,2")
		w.wantErased()
	})
}

func TestLinkIsNoInFile(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("secret", say("1"))
		if err := os.Symlink(w.path("secret"), w.path("inmsg.txt")); err != nil {
			t.Fatal(err)
		}
		if err := w.run(w.inFile(), 5*time.Second); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
		w.want("")
	})
}

// However the text comes and wherever the node dies, each message is accepted once and in
// order.
func TestInFileTakesEachMessageOnceAcrossCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "s")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var text strings.Builder
		var want []string
		for i := range rapid.IntRange(1, 20).Draw(rt, "arrays") {
			want = append(want, fmt.Sprint(i))
			text.WriteString(say(fmt.Sprint(i)) + "\n")
		}
		// What is appended before each start, and where that one dies.
		type life struct{ text, crash string }
		var lives []life
		for rest := text.String(); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "bytes")
			lives = append(lives, life{rest[:n], rapid.SampledFrom([]string{"", "before", "after"}).Draw(rt, "crash")})
			rest = rest[n:]
		}
		lives = append(lives, life{})
		w := &fileWorld{&ledger{ids: map[message.ID]bool{}}, t, dir}
		synctest.Test(t, func(t *testing.T) {
			w.t = t
			for _, l := range lives {
				w.append("inmsg.txt", l.text)
				w.before, w.after = nil, nil
				switch l.crash {
				case "before":
					w.before = func() error { panic("crash") }
				case "after":
					w.after = func() { panic("crash") }
				}
				if err := w.run(w.inFile(), 5*time.Second); err != nil && err != errCrash {
					t.Error(err)
				}
			}
		})
		if got := w.got(); got != strings.Join(want, ",") {
			rt.Fatalf("accepted %s", got)
		}
		if got := w.read("inmsg.txt"); got != "" || w.exists("inmsg.txt.note") {
			rt.Fatalf("left behind: %q", got)
		}
	})
}
