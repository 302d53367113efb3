package methods

import (
	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQCliCommand",
	Summary: "run a command, one after the other per sender; the reply is what it printed",
	Args:    "COMMAND [ARG ...]",
	MinArgs: 1,
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Ordered: true,
	Crash:   process.Once,
	Reply:   message.MethodToFileAppend,
	Run:     command{grace: commandGrace, whole: true}.run,
})
