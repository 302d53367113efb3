package methods

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"steward/message"
	"steward/message/wire"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    message.MethodOpCommand,
	Summary: "do what the operation says with the node's processes and queue; the reply is what was done",
	Details: "`opCmd` in `operation` is `ps`, `startProc`, `stopProc` or `clearQueue`, and `opArg` holds its arguments. Nothing of " +
		"it outlasts the node: at the next start the configuration decides again.",
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Ordered: true, // what is stopped and then started runs
	// Once: after a restart an id is that of another process, and more is older than an age.
	Crash: process.Once,
	Reply: message.MethodToFileAppend,
	Run:   opCommand,
})

func opCommand(ctx context.Context, c *process.Call) (process.Outcome, error) {
	out := process.Outcome{Exit: -1}
	op := c.Message.Operation
	switch {
	case op == nil:
		return out, errors.New("no operation")
	case c.Operator == nil:
		return out, errors.New("this node takes no operations")
	}
	if err := wire.CheckOperation(op); err != nil {
		return out, err
	}
	var text string
	var err error
	switch op.Cmd {
	case message.OpPs:
		// A tree may be larger than one part.
		text, err = ProcessText(c.Operator.Tree())
		for err == nil && len(text) > process.MaxPart {
			err = c.Emit(ctx, []byte(text[:process.MaxPart]))
			text = text[process.MaxPart:]
		}
	case message.OpStartProc:
		text, err = startProc(ctx, c, op.Arg)
	case message.OpStopProc:
		text, err = stopProc(ctx, c, op.Arg)
	case message.OpClearQueue:
		text, err = clearQueue(ctx, c, op.Arg)
	}
	out.Body = []byte(text)
	return out, err
}

// ProcessText shows a process tree, a line for each process; a child stands below its parent and
// further to the right.
func ProcessText(t process.Tree) (string, error) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tSINCE\tRESTARTS\tLAST ERROR")
	psLines(w, t, 0)
	err := w.Flush()
	return b.String(), err
}

func psLines(w *tabwriter.Writer, t process.Tree, depth int) {
	id, last := "-", "-"
	if t.ID != 0 {
		id = fmt.Sprint(t.ID)
	}
	if t.Error != "" {
		last = strings.Join(strings.Fields(t.Error), " ")
	}
	fmt.Fprintf(w, "%s\t%s%s\t%s\t%s\t%d\t%s\n", id, strings.Repeat("  ", depth), t.Name, t.State, t.Since.UTC().Format(time.RFC3339), t.Restarts, last)
	for _, child := range t.Children {
		psLines(w, child, depth+1)
	}
}

func startProc(ctx context.Context, c *process.Call, a message.OperationArg) (string, error) {
	if a.Kind == message.KindPublisher {
		if err := c.Operator.StartPublisher(ctx, a.Method, a.ReceivingNode); err != nil {
			return "", err
		}
		return fmt.Sprintf("started the publisher of %s to %s\n", a.Method, a.ReceivingNode), nil
	}
	if err := here(c, a.ReceivingNode); err != nil {
		return "", err
	}
	if err := c.Operator.StartSubscriber(ctx, a.Method, a.AllowedNodes); err != nil {
		return "", err
	}
	who := "whom it allowed before"
	if len(a.AllowedNodes) > 0 {
		who = fmt.Sprint(a.AllowedNodes)
	}
	return fmt.Sprintf("started the subscriber of %s for %s\n", a.Method, who), nil
}

func stopProc(ctx context.Context, c *process.Call, a message.OperationArg) (string, error) {
	if a.ID != 0 {
		named, err := byID(c.Operator.Tree(), int64(a.ID), c.Self)
		if err != nil {
			return "", err
		}
		if a.Method != "" && a.Method != named.Method || a.Kind != "" && a.Kind != named.Kind ||
			a.ReceivingNode != "" && a.ReceivingNode != named.ReceivingNode {
			return "", fmt.Errorf("id %d is the %s of %s for %s, and not what method, kind and receivingNode say", a.ID, named.Kind, named.Method, named.ReceivingNode)
		}
		a = named
	}
	if a.Kind == message.KindPublisher {
		if err := c.Operator.StopPublisher(ctx, a.Method, a.ReceivingNode); err != nil {
			return "", err
		}
		return fmt.Sprintf("stopped the publisher of %s to %s\n", a.Method, a.ReceivingNode), nil
	}
	if err := here(c, a.ReceivingNode); err != nil {
		return "", err
	}
	if err := c.Operator.StopSubscriber(ctx, a.Method); err != nil {
		return "", err
	}
	return fmt.Sprintf("stopped the subscriber of %s\n", a.Method), nil
}

// here says whether a subscriber's receivingNode, which need not be given, is this node.
func here(c *process.Call, n message.Node) error {
	if n != "" && n != c.Self && n != message.Local {
		return fmt.Errorf("the subscribers here have the receivingNode %s; send this to %s", c.Self, n)
	}
	return nil
}

// byID says which subscriber or publisher has a number.
func byID(t process.Tree, id int64, self message.Node) (message.OperationArg, error) {
	for _, branch := range t.Children {
		for _, child := range branch.Children {
			if child.ID != id {
				continue
			}
			if branch.Name == "subscribers" {
				return message.OperationArg{Method: message.Method(child.Name), Kind: message.KindSubscriber, ReceivingNode: self}, nil
			}
			if m, to, ok := process.ParsePublisherName(child.Name); ok {
				return message.OperationArg{Method: m, Kind: message.KindPublisher, ReceivingNode: to}, nil
			}
			return message.OperationArg{}, fmt.Errorf("id %d is %q: only subscribers and publishers can be stopped", id, child.Name)
		}
		if branch.ID == id {
			return message.OperationArg{}, fmt.Errorf("id %d is %q: only subscribers and publishers can be stopped", id, branch.Name)
		}
	}
	return message.OperationArg{}, fmt.Errorf("id %d: %w; ps shows the ids", id, process.ErrNoProcess)
}

func clearQueue(ctx context.Context, c *process.Call, a message.OperationArg) (string, error) {
	to := a.ReceivingNode
	if to == message.Local {
		to = c.Self
	}
	f := process.QueueFilter{ID: a.MessageID, To: to, Method: a.Method, OlderThan: a.OlderThan}
	cleared, err := c.Operator.ClearQueue(ctx, f, fmt.Sprintf("%s with message %s", c.Message.From, c.Message.ID))
	var b strings.Builder
	total := 0
	for _, s := range cleared {
		total += s.Messages
		fmt.Fprintf(&b, "%d %s.%s\n", s.Messages, s.To, s.Method)
	}
	return fmt.Sprintf("removed %d\n%s", total, b.String()), err
}
