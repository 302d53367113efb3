package errorkernel_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"steward/errorkernel"
	"steward/message"
)

// sent returns the one line that a kernel makes of ev.
func sent(t *testing.T, ev errorkernel.Event) string {
	t.Helper()
	var text string
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.Report(ev)
		defer r.serve(t)()
		lines := r.central.got()
		if len(lines) != 1 {
			t.Fatalf("%d lines for one event", len(lines))
		}
		text = lines[0]
	})
	return text
}

func TestLineNamesAllThatIsKnown(t *testing.T) {
	id := message.NewID(time.UnixMilli(1), 2, 3)
	got := sent(t, errorkernel.Event{
		Class:    errorkernel.GivenUp,
		Process:  "publishers/ship2.REQPing.EventACK",
		Err:      errors.New(`no ack in 3 attempts`),
		Stack:    "goroutine 1",
		Subject:  "ship2.REQPing.EventACK",
		ID:       id,
		From:     "central",
		Method:   "REQPing",
		Failures: 2,
		At:       time.Date(2026, 5, 1, 12, 0, 0, 5e6, time.FixedZone("x", 3600)),
	})
	want := `time=2026-05-01T11:00:00.005Z node=ship1 class=given-up process=publishers/ship2.REQPing.EventACK ` +
		`subject=ship2.REQPing.EventACK method=REQPing id=` + id.String() +
		` from=central count=1 failures=2 cause="no ack in 3 attempts"`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLineOfAnEventWithoutAnErrorSaysSo(t *testing.T) {
	if got := sent(t, errorkernel.Event{Class: errorkernel.Refused}); !strings.Contains(got, `class=refused count=1 cause="no reason given"`) {
		t.Error(got)
	}
}

func checkLine(t *testing.T, text string) {
	t.Helper()
	if most := 4096 - len(" lost=9223372036854775807"); len(text) > most {
		t.Errorf("%d bytes", len(text))
	}
	if !utf8.ValidString(text) {
		t.Errorf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if r != ' ' && !unicode.IsPrint(r) {
			t.Errorf("%U in the line", r)
		}
	}
	// Outside of quotes there is exactly one cause, and it is not the author of the
	// error text who decides where it begins.
	bare, quoted := strings.Builder{}, false
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted:
			bare.WriteByte(text[i])
		}
	}
	if quoted {
		t.Errorf("a quote is left open: %s", text)
	}
	for _, key := range []string{"time", "node", "class", "count", "cause"} {
		if n := strings.Count(" "+bare.String(), " "+key+"="); n != 1 {
			t.Errorf("%d times %s= in %s", n, key, bare.String())
		}
	}
}

func TestLineOfHostileTextsIsOneBoundedLine(t *testing.T) {
	long := strings.Repeat("x\n\"", 1<<20)
	for _, s := range []string{
		"a\nb", "a\r\nb", "a\u2028b", "a\u0085b", "a\x1b[2Jb", "\xff\xfe", "\x00", "\u202e",
		`" cause="forged`, `x" time=1 node=central class=ok`, " count=1", long, strings.Repeat("\U000e0001", 5000),
		strings.Repeat("é", 4096), strings.Repeat("z", 4064), strings.Repeat("z", 255) + "é",
	} {
		checkLine(t, sent(t, hostile(s)))
	}
}

func hostile(s string) errorkernel.Event {
	return errorkernel.Event{
		Class: errorkernel.Refused, Process: s, Err: errors.New(s), Subject: s, From: message.Node(s), Method: message.Method(s),
		ID: message.NewID(time.UnixMilli(1), 2, 3), Failures: 1 << 40,
	}
}

func FuzzLine(f *testing.F) {
	f.Add("broken")
	f.Add("a\nb\" cause=")
	f.Add("\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		// What is about error messages is never sent.
		checkLine(t, sent(t, hostile(strings.ReplaceAll(s, "REQErrorLog", "REQOther"))))
	})
}
