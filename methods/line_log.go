package methods

import (
	"context"
	"strconv"
	"strings"
	"time"
	"unicode"

	"steward/message"
	"steward/process"
)

// lineLog notes a message as one line in a file, for methods of which a crash may leave two
// lines.
type lineLog struct {
	disk   disk
	file   func(m *message.Message) (string, error)
	text   func(m *message.Message) string
	rotate int64 // as in appender
}

func (l lineLog) line(ctx context.Context, c *process.Call) error {
	one := appender{disk: l.disk, file: l.file, rotate: l.rotate, content: func(m *message.Message) []byte {
		return logLine(m, l.text(m))
	}}
	calls := []*process.Call{c}
	if l.rotate > 0 {
		if _, err := one.mark(calls); err != nil {
			return err
		}
	}
	return one.runAll(ctx, calls)[0]
}

// logLine makes one line of a text: the time at which the message was accepted, its id, the
// text. Line breaks and other control characters are escaped, so that no text can pass for
// two lines.
func logLine(m *message.Message, text string) []byte {
	return lineAt(m.Accepted, m.ID.String()+" "+oneLine(text))
}

// oneLine escapes line breaks and other control characters of a text.
func oneLine(text string) string {
	text = strings.TrimSpace(text)
	if strings.IndexFunc(text, unicode.IsControl) >= 0 {
		q := strconv.Quote(text)
		text = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	}
	return text
}

// lineTime is how a line begins.
const lineTime = "2006-01-02T15:04:05.000Z07:00"

func lineAt(at time.Time, text string) []byte {
	b := at.UTC().AppendFormat(nil, lineTime)
	b = append(b, ' ')
	return append(append(b, text...), '\n')
}
