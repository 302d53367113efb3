package methods

import (
	"strings"

	"steward/message"
)

// content returns what a message asks to be written: of a reply its body, byte for byte; of
// any other message each element of its data as a line of its own and then its body. The
// data of a reply are arguments of the reply method, which writing has none of.
func content(m *message.Message) []byte {
	if m.IsReply() {
		return m.Body
	}
	var b []byte
	for _, line := range m.Data {
		b = append(b, line...)
		if !strings.HasSuffix(line, "\n") {
			b = append(b, '\n')
		}
	}
	return append(b, m.Body...)
}
