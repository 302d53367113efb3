package methods

import (
	"steward/message"
	"steward/process"
)

var toFileAppend = appender{file: (*message.Message).File, content: content}

var _ = register(process.Spec{
	Name:    message.MethodToFileAppend,
	Summary: "append the reply, or lines of text, to a file in the data folder",
	Args:    "[LINE ...]",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Exact,
	Reply:   message.MethodNone,
	RunAll:  toFileAppend.runAll,
	Mark:    toFileAppend.mark,
	Undo:    toFileAppend.undo,
})
