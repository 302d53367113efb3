package methods

import (
	"steward/message"
	"steward/process"
)

var toFile replacer

var _ = register(process.Spec{
	Name:    "REQToFile",
	Summary: "write the reply, or lines of text, to a file in the data folder in place of what it held",
	Details: "The file is `<subscribersDataFolder>/<directory>/<sender>/<fileName>`. Each element of `data` is a line.",
	Args:    "[LINE ...]",
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Exact,
	Reply:   message.MethodNone,
	File:    (*message.Message).File,
	RunAll:  toFile.runAll,
	Mark:    toFile.mark,
	Undo:    toFile.undo,
})
