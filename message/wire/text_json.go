package wire

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonSource reads one JSON value as tokens, straight from the stream, and finds every
// fault of syntax at the byte at which it is certain. It is written by hand because
// encoding/json hides keys that are given twice, replaces what is not UTF-8, and needs
// the whole array in memory before the first field can be refused.
type jsonSource struct {
	in    *input
	limit int
	start int64  // offset of the value
	alone bool   // it is one message, not an array
	open  uint64 // one bit per open array (0) or object (1), the innermost in the lowest
	level int
	want  jsonState

	scratch   []byte // a text that has escapes or crosses the end of the buffer
	discarded bool
	tooLarge  bool // the refusal has been returned
}

type jsonState uint8

const (
	wantValue jsonState = iota
	wantFirst           // a first element or key, or the end
	wantKey
	wantColon
	wantComma // or the end
)

// begin makes s ready for the value that begins at the next byte of in.
func (s *jsonSource) begin(in *input, limit int) {
	scratch := s.scratch[:0]
	if cap(scratch) > largeBuffer {
		scratch = nil
	}
	*s = jsonSource{in: in, limit: limit, start: in.offset(), alone: in.buf[in.pos] == '{', scratch: scratch}
}

// what is what the value is, for errors.
func (s *jsonSource) what() string {
	if s.alone {
		return "a message"
	}
	return "an array of messages"
}

func (s *jsonSource) depth() int { return s.level }

func (s *jsonSource) discard() { s.discarded = true }

func (s *jsonSource) inObject() bool { return s.open&1 == 1 }

func (s *jsonSource) next() (token, error) {
	t, err := s.token()
	if err == nil && !s.tooLarge && s.over() {
		s.tooLarge, s.discarded = true, true
		format := "the array is larger than the limit of %d bytes; send it in parts"
		if s.alone {
			format = "the message is larger than the limit of %d bytes"
		}
		return t, &RefusedError{Err: fmt.Errorf(format, s.limit)}
	}
	return t, err
}

func (s *jsonSource) over() bool { return s.in.offset()-s.start > int64(s.limit) }

func (s *jsonSource) token() (token, error) {
	in := s.in
	c, err := s.space()
	if err != nil {
		return token{}, err
	}
	if s.want == wantColon {
		if c != ':' {
			return token{}, s.unexpected(c, `":"`)
		}
		in.pos++
		s.want = wantValue
		if c, err = s.space(); err != nil {
			return token{}, err
		}
	}
	if s.want == wantFirst || s.want == wantComma {
		if t, ok := s.close(c); ok {
			return t, nil
		}
	}
	if s.want == wantComma {
		if c != ',' {
			if s.inObject() {
				return token{}, s.unexpected(c, `"," or "}"`)
			}
			return token{}, s.unexpected(c, `"," or "]"`)
		}
		in.pos++
		if c, err = s.space(); err != nil {
			return token{}, err
		}
		s.want = wantFirst // the end has been ruled out below
		if c == ']' || c == '}' {
			return token{}, s.unexpected(c, `something after ","`)
		}
	}
	if s.want == wantKey || s.want == wantFirst && s.inObject() {
		if c != '"' {
			return token{}, s.unexpected(c, "a key in double quotes")
		}
		text, err := s.text()
		s.want = wantColon
		return token{tokKey, text}, err
	}
	return s.value(c)
}

func (s *jsonSource) close(c byte) (token, bool) {
	switch {
	case c == ']' && !s.inObject() && s.level > 0:
		s.pop()
		return token{kind: tokEndArray}, true
	case c == '}' && s.inObject():
		s.pop()
		return token{kind: tokEndObject}, true
	}
	return token{}, false
}

func (s *jsonSource) pop() {
	s.in.pos++
	s.open >>= 1
	s.level--
	s.want = wantComma
}

func (s *jsonSource) value(c byte) (token, error) {
	s.want = wantComma
	switch {
	case c == '[' || c == '{':
		if s.level == maxDepth {
			return token{}, s.in.syntax(fmt.Sprintf("nested more than %d deep", maxDepth))
		}
		s.in.pos++
		s.level++
		s.open <<= 1
		s.want = wantFirst
		if c == '{' {
			s.open |= 1
			return token{kind: tokObject}, nil
		}
		return token{kind: tokArray}, nil
	case c == '"':
		text, err := s.text()
		return token{tokString, text}, err
	case c == '-' || '0' <= c && c <= '9':
		text, err := s.number()
		return token{tokNumber, text}, err
	case c == 't':
		return token{kind: tokTrue}, s.word("true")
	case c == 'f':
		return token{kind: tokFalse}, s.word("false")
	case c == 'n':
		return token{kind: tokNull}, s.word("null")
	}
	return token{}, s.unexpected(c, "a value")
}

