package methods

import (
	"steward/message"
	"steward/process"
)

var toFileAppend = appender{file: (*message.Message).File, content: content}

var _ = register(process.Spec{
	Name:    message.MethodToFileAppend,
	Summary: "append the reply, or lines of text, to a file in the data folder",
	Details: "The file is `<subscribersDataFolder>/<directory>/<sender>/<fileName>`. Each element of `data` is a line.",
	Args:    "[LINE ...]",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Exact,
	Reply:   message.MethodNone,
	File:    (*message.Message).File,
	RunAll:  toFileAppend.runAll,
	Mark:    toFileAppend.mark,
	Undo:    toFileAppend.undo,
})
