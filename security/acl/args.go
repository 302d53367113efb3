package acl

import (
	"fmt"
	"strings"
	"time"

	"steward/message"
)

// Arg is one argument, as far as it is known before it is run.
type Arg struct {
	Text string
	// Open: Text is only how it begins. A rule that denies fits it if it may become what the rule
	// says; a rule that allows has to fit whatever it becomes.
	Open bool
}

// argsOf returns the arguments of m, once for each node that it names if it is an operation.
func argsOf(self message.Node, m *message.Message) [][]Arg {
	if m.Method == message.MethodOpCommand && m.Operation != nil { // other methods look at their data only
		return operationArgs(self, m.Operation)
	}
	args := make([]Arg, len(m.Data))
	for i, text := range m.Data {
		// What a command printed comes in its place, which may be anything.
		known, _, open := strings.Cut(text, message.DataPlaceholder)
		args[i] = Arg{Text: known, Open: open}
	}
	return [][]Arg{args}
}

// operationArgs writes an operation as its command and then name=value for all that the command
// takes, in the same order always. What is left out and has a meaning is written down; what is left
// out and may be anything is open.
func operationArgs(self message.Node, op *message.Operation) [][]Arg {
	a := &op.Arg
	args := []Arg{{Text: op.Cmd}}
	add := func(name, value string, open bool) {
		args = append(args, Arg{Text: name + "=" + value, Open: open && value == ""})
	}
	byID := op.Cmd == message.OpStopProc && a.ID != 0
	receiver := a.ReceivingNode
	if receiver == message.Local || receiver == "" && a.Kind != message.KindPublisher && !byID && op.Cmd != message.OpClearQueue {
		receiver = self
	}
	switch op.Cmd {
	case message.OpStartProc:
		kind := a.Kind
		if kind == "" {
			kind = message.KindSubscriber
		}
		add("method", string(a.Method), false)
		add("kind", kind, false)
		add("receivingNode", string(receiver), false)
		if len(a.AllowedNodes) == 0 {
			add("allowedNodes", "", false)
			break
		}
		all := make([][]Arg, 0, len(a.AllowedNodes))
		for _, n := range a.AllowedNodes {
			all = append(all, append(args[:len(args):len(args)], Arg{Text: "allowedNodes=" + string(n)}))
		}
		return all
	case message.OpStopProc:
		add("method", string(a.Method), byID)
		add("kind", a.Kind, byID)
		add("receivingNode", string(receiver), byID)
		add("id", fmt.Sprint(a.ID), false)
	case message.OpClearQueue:
		id := ""
		if !a.MessageID.IsZero() {
			id = a.MessageID.String()
		}
		add("receivingNode", string(receiver), true)
		add("method", string(a.Method), true)
		add("messageID", id, true)
		add("olderThan", fmt.Sprint(int64(a.OlderThan/time.Second)), false)
	}
	return [][]Arg{args}
}
