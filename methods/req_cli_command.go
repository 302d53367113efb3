package methods

import (
	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQCliCommand",
	Summary: "run a command, one after the other per sender; the reply is what it printed",
	Details: "There is no shell between: write `bash`, `-c` and a text for one. At `methodTimeout` the command and all that it " +
		"started are ended. What it prints on stderr, and an exit status other than 0, go to central's error log. As a reply " +
		"method it gets the output on stdin, and in place of `{{STEWARD_DATA}}` in `replyMethodArgs`.",
	Args:    "COMMAND [ARG ...]",
	MinArgs: 1,
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Ordered: true,
	Crash:   process.Once,
	Reply:   message.MethodToFileAppend,
	Run:     command{grace: commandGrace, whole: true}.run,
})
