package methods

import (
	"context"
	"fmt"
	"slices"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQToConsole",
	Summary: `print the reply, or lines of text, on the console of the node; with "stderr" in replyMethodArgs on stderr`,
	Args:    "[LINE ...]",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Repeat,
	Reply:   message.MethodNone,
	Run:     toConsole,
})

func toConsole(_ context.Context, c *process.Call) (process.Outcome, error) {
	w := c.Stdout
	if c.Message.IsReply() && slices.Contains(c.Message.Data, "stderr") {
		w = c.Stderr
	}
	if _, err := w.Write(content(c.Message)); err != nil {
		return process.Outcome{Exit: -1}, fmt.Errorf("print: %w", err)
	}
	return process.Outcome{Exit: -1}, nil
}
