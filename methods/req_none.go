package methods

import (
	"context"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    message.MethodNone,
	Summary: "do nothing; as a reply method it says that no reply is wanted",
	Args:    "[TEXT ...]",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Crash:   process.Repeat,
	Reply:   message.MethodNone,
	Run: func(context.Context, *process.Call) (process.Outcome, error) {
		return process.Outcome{Exit: -1}, nil
	},
})
