package methods_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"steward/message"
)

// rules note what they are to be replaced by.
type rules struct {
	asked string
	err   error
}

func (r *rules) Replace(text string, by message.Node, force bool) (string, error) {
	r.asked = fmt.Sprintf("%q by %s, force %v", text, by, force)
	return "done\n", r.err
}

func TestRulesReachTheNode(t *testing.T) {
	refused := errors.New("they are old")
	for _, c := range []struct {
		m     message.Message
		asked string
		err   error
	}{
		{message.Message{Data: []string{"a\nb"}}, `"a\nb" by central, force false`, nil},
		{message.Message{Data: []string{"a", "force"}}, `"a" by central, force true`, nil},
		{message.Message{Data: []string{"a"}}, `"a" by central, force false`, refused},
		{message.Message{Data: []string{"a", "forc"}}, "", message.ErrInvalid},
		{message.Message{Data: []string{"a", "force", ""}}, "", message.ErrInvalid},
		{reply(message.Message{Data: []string{"a"}}, 0, true), "", nil},
		{reply(message.Message{Data: []string{"a"}}, 1, false), `"a" by central, force false`, nil},
	} {
		b := newBench(t)
		r := &rules{err: c.err}
		b.Rules = r
		out, err := b.run(t, "REQAclUpdate", c.m)
		if r.asked != c.asked || !errors.Is(err, c.err) {
			t.Errorf("%q: asked %s, %v; want %s, %v", c.m.Data, r.asked, err, c.asked, c.err)
		}
		if c.err == nil && c.asked != "" && string(out.Body) != "done\n" {
			t.Errorf("%q: %q", c.m.Data, out.Body)
		}
	}
}

func TestRulesThatCannotBeSaySo(t *testing.T) {
	b := newBench(t)
	if _, err := b.run(t, "REQAclUpdate", message.Message{Data: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "this node has no rules") {
		t.Error(err)
	}
	b.Rules = &rules{}
	if _, err := b.run(t, "REQAclUpdate", reply(message.Message{}, 0, false)); err == nil || !strings.Contains(err.Error(), "data is empty") {
		t.Error(err)
	}
}
