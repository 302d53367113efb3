package wire

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"

	"steward/message"
)

// SyntaxError says that a stream of messages as text is neither JSON nor YAML at some
// place. Where the next array would begin is not known then.
type SyntaxError struct {
	Offset int64 // bytes before the place, from the start of the stream
	Line   int   // from 1
	Text   string
}

// Error names line, byte and reason.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("syntax error in line %d (after %d bytes): %s", e.Line, e.Offset, e.Text)
}

// RefusedError says why an array of messages that could be read is not accepted. It is
// (errors.Is) a [message.ErrInvalid].
type RefusedError struct {
	Message int    // position in its array, from 1; 0 when it is about the whole array
	Field   string // empty when it is about the whole message
	Err     error
}

// Error reads "message 2: toNode: why".
func (e *RefusedError) Error() string {
	var b strings.Builder
	if e.Message > 0 {
		fmt.Fprintf(&b, "message %d: ", e.Message)
	}
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// Is reports whether target is [message.ErrInvalid].
func (e *RefusedError) Is(target error) bool { return target == message.ErrInvalid }

// DidYouMean returns `, did you mean "…"?` with the known name that is nearest to s, or
// nothing when s is too long to be a mistyped name.
func DidYouMean[S ~string](s string, known []S) string {
	const longest = 64
	if len(s) > longest || len(known) == 0 {
		return ""
	}
	best, least := "", -1
	for _, k := range known {
		d := levenshtein.Distance(strings.ToLower(s), strings.ToLower(string(k)), nil)
		if least < 0 || d < least || d == least && string(k) < best {
			best, least = string(k), d
		}
	}
	return fmt.Sprintf(", did you mean %q?", best)
}
