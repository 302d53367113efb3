package methods

import (
	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQnCliCommandCont",
	Summary: "run a command, many at a time; what it prints is sent on while it runs",
	Details: "As `REQnCliCommand`. The parts of its reply are messages of their own, each with `replyRetries` attempts.",
	Args:    "COMMAND [ARG ...]",
	MinArgs: 1,
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Crash:   process.Once,
	Reply:   message.MethodToFileAppend,
	Run:     command{grace: commandGrace, within: untilLater}.run,
})
