package methods

import (
	"context"
	"strings"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQPong",
	Summary: "note the answer to a ping in a file",
	Args:    "[TEXT ...]",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Repeat,
	Reply:   message.MethodNone,
	Run: func(ctx context.Context, c *process.Call) (process.Outcome, error) {
		return process.Outcome{Exit: -1}, pongLog.line(ctx, c)
	},
})

var pongLog = lineLog{
	file: (*message.Message).File,
	text: func(m *message.Message) string { return strings.TrimSpace(string(content(m))) },
}