// space skips white space and returns the byte after it, which is not used yet.
func (s *jsonSource) space() (byte, error) {
	for {
		c, err := s.in.peek()
		if err != nil || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c, err
		}
		s.in.pos++
	}
}

func (s *jsonSource) unexpected(c byte, want string) error {
	if c < ' ' || c >= 0x7F {
		return s.in.syntax(fmt.Sprintf("unexpected byte 0x%02x, want %s", c, want))
	}
	return s.in.syntax(fmt.Sprintf("unexpected %q, want %s", c, want))
}

func (s *jsonSource) word(word string) error {
	for i := range len(word) {
		c, err := s.in.peek()
		if err != nil {
			return err
		}
		if c != word[i] {
			return s.unexpected(c, word)
		}
		s.in.pos++
	}
	return nil
}

// number reads a number; whether it is a good one is for the field to say.
func (s *jsonSource) number() ([]byte, error) {
	const longest = 1000
	s.scratch = s.scratch[:0]
	for {
		c, err := s.in.peek()
		if err != nil {
			return nil, err
		}
		digit := '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
		if digit && len(s.scratch) < longest {
			s.scratch = append(s.scratch, c)
			s.in.pos++
			continue
		}
		if digit || !isNumber(s.scratch) {
			return nil, s.in.syntax("not a number: " + quoted(s.scratch))
		}
		return s.scratch, nil
	}
}

// isNumber reports whether b is a number by the grammar of JSON.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && '0' <= b[n] && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 1 && b[0] == '0' && '0' <= b[1] && b[1] <= '9' {
		return false
	}
	if !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
		if !digits() {
			return false
		}
	}
	if len(b) > 0 && b[0]|0x20 == 'e' {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// text reads a string from its opening quote on. Most are returned as a slice of the
// buffer, without a copy.
func (s *jsonSource) text() ([]byte, error) {
	in := s.in
	in.pos++
	s.scratch = s.scratch[:0]
	copied := false
	for i := in.pos; ; {
		for i < in.end && in.buf[i] >= ' ' && in.buf[i] != '"' && in.buf[i] != '\\' && in.buf[i] < utf8.RuneSelf {
			i++
		}
		if i < in.end && in.buf[i] >= utf8.RuneSelf && utf8.FullRune(in.buf[i:in.end]) {
			r, size := utf8.DecodeRune(in.buf[i:in.end])
			if r == utf8.RuneError && size == 1 {
				in.pos = i
				return nil, in.syntax("a text that is not UTF-8")
			}
			i += size
			continue
		}
		if i < in.end && in.buf[i] == '"' && !copied {
			text := in.buf[in.pos:i]
			in.pos = i + 1
			return text, nil
		}
		s.keep(in.buf[in.pos:i])
		copied = true
		in.pos = i
		switch {
		case i == in.end || in.buf[i] >= utf8.RuneSelf:
			if err := in.more(); err != nil {
				return nil, err
			}
		case in.buf[i] == '"':
			in.pos++
			return s.scratch, nil
		case in.buf[i] == '\\':
			in.pos++
			if err := s.escape(); err != nil {
				return nil, err
			}
		default:
			return nil, in.syntax(fmt.Sprintf("byte 0x%02x in a text; write it as an escape", in.buf[i]))
		}
		i = in.pos
	}
}

// keep adds to the text at hand, unless it is not wanted or the array is too large.
func (s *jsonSource) keep(b []byte) {
	if s.discarded || s.over() {
		s.scratch = s.scratch[:0]
		return
	}
	s.scratch = append(s.scratch, b...)
}

func (s *jsonSource) escape() error {
	c, err := s.in.peek()
	if err != nil {
		return err
	}
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		s.in.pos++
		return s.unicode()
	default:
		return s.unexpected(c, `an escape such as \n or \u00e9`)
	}
	s.in.pos++
	s.keep([]byte{c})
	return nil
}

// unicode reads what stands behind \u. Half a surrogate pair is refused and not replaced:
// a command is run as it was written or not at all.
func (s *jsonSource) unicode() error {
	r, err := s.hex()
	if err != nil {
		return err
	}
	if utf16.IsSurrogate(r) {
		if err := s.word(`\u`); err != nil {
			return err
		}
		low, err := s.hex()
		if err != nil {
			return err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return s.in.syntax("half a surrogate pair in a text")
		}
	}
	s.keep(utf8.AppendRune(nil, r))
	return nil
}

func (s *jsonSource) hex() (rune, error) {
	var r rune
	for range 4 {
		c, err := s.in.peek()
		if err != nil {
			return 0, err
		}
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, s.unexpected(c, "four hexadecimal digits")
		}
		s.in.pos++
	}
	return r, nil
}
