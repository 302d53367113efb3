package methods

import (
	"path"
	"strings"
	"time"

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
			b = append(b, errorLine(m.Accepted, text)...)
		}
		return b
	},
	rotate: rotateAt,
}

// errorLine makes one line of what failed. What the error kernel of a node writes begins with the time at which it
// failed, and has the id of the message that it is about, if there is one: the time at which this message about it was
// accepted, and the id of that, would only be in the way.
func errorLine(accepted time.Time, text string) []byte {
	text = oneLine(text)
	if head, rest, _ := strings.Cut(text, " "); strings.HasPrefix(head, "time=") {
		if at, err := time.Parse(lineTime, head[len("time="):]); err == nil {
			accepted, text = at, rest
		}
	}
	return lineAt(accepted, text)
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
