package methods

import (
	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQnCliCommand",
	Summary: "run a command, many at a time; the reply is what it printed",
	Details: "As `REQCliCommand`, but a command that takes long holds up no other. As many as `maxParallel` run at once.",
	Args:    "COMMAND [ARG ...]",
	MinArgs: 1,
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Crash:   process.Once,
	Reply:   message.MethodToFileAppend,
	Run:     command{grace: commandGrace}.run,
})
