package subjects

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"steward/message"
)

func TestCheckRefusesWhatABrokerWouldTakeForSomethingElse(t *testing.T) {
	for _, tt := range []struct {
		name             string
		subject          string
		publish, pattern bool
	}{
		{"plain", "ship1.REQCliCommand.CommandACK", true, true},
		{"one part", "a", true, true},
		{"node with dots", "ww.central.REQHello.EventNACK", true, true},
		{"other letters", "skøyte.REQHello.EventNACK", true, true},
		{"longest", strings.Repeat("a", 1024), true, true},
		{"last part any", "ack.central.*", false, true},
		{"one part any", "*", false, true},
		{"empty", "", false, false},
		{"too long", strings.Repeat("a", 1025), false, false},
		{"blank", "a b", false, false},
		{"tab", "a\tb", false, false},
		{"protocol line", "a\r\nPUB b 0\r\n", false, false},
		{"null byte", "a\x00b", false, false},
		{"delete", "a\x7fb", false, false},
		{"not UTF-8", "a\xff", false, false},
		{"everything", ">", false, false},
		{"everything below", "a.>", false, false},
		{"any in the middle", "a.*.b", false, false},
		{"star in a part", "a.b*", false, false},
		{"two stars", "a.*.*", false, false},
		{"leading dot", ".a", false, false},
		{"trailing dot", "a.", false, false},
		{"empty part", "a..b", false, false},
		{"empty part before any", "a..*", false, false},
		{"dot before any", ".*", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			verdict(t, "Check", Check(tt.subject), tt.publish)
			verdict(t, "CheckPattern", CheckPattern(tt.subject), tt.pattern)
		})
	}
}

func verdict(t *testing.T, what string, err error, want bool) {
	t.Helper()
	if (err == nil) != want {
		t.Errorf("%s: got %v, want accepted %v", what, err, want)
	}
	if err != nil && !errors.Is(err, message.ErrInvalid) {
		t.Errorf("%s: %v does not wrap message.ErrInvalid", what, err)
	}
}

func TestMatchComparesPartByPart(t *testing.T) {
	part := rapid.StringMatching(`[a-c]{1,2}`)
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SliceOfN(part, 1, 4).Draw(t, "pattern")
		if rapid.Bool().Draw(t, "wild") {
			pattern[len(pattern)-1] = "*"
		}
		subject := rapid.SliceOfN(part, 1, 4).Draw(t, "subject")
		if rapid.Bool().Draw(t, "related") {
			subject = append([]string(nil), pattern...)
			subject[len(subject)-1] = part.Draw(t, "last")
		}
		want := len(pattern) == len(subject)
		for i := 0; want && i < len(pattern); i++ {
			want = pattern[i] == "*" || pattern[i] == subject[i]
		}
		p, s := strings.Join(pattern, "."), strings.Join(subject, ".")
		if CheckPattern(p) != nil || Check(s) != nil {
			t.Fatalf("%q or %q was refused", p, s)
		}
		if got := Match(p, s); got != want {
			t.Fatalf("Match(%q, %q) = %v, want %v", p, s, got, want)
		}
	})
}
