package wire

import (
	"errors"
	"fmt"
	"slices"

	"steward/message"
)

// operationTakes says which arguments a command takes, and whether there is such a command.
func operationTakes(cmd string) (args []string, known bool) {
	switch cmd {
	case message.OpPs:
		return nil, true
	case message.OpStartProc:
		return []string{"method", "kind", "receivingNode", "allowedNodes"}, true
	case message.OpStopProc:
		return []string{"method", "kind", "receivingNode", "id"}, true
	case message.OpClearQueue:
		return []string{"method", "receivingNode", "messageID", "olderThan"}, true
	}
	return nil, false
}

// CheckOperation says whether an operation makes sense, whatever node it is for. An argument
// that its command does not take is refused: clearQueue with a mistaken one would remove more
// than was meant. The error wraps [message.ErrInvalid].
func CheckOperation(op *message.Operation) error {
	takes, known := operationTakes(op.Cmd)
	if !known {
		names := []string{message.OpPs, message.OpStartProc, message.OpStopProc, message.OpClearQueue}
		return fmt.Errorf("%w opCmd %s%s", message.ErrInvalid, message.Quote(op.Cmd), DidYouMean(op.Cmd, names))
	}
	a := &op.Arg
	for _, given := range []struct {
		name string
		is   bool
	}{
		{"method", a.Method != ""}, {"kind", a.Kind != ""}, {"receivingNode", a.ReceivingNode != ""}, {"id", a.ID != 0},
		{"allowedNodes", len(a.AllowedNodes) > 0}, {"messageID", !a.MessageID.IsZero()}, {"olderThan", a.OlderThan != 0},
	} {
		if given.is && !slices.Contains(takes, given.name) {
			return fmt.Errorf("%w opArg: %s takes no %s%s", message.ErrInvalid, op.Cmd, given.name, DidYouMean(given.name, takes))
		}
	}
	if kinds := []string{message.KindSubscriber, message.KindPublisher}; a.Kind != "" && !slices.Contains(kinds, a.Kind) {
		return fmt.Errorf("%w kind %s%s", message.ErrInvalid, message.Quote(a.Kind), DidYouMean(a.Kind, kinds))
	}
	if err := complete(op); err != nil {
		return fmt.Errorf("%w opArg of %s: %w", message.ErrInvalid, op.Cmd, err)
	}
	return nil
}

// complete says what an operation lacks.
func complete(op *message.Operation) error {
	a := &op.Arg
	publisher := a.Kind == message.KindPublisher
	switch op.Cmd {
	case message.OpStartProc, message.OpStopProc:
		byID := op.Cmd == message.OpStopProc && a.ID != 0
		switch {
		case a.Method == "" && !byID:
			return errors.New("method is missing")
		case a.Kind == "" && op.Cmd == message.OpStopProc && !byID:
			return errors.New("kind is missing: subscriber or publisher")
		case publisher && a.ReceivingNode == "" && !byID:
			return errors.New("receivingNode is missing: a publisher is that of a method and a node")
		case publisher && len(a.AllowedNodes) > 0:
			return errors.New("allowedNodes are those of a subscriber")
		}
	case message.OpClearQueue:
		if a.Method == "" && a.ReceivingNode == "" && a.MessageID.IsZero() && a.OlderThan == 0 {
			return errors.New("one of messageID, receivingNode, method and olderThan has to say what to remove")
		}
	}
	return nil
}
