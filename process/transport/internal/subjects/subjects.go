// Package subjects checks and matches the subjects that transports are given. It knows
// nothing of what the parts of a subject mean; that is package message.
package subjects

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"steward/message"
)

// maxSubject bounds a subject in bytes. A publish line carries two of them, and a
// nats-server ends the connection of a client whose line is longer than 4,096 bytes.
const maxSubject = 1024

// Check says whether s can be published to, and if not, why. The error wraps
// message.ErrInvalid.
func Check(s string) error { return check(s, s) }

// CheckPattern says whether s can be subscribed to: a subject whose last part may be "*".
// The error wraps message.ErrInvalid.
func CheckPattern(s string) error {
	literal := s
	if prefix, ok := wildcard(s); ok {
		literal = prefix + "x"
	}
	return check(s, literal)
}

func check(whole, s string) error {
	why := ""
	switch {
	case s == "":
		why = "it is empty"
	case len(s) > maxSubject:
		why = fmt.Sprintf("longer than %d bytes", maxSubject)
	case !utf8.ValidString(s):
		why = "not UTF-8"
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		why = "blanks and control characters are not allowed"
	case strings.ContainsAny(s, "*>"):
		why = `"*" and ">" are not allowed here`
	case s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, ".."):
		why = "a part between dots is empty"
	default:
		return nil
	}
	return fmt.Errorf("%w subject %s: %s", message.ErrInvalid, message.Quote(whole), why)
}

// Match reports whether pattern, which CheckPattern accepts, covers subject, which Check
// accepts.
func Match(pattern, subject string) bool {
	prefix, ok := wildcard(pattern)
	if !ok {
		return pattern == subject
	}
	rest, ok := strings.CutPrefix(subject, prefix)
	return ok && rest != "" && !strings.Contains(rest, ".")
}

// wildcard returns what is before a last part of "*".
func wildcard(pattern string) (prefix string, ok bool) {
	prefix, ok = strings.CutSuffix(pattern, "*")
	return prefix, ok && (prefix == "" || strings.HasSuffix(prefix, "."))
}
