package methods

import (
	"context"
	"fmt"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQPing",
	Summary: "answer with the name of the node, and note the ping in a file",
	Details: "The line is in `<directory>/<sender>/<fileName>` of the node that is asked; the answer leaves one at the sender.",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Repeat,
	Reply:   "REQPong",
	Run:     ping,
})

// ping answers also when its line cannot be written: a node with a full disk is one that
// people want to reach.
func ping(ctx context.Context, c *process.Call) (process.Outcome, error) {
	if err := pingLog.line(ctx, c); err != nil {
		c.Log.Warn("ping not noted", "err", err)
	}
	return process.Outcome{Body: fmt.Appendf(nil, "pong from %s\n", c.Self), Exit: -1}, nil
}

var pingLog = lineLog{
	file: (*message.Message).File,
	text: func(m *message.Message) string { return "ping from " + string(m.From) },
}
