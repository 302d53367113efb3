package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// subscriberOf finds a method's subscriber in the tree.
func subscriberOf(t *testing.T, n *Node, m message.Method) (process.Tree, bool) {
	t.Helper()
	for _, branch := range n.Tree().Children {
		if i := slices.IndexFunc(branch.Children, func(c process.Tree) bool { return c.Name == string(m) }); branch.Name == "subscribers" && i >= 0 {
			return branch.Children[i], true
		}
	}
	return process.Tree{}, false
}

func allows(op *operator, method message.Method, from message.Node) bool {
	return op.judge(method)(from, &message.Message{Method: method}) == nil
}

func TestSubscribersStopAndStartWithTheirListsAndKeepTheirIDs(t *testing.T) {
	n := run(t, "-startSubREQPong=RST", "-startSubREQPing=a,b")
	op := n.operator
	before, _ := subscriberOf(t, n, "REQPing")
	for range 2 { // twice is once
		if err := op.StopSubscriber(t.Context(), "REQPing"); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := subscriberOf(t, n, "REQPing"); got.State != process.Stopped {
		t.Errorf("stopped: %+v", got)
	}
	if err := op.StartSubscriber(t.Context(), "REQPing", nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := subscriberOf(t, n, "REQPing"); got.State != process.Running || got.ID == 0 || got.ID != before.ID {
		t.Errorf("started: %+v, before %+v", got, before)
	}
	if !allows(op, "REQPing", "a") || allows(op, "REQPing", "c") {
		t.Error("it has another list than before")
	}
	if err := op.StartSubscriber(t.Context(), "REQPing", []message.Node{"c"}); err != nil {
		t.Fatal(err)
	}
	if allows(op, "REQPing", "a") || !allows(op, "REQPing", "c") {
		t.Error("the new list does not count")
	}

	if err := op.StartSubscriber(t.Context(), "REQPong", nil); err == nil || !strings.Contains(err.Error(), "allowedNodes has to say who") {
		t.Errorf("one that is off, without a list: %v", err)
	}
	if err := op.StartSubscriber(t.Context(), "REQPong", []message.Node{"*"}); err != nil {
		t.Fatal(err)
	}
	if got, ok := subscriberOf(t, n, "REQPong"); !ok || got.State != process.Running || !allows(op, "REQPong", "anybody") {
		t.Errorf("one that was off: %+v", got)
	}
	if err := op.StopSubscriber(t.Context(), "REQPong"); err != nil {
		t.Fatal(err)
	}
	if err := op.StopSubscriber(t.Context(), "REQPong"); !errors.Is(err, process.ErrNoProcess) {
		t.Errorf("one that is off: %v", err)
	}
}

func TestOperationsThatCannotBeDoneSayWhy(t *testing.T) {
	n := run(t)
	op := n.operator
	if err := op.StartSubscriber(t.Context(), "REQAclUpdate", []message.Node{"*"}); err == nil || !strings.Contains(err.Error(), "for startSubREQAclUpdate in the configuration alone") {
		t.Errorf("a list for the rules: %v", err)
	}
	if err := op.StopSubscriber(t.Context(), "REQOpCommand"); err == nil || !strings.Contains(err.Error(), "nothing could start it again") {
		t.Errorf("its own subscriber: %v", err)
	}
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error { return op.StopSubscriber(ctx, "REQPin") },
		func(ctx context.Context) error { return op.StartSubscriber(ctx, "REQPin", []message.Node{"*"}) },
	} {
		if err := do(t.Context()); err == nil || !strings.Contains(err.Error(), `did you mean "REQPing"?`) {
			t.Errorf("a method that there is not: %v", err)
		}
	}
	op.turn <- struct{}{} // another operation hangs
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := op.StopSubscriber(ctx, "REQPing"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for another operation: %v", err)
	}
	op.give()
}

func TestProcessesHaveDifferentIDs(t *testing.T) {
	n := run(t)
	seen := map[int64]string{}
	var walk func(process.Tree)
	walk = func(p process.Tree) {
		for _, c := range p.Children {
			if seen[c.ID] != "" || c.ID == 0 {
				t.Errorf("%s has the id %d of %q", c.Name, c.ID, seen[c.ID])
			}
			seen[c.ID] = c.Name
			walk(c)
		}
	}
	walk(n.Tree())
	if len(seen) < 15 {
		t.Errorf("%d processes", len(seen))
	}
}
