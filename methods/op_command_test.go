package methods_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// operator notes what it is asked to do.
type operator struct {
	tree  process.Tree
	asked string
	err   error
}

func (o *operator) note(format string, args ...any) error {
	o.asked = fmt.Sprintf(format, args...)
	return o.err
}

func (o *operator) Tree() process.Tree { return o.tree }
func (o *operator) StartSubscriber(_ context.Context, m message.Method, allowed []message.Node) error {
	return o.note("start %s %v", m, allowed)
}
func (o *operator) StopSubscriber(_ context.Context, m message.Method) error {
	return o.note("stop %s", m)
}
func (o *operator) StartPublisher(_ context.Context, m message.Method, to message.Node) error {
	return o.note("start %s to %s", m, to)
}
func (o *operator) StopPublisher(_ context.Context, m message.Method, to message.Node) error {
	return o.note("stop %s to %s", m, to)
}
func (o *operator) ClearQueue(_ context.Context, f process.QueueFilter, by string) ([]process.Cleared, error) {
	return []process.Cleared{{To: "a", Method: "REQPing", Messages: 2}, {To: "b", Method: "REQPong", Messages: 1}},
		o.note("clear %s %s %s %v for %s", f.ID, f.To, f.Method, f.OlderThan, strings.Fields(by)[0])
}

func opTree() process.Tree {
	since := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	return process.Tree{Name: "ship1", State: process.Running, Since: since, Children: []process.Tree{
		{Name: "error kernel", ID: 1, State: process.Running, Since: since},
		{Name: "publishers", ID: 2, State: process.Running, Since: since, Children: []process.Tree{
			{Name: process.PublisherName("REQPong", "ww.central"), ID: 12, State: process.Running, Since: since}}},
		{Name: "lanes", ID: 3, State: process.Running, Since: since, Children: []process.Tree{
			{Name: "lane REQPing from central", ID: 13, State: process.Running, Since: since}}},
		{Name: "subscribers", ID: 4, State: process.Running, Since: since, Children: []process.Tree{
			{Name: "REQPing", ID: 14, State: process.Backoff, Since: since, Restarts: 3, Error: "subscribe:\n no link"}}},
	}}
}

func TestOperationsReachTheNode(t *testing.T) {
	id := message.NewID(time.UnixMilli(1_700_000_000_000), 5, 6)
	for _, c := range []struct {
		cmd               string
		arg               message.OperationArg
		asked, reply, err string
	}{
		{cmd: "startProc", arg: message.OperationArg{Method: "REQPing", AllowedNodes: []message.Node{"a", "*"}}, asked: "start REQPing [a *]", reply: "started the subscriber of REQPing for [a *]\n"},
		{cmd: "startProc", arg: message.OperationArg{Method: "REQPing"}, asked: "start REQPing []", reply: "started the subscriber of REQPing for whom it allowed before\n"},
		{cmd: "startProc", arg: message.OperationArg{Method: "REQPing", Kind: "publisher", ReceivingNode: "a"}, asked: "start REQPing to a", reply: "started the publisher of REQPing to a\n"},
		{cmd: "startProc", arg: message.OperationArg{Method: "REQPing", ReceivingNode: "ship2"}, err: "the subscribers here have the receivingNode ship1; send this to ship2"},
		{cmd: "stopProc", arg: message.OperationArg{Method: "REQPing", Kind: "subscriber", ReceivingNode: "ship1"}, asked: "stop REQPing", reply: "stopped the subscriber of REQPing\n"},
		{cmd: "stopProc", arg: message.OperationArg{Method: "REQPing", Kind: "publisher", ReceivingNode: "a"}, asked: "stop REQPing to a", reply: "stopped the publisher of REQPing to a\n"},
		{cmd: "stopProc", arg: message.OperationArg{ID: 14}, asked: "stop REQPing", reply: "stopped the subscriber of REQPing\n"},
		{cmd: "stopProc", arg: message.OperationArg{ID: 12}, asked: "stop REQPong to ww.central", reply: "stopped the publisher of REQPong to ww.central\n"},
		{cmd: "stopProc", arg: message.OperationArg{ID: 14, Method: "REQPing", Kind: "subscriber", ReceivingNode: "ship1"}, asked: "stop REQPing", reply: "stopped the subscriber of REQPing\n"},
		{cmd: "stopProc", arg: message.OperationArg{ID: 14, Method: "REQPong", Kind: "subscriber"}, err: "id 14 is the subscriber of REQPing for ship1, and not what method, kind and receivingNode say"},
		{cmd: "stopProc", arg: message.OperationArg{ID: 13}, err: `id 13 is "lane REQPing from central": only subscribers and publishers can be stopped`},
		{cmd: "stopProc", arg: message.OperationArg{ID: 1}, err: `id 1 is "error kernel": only subscribers and publishers can be stopped`},
		{cmd: "stopProc", arg: message.OperationArg{ID: 127}, err: "id 127: no such process; ps shows the ids"},
		{cmd: "clearQueue", arg: message.OperationArg{MessageID: id, ReceivingNode: "local", Method: "REQPing", OlderThan: time.Minute},
			asked: "clear " + id.String() + " ship1 REQPing 1m0s for central", reply: "removed 3\n2 a.REQPing\n1 b.REQPong\n"},
		{cmd: "PS", err: `invalid opCmd "PS", did you mean "ps"?`},
	} {
		b := newBench(t)
		op := &operator{tree: opTree()}
		b.Operator = op
		out, err := spec(t, "REQOpCommand").Run(t.Context(), b.call(message.Message{Method: "REQOpCommand", Operation: &message.Operation{Cmd: c.cmd, Arg: c.arg}}))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.err || op.asked != c.asked || string(out.Body) != c.reply {
			t.Errorf("%s %+v: %q, asked %q, reply %q", c.cmd, c.arg, got, op.asked, out.Body)
		}
	}
}

