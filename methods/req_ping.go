package methods

import (
	"context"
	"fmt"
	"strings"

	"steward/client"
	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQPing",
	Summary: "answer with the name of the node, and note the ping in a file",
	Details: "The line is in `<directory>/<sender>/<fileName>` of the node that is asked; the answer leaves one at the sender. " +
		"A command that waits for the answer, such as `steward doctor`, leaves neither.",
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
	if strings.HasPrefix(c.Message.Directory, client.AskedFolder+"/") {
		// The answer is for a command that fetches it, and the folder is the sender's.
	} else if err := pingLog.line(ctx, c); err != nil {
		c.Log.Warn("ping not noted", "err", err)
	}
	return process.Outcome{Body: fmt.Appendf(nil, "pong from %s\n", c.Self), Exit: -1}, nil
}

var pingLog = lineLog{
	file: (*message.Message).File,
	text: func(m *message.Message) string { return "ping from " + string(m.From) },
}
