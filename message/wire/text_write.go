package wire

import (
	"strconv"
	"time"
	"unicode/utf8"

	"steward/message"
)

// AppendText appends m as JSON on one line, as a [Decoder] reads it: sent again by the same
// node, it becomes the same message under another id. What has a default is always there, since
// another node, or another day, may have other defaults. Of a reply the body and the result
// are left out: it is made by its request. Times are written in whole seconds, rounded up.
//
// Each message that leaves a node passes here, so it does without reflection.
func AppendText(b []byte, m *message.Message) []byte {
	w := textWriter{append(b, '{')}
	w.text("toNode", string(m.To))
	w.textIf("fromNode", m.Headers[message.HeaderFrom])
	w.text("method", string(m.Method))
	appendList(&w, "data", m.Data)
	w.operation(m.Operation)
	reply := m.ReplyMethod
	if reply == "" {
		reply = message.MethodNone
	}
	w.text("replyMethod", string(reply))
	appendList(&w, "replyMethodArgs", m.ReplyMethodArgs)
	w.number("ACKTimeout", wholeSeconds(m.ACKTimeout))
	w.number("retries", int64(m.Retries))
	w.numberIf("retryWait", wholeSeconds(m.RetryWait))
	w.number("replyACKTimeout", wholeSeconds(m.ReplyACKTimeout))
	w.number("replyRetries", int64(m.ReplyRetries))
	w.numberIf("methodTimeout", wholeSeconds(m.MethodTimeout))
	w.numberIf("replyMethodTimeout", wholeSeconds(m.ReplyMethodTimeout))
	w.numberIf("methodRetries", int64(m.MethodRetries))
	w.numberIf("ttl", wholeSeconds(m.TTL))
	if s := m.Schedule; s != nil {
		w.key("schedule")
		w.b = strconv.AppendInt(append(w.b, '['), wholeSeconds(s.Every), 10)
		w.b = append(strconv.AppendInt(append(w.b, ','), wholeSeconds(s.For), 10), ']')
	}
	w.textIf("directory", m.Directory)
	w.textIf("fileName", m.FileName)
	return append(w.b, '}')
}

// textWriter appends the members of an object.
type textWriter struct{ b []byte }

func (w *textWriter) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

func (w *textWriter) text(name, value string) {
	w.key(name)
	w.b = AppendQuoted(w.b, value)
}

func (w *textWriter) textIf(name, value string) {
	if value != "" {
		w.text(name, value)
	}
}

func (w *textWriter) number(name string, n int64) {
	w.key(name)
	w.b = strconv.AppendInt(w.b, n, 10)
}

func (w *textWriter) numberIf(name string, n int64) {
	if n != 0 {
		w.number(name, n)
	}
}

func appendList[T ~string](w *textWriter, name string, list []T) {
	if len(list) == 0 {
		return
	}
	w.key(name)
	for i, s := range list {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		w.b = AppendQuoted(append(w.b, sep), string(s))
	}
	w.b = append(w.b, ']')
}

func (w *textWriter) operation(op *message.Operation) {
	if op == nil {
		return
	}
	w.key("operation")
	w.b = append(w.b, '{')
	w.text("opCmd", op.Cmd)
	w.key("opArg")
	w.b = append(w.b, '{')
	w.textIf("method", string(op.Arg.Method))
	w.textIf("kind", op.Arg.Kind)
	w.textIf("receivingNode", string(op.Arg.ReceivingNode))
	w.numberIf("id", int64(op.Arg.ID))
	appendList(w, "allowedNodes", op.Arg.AllowedNodes)
	if !op.Arg.MessageID.IsZero() {
		w.text("messageID", op.Arg.MessageID.String())
	}
	w.numberIf("olderThan", wholeSeconds(op.Arg.OlderThan))
	w.b = append(w.b, '}', '}')
}

// wholeSeconds is a time as people write it; for ever stays that.
func wholeSeconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Second - 1) / time.Second)
}

// AppendQuoted appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0 // what is behind it is not appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[from:i]...), "\uFFFD"...)
				from = i + 1
			}
			i += size
			continue
		}
		if c < ' ' || c == '"' || c == '\\' || c == 0x7F {
			b = append(append(b, s[from:i]...), '\\')
			switch c {
			case '"', '\\':
				b = append(b, c)
			case '\n':
				b = append(b, 'n')
			case '\t':
				b = append(b, 't')
			default:
				b = append(b, 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			from = i + 1
		}
		i++
	}
	return append(append(b, s[from:]...), '"')
}