func TestAFailedOperationIsAFailedRun(t *testing.T) {
	b := newBench(t)
	broken := errors.New("broken")
	b.Operator = &operator{err: broken}
	for _, op := range []message.Operation{
		{Cmd: "startProc", Arg: message.OperationArg{Method: "REQPing"}},
		{Cmd: "stopProc", Arg: message.OperationArg{Method: "REQPing", Kind: "subscriber"}},
		{Cmd: "clearQueue", Arg: message.OperationArg{Method: "REQPing"}},
	} {
		if _, err := spec(t, "REQOpCommand").Run(t.Context(), b.call(message.Message{Operation: &op})); !errors.Is(err, broken) {
			t.Errorf("%s: %v", op.Cmd, err)
		}
	}
}

func TestPsShowsTheTree(t *testing.T) {
	b := newBench(t)
	b.Operator = &operator{tree: opTree()}
	out, err := spec(t, "REQOpCommand").Run(t.Context(), b.call(message.Message{Operation: &message.Operation{Cmd: "ps"}}))
	want := `ID  NAME                               STATE    SINCE                 RESTARTS  LAST ERROR
-   ship1                              running  2024-05-06T07:08:09Z  0         -
1     error kernel                     running  2024-05-06T07:08:09Z  0         -
2     publishers                       running  2024-05-06T07:08:09Z  0         -
12      publisher REQPong to ww.central  running  2024-05-06T07:08:09Z  0         -
`
	if err != nil {
		t.Fatal(err)
	}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	lines := strings.Split(string(out.Body), "\n")
	for i, line := range strings.Split(strings.TrimSpace(want), "\n") {
		if squeeze(lines[i]) != squeeze(line) {
			t.Errorf("line %d: %q, want %q", i, lines[i], line)
		}
	}
	if got, want := squeeze(lines[len(lines)-2]), "14 REQPing backoff 2024-05-06T07:08:09Z 3 subscribe: no link"; got != want {
		t.Errorf("last line: %q, want %q", got, want)
	}
	if !strings.HasPrefix(lines[4], "12  "+strings.Repeat(" ", 4)+"publisher") {
		t.Errorf("a child does not stand below its parent: %q", lines[4])
	}
}
