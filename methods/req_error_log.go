package methods

import (
	"path"

	"steward/message"
	"steward/process"
)

var errorLog = appender{
	file: func(m *message.Message) (string, error) {
		return path.Join(errorLogFolder, string(m.From), errorLogFile), m.From.Check()
	},
	content: func(m *message.Message) []byte {
		texts := m.Data
		if m.IsReply() {
			texts = []string{string(m.Body)}
		}
		var b []byte
		for _, text := range texts {
			b = append(b, logLine(m, text)...)
		}
		return b
	},
	rotate: rotateAt,
}

var _ = register(process.Spec{
	Name:    message.MethodErrorLog,
	Summary: "write errors of a node into errorLog/<node>/error.log, which is rotated",
	Details: "Nodes send it by themselves for all that fails. The file is set aside at 10 MiB; five older ones are kept.",
	Args:    "ERROR ...",
	MinArgs: 1,
	Kind:    message.EventACK,
	Access:  process.AccessAll,
	Ordered: true,
	Crash:   process.Exact,
	Reply:   message.MethodNone,
	RunAll:  errorLog.runAll,
	Mark:    errorLog.mark,
	Undo:    errorLog.undo,
})
