package message_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"steward/message"
)

func TestNodeCheckRefusesWhatHasAMeaningInSubjectsOrPaths(t *testing.T) {
	long := strings.Repeat("n", 255)
	tests := map[string]bool{
		"central": true, "ship1": true, "ww.central": true, "a": true, "a.b.c.d": true, "-x_y": true,
		"størrelse": true, "船1": true, long: true, "local": true, "a-.b": true,

		"": false, " ": false, "a b": false, "a\tb": false, "a\r\nb": false, "a\n": false, "a\x00b": false, "a\x7f": false,
		"*": false, ">": false, "a.*": false, "a.>": false, "a*b": false, "a/b": false, `a\b`: false,
		".": false, "..": false, ".a": false, "a.": false, "a..b": false,
		long + "n": false, "\xff": false, "a\xc3": false,
		"a\u00a0b": false, "a\u2028b": false, "a\u200bb": false, "a\u202eb": false, "\ufeffa": false, "a\u0085b": false,
	}
	for name, want := range tests {
		err := message.Node(name).Check()
		if (err == nil) != want {
			t.Errorf("Node(%q).Check() = %v, want valid: %t", name, err, want)
		}
		if err != nil && !errors.Is(err, message.ErrInvalid) {
			t.Errorf("Node(%q).Check() = %v, which does not wrap ErrInvalid", name, err)
		}
	}
}

func TestMethodCheckRefusesDotsToo(t *testing.T) {
	tests := map[string]bool{
		"REQCliCommand": true, "REQ": true, "x": true, strings.Repeat("m", 255): true,
		"": false, "REQ.Cli": false, ".": false, "REQ Cli": false, "REQ\r\nPUB": false, "*": false, ">": false, "a/b": false,
		`a\b`: false, "../x": false, strings.Repeat("m", 256): false, "\xff": false,
	}
	for name, want := range tests {
		if err := message.Method(name).Check(); (err == nil) != want {
			t.Errorf("Method(%q).Check() = %v, want valid: %t", name, err, want)
		} else if err != nil && !errors.Is(err, message.ErrInvalid) {
			t.Errorf("Method(%q).Check() = %v, which does not wrap ErrInvalid", name, err)
		}
	}
}

func TestNameErrorsAreBounded(t *testing.T) {
	for _, bad := range []string{strings.Repeat("x", 1<<20), strings.Repeat("\x00", 200), strings.Repeat("\U0010ffff", 1000), strings.Repeat("\xff", 1<<16)} {
		_, perr := message.ParseSubject(bad)
		_, ierr := message.ParseID(bad)
		for _, err := range []error{message.Node(bad).Check(), message.Method(bad).Check(), perr, ierr, message.CheckDirectory("../" + bad), message.CheckFileName("/" + bad)} {
			if err == nil {
				t.Fatalf("%.20q… is accepted", bad)
			}
			if n := len(err.Error()); n > 2048 {
				t.Errorf("the error about %.20q… has %d bytes", bad, n)
			}
		}
	}
}

func TestQuoteIsBoundedAndPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 400), func(b []byte) string { return string(b) })).Draw(t, "s")
		q := message.Quote(s)
		if len(q) > 64*10+40 {
			t.Fatalf("%d bytes for %d", len(q), len(s))
		}
		if !utf8.ValidString(q) || strings.ContainsAny(q, "\r\n\x00\x1b") {
			t.Fatalf("not printable: %q", q)
		}
	})
}

func anyNode() *rapid.Generator[message.Node] {
	part := rapid.StringMatching(`[a-zA-Z0-9_éß船-]{1,20}`)
	return rapid.Map(rapid.SliceOfN(part, 1, 4), func(p []string) message.Node { return message.Node(strings.Join(p, ".")) })
}

func anyMethod() *rapid.Generator[message.Method] {
	return rapid.Map(rapid.StringMatching(`REQ[a-zA-Z0-9_-]{1,30}`), func(s string) message.Method { return message.Method(s) })
}

var kinds = []message.Kind{message.CommandACK, message.CommandNACK, message.EventACK, message.EventNACK}

func TestSubjectComesBackFromItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := message.Subject{Node: anyNode().Draw(t, "node"), Method: anyMethod().Draw(t, "method"), Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
		got, err := message.ParseSubject(want.String())
		if err != nil || got != want {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
	})
}

func TestParseSubjectRefusesWhatIsNone(t *testing.T) {
	for _, s := range []string{"", ".", "..", "...", "a", "a.b", "CommandACK", "REQPing.EventACK", "a.REQPing.commandACK", "a.REQPing.", "a.REQPing.Kind(0)",
		".REQPing.EventACK", "a..EventACK", "a.b..REQPing.EventACK", "a.*.EventACK", "*.REQPing.EventACK", ">.REQPing.EventACK",
		"a.REQPing.EventACK.", "a.REQPing.EventACK ", "a b.REQPing.EventACK", "a.REQPing.EventACK\r\n", "a.ACK.0123"} {
		if got, err := message.ParseSubject(s); err == nil {
			t.Errorf("ParseSubject(%q) = %v", s, got)
		} else if !errors.Is(err, message.ErrInvalid) {
			t.Errorf("ParseSubject(%q) = %v, which does not wrap ErrInvalid", s, err)
		}
	}
}

func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{"central.REQPing.EventACK", "ww.central.REQCliCommand.CommandNACK", "a.*.EventACK", "..", "\xff.x.EventNACK", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sub, err := message.ParseSubject(s)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) {
				t.Fatalf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		if sub.String() != s {
			t.Fatalf("%q comes back as %q", s, sub)
		}
		if sub.Node.Check() != nil || sub.Method.Check() != nil || strings.ContainsAny(s, "*> \t\r\n/\\") {
			t.Fatalf("%q is accepted", s)
		}
	})
}

func TestKindSaysWhetherAnACKIsWanted(t *testing.T) {
	for k, want := range map[message.Kind]struct {
		text    string
		ack     bool
		without message.Kind
	}{
		message.CommandACK:  {"CommandACK", true, message.CommandNACK},
		message.CommandNACK: {"CommandNACK", false, message.CommandNACK},
		message.EventACK:    {"EventACK", true, message.EventNACK},
		message.EventNACK:   {"EventNACK", false, message.EventNACK},
		0:                   {"Kind(0)", false, 0},
		200:                 {"Kind(200)", false, 200},
	} {
		if k.String() != want.text || k.ACK() != want.ack || k.WithoutACK() != want.without {
			t.Errorf("%d is %s, %t, %s; want %v", k, k, k.ACK(), k.WithoutACK(), want)
		}
	}
}
