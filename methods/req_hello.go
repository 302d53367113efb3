package methods

import (
	"context"
	"path"
	"strings"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    message.MethodHello,
	Summary: "note in hello/<node>/hello.log that a node said it is there",
	Details: "A node says it by itself every `startPubREQHello` seconds. It is sent once, and not kept when there is no link.",
	Args:    "[TEXT ...]",
	Kind:    message.EventNACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Repeat,
	Reply:   message.MethodNone,
	Run: func(ctx context.Context, c *process.Call) (process.Outcome, error) {
		return process.Outcome{Exit: -1}, helloLog.line(ctx, c)
	},
})

var helloLog = lineLog{
	file: func(m *message.Message) (string, error) {
		return path.Join(helloFolder, string(m.From), helloFile), m.From.Check()
	},
	text: func(m *message.Message) string {
		return strings.TrimSpace(helloFrom(m.From) + strings.Join(m.Data, " "))
	},
	rotate: rotateAt,
}

// helloFolder has a folder for each node, with a helloFile in it.
const (
	helloFolder = "hello"
	helloFile   = "hello.log"
)

func helloFrom(n message.Node) string { return "hello from " + string(n) + " " }
