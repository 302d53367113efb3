package errorkernel

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"steward/message"
)

const (
	maxLine  = 4 << 10 // of an error message, in bytes
	maxName  = 256     // of one name in it
	maxLost  = 32      // room kept for what addLost appends
	maxIDs   = 64      // message ids named in one line
	cutMark  = "…"
	timeForm = "2006-01-02T15:04:05.000Z07:00"
)

// line writes an event as the text of an error message: one line of key=value pairs, of
// at most maxLine-maxLost bytes. Whatever the texts in ev hold, the line has no control
// character, and a quoted value ends at its own quote only.
func line(node message.Node, ev Event, cause string, count int, ids []message.ID) string {
	b := make([]byte, 0, 512)
	b = append(b, "time="...)
	b = ev.At.UTC().AppendFormat(b, timeForm)
	b = appendPair(b, "node", string(node), maxName)
	b = appendPair(b, "class", ev.Class.String(), maxName)
	b = appendPair(b, "process", ev.Process, maxName)
	b = appendPair(b, "subject", ev.Subject, 2*maxName)
	b = appendPair(b, "method", string(ev.Method), maxName)
	if !ev.ID.IsZero() {
		b = appendPair(b, "id", ev.ID.String(), maxName)
	}
	b = appendPair(b, "from", string(ev.From), maxName)
	b = append(append(b, " count="...), strconv.Itoa(count)...)
	if ev.Failures > 1 {
		b = append(append(b, " failures="...), strconv.Itoa(ev.Failures)...)
	}
	for i, id := range ids {
		if i == 0 {
			b = append(b, " ids="...)
		} else {
			b = append(b, ',')
		}
		b = append(b, id.String()...)
	}
	const frame = len(` cause=`)
	return string(appendPair(b, "cause", cause, maxLine-maxLost-frame-len(b)))
}

// addLost says in a line how many events before it went missing.
func addLost(line string, lost int) string {
	if lost == 0 {
		return line
	}
	return line + " lost=" + strconv.Itoa(lost)
}

// appendPair appends " key=value" with at most most bytes for the value, and nothing for
// an empty value.
func appendPair(b []byte, key, value string, most int) []byte {
	if value == "" {
		return b
	}
	b = append(b, ' ')
	b = append(b, key...)
	b = append(b, '=')
	if len(value) <= most && strings.IndexFunc(value, needsQuotes) < 0 {
		return append(b, value...)
	}
	end := len(b) + most - len(cutMark) - 1
	b = append(b, '"')
	var piece []byte
	for i := 0; i < len(value); {
		_, size := utf8.DecodeRuneInString(value[i:])
		piece = strconv.AppendQuote(piece[:0], value[i:i+size])
		piece = piece[1 : len(piece)-1]
		if len(b)+len(piece) > end {
			b = append(b, cutMark...)
			break
		}
		b = append(b, piece...)
		i += size
	}
	return append(b, '"')
}

func needsQuotes(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("._-/:@+*#", r)
}

// cut returns the first most bytes of s at most, as a copy: the rest of a huge text is
// not kept in memory for the sake of its beginning.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return strings.Clone(s[:most]) + cutMark
}

// bounded returns ev without what must not be kept, and the text of its cause.
func bounded(ev Event) (Event, string) {
	cause := ""
	if ev.Err != nil {
		cause = cut(ev.Err.Error(), maxLine)
	}
	if cause == "" {
		cause = "no reason given"
	}
	ev.Err = nil
	ev.Process = cut(ev.Process, maxName)
	ev.Subject = cut(ev.Subject, 2*maxName)
	ev.Method = message.Method(cut(string(ev.Method), maxName))
	ev.From = message.Node(cut(string(ev.From), maxName))
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	return ev, cause
}
