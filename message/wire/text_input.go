package wire

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"
)

// input is the stream, buffered, with the place in it.
type input struct {
	r        io.Reader
	buf      []byte
	pos, end int   // buf[pos:end] has been read and not been used
	base     int64 // offset of buf[0] in the stream
	lines    int   // ends of lines before buf[0]
	err      error // of r, for when the buffer is used up
}

const (
	smallBuffer = 4 << 10 // enough for most; an idle connection keeps it
	largeBuffer = 64 << 10
)

func (in *input) offset() int64 { return in.base + int64(in.pos) }

func (in *input) line() int { return in.lines + countLines(in.buf[:in.pos]) + 1 }

// peek returns the next byte without using it.
func (in *input) peek() (byte, error) {
	if in.pos == in.end {
		if err := in.more(); err != nil {
			return 0, err
		}
	}
	return in.buf[in.pos], nil
}

// rune returns the next character and its size without using it. Anything that is not
// UTF-8 is a syntax error, as soon as it can be told.
func (in *input) rune() (rune, int, error) {
	for !utf8.FullRune(in.buf[in.pos:in.end]) {
		if err := in.more(); err == io.EOF && in.pos < in.end {
			break
		} else if err != nil {
			return 0, 0, err
		}
	}
	r, size := utf8.DecodeRune(in.buf[in.pos:in.end])
	if r == utf8.RuneError && size <= 1 {
		return 0, 0, in.syntax("a text that is not UTF-8")
	}
	return r, size, nil
}

// more reads at least one byte behind those that are there. It moves the buffer: slices
// of it are not valid any more.
func (in *input) more() error {
	if in.err != nil {
		return in.err
	}
	full := in.end == len(in.buf)
	in.lines += countLines(in.buf[:in.pos])
	in.base += int64(in.pos)
	rest := in.buf[in.pos:in.end]
	if full && len(in.buf) < largeBuffer {
		in.buf = make([]byte, max(smallBuffer, 4*len(in.buf)))
	}
	in.end = copy(in.buf, rest)
	in.pos = 0
	for range 100 {
		n, err := in.r.Read(in.buf[in.end:])
		in.end += n
		if err != nil && err != io.EOF {
			err = fmt.Errorf("read: %w", err)
		}
		in.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	in.err = fmt.Errorf("read: %w", io.ErrNoProgress)
	return in.err
}

func (in *input) syntax(text string) error {
	return &SyntaxError{Offset: in.offset(), Line: in.line(), Text: text}
}

func countLines(b []byte) int { return bytes.Count(b, []byte{'\n'}) }
