package methods

import (
	"context"
	"strconv"
	"strings"
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
	text = strings.TrimSpace(text)
	if strings.IndexFunc(text, unicode.IsControl) >= 0 {
		q := strconv.Quote(text)
		text = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	}
	b := m.Accepted.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, ' ')
	b = append(b, m.ID.String()...)
	b = append(b, ' ')
	return append(append(b, text...), '\n')
}
