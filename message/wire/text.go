package wire

import (
	"errors"
	"fmt"
	"io"
)

// The files text*.go hold the messages as people write them, in JSON or YAML:
//
//	text.go          Decoder: which language the next value of a stream is in
//	text_input.go    the bytes of the stream, and where in it they are
//	text_json.go     JSON and
//	text_yaml.go     YAML as one series of tokens
//	text_draft.go    Draft, and the one set of rules that makes drafts from tokens
//	text_resolve.go  drafts and defaults become messages, or are refused
//	text_error.go    the two kinds of errors

// Limits bound what one array of messages may take. A zero field means its default.
type Limits struct {
	Array    int // bytes of one JSON array or object; default 16 MiB
	YAML     int // bytes of one YAML document, which takes far more memory per byte; default 1 MiB
	Messages int // messages in one array; default 100,000
}

// maxDepth is how deeply arrays and objects may be nested. A message needs five.
const maxDepth = 32

func (l Limits) withDefaults() Limits {
	set := func(v *int, standard int) {
		if *v <= 0 {
			*v = standard
		}
	}
	set(&l.Array, 16<<20)
	set(&l.YAML, 1<<20)
	set(&l.Messages, 100_000)
	return l
}

// Decoder reads messages as text from a stream that holds any number of arrays (or single
// objects), one after the other, with any white space between. What begins with "[" or
// "{" is JSON. Anything else is YAML, and goes on until a line "---" or "..." or the end of
// the stream.
//
// A Decoder belongs to one goroutine. It reads ahead, but never waits for more than the
// array at hand needs.
type Decoder struct {
	in      input
	lim     Limits
	json    jsonSource
	build   builder
	pending bool
	err     error // after it the stream cannot go on
}

// NewDecoder returns a Decoder that reads from r.
func NewDecoder(r io.Reader, lim Limits) *Decoder {
	return &Decoder{in: input{r: r}, lim: lim.withDefaults()}
}

// Next returns the messages of the next array. The error is one of
//   - io.EOF: the stream has ended between two arrays;
//   - a [*RefusedError]: the array was read to its end, but something in it cannot be
//     accepted. Next can be called again, for the array after it;
//   - a [*SyntaxError], or the error of the reader, wrapped: the stream cannot go on, and
//     every later call returns the same.
func (d *Decoder) Next() ([]Draft, error) {
	if d.err != nil {
		return nil, d.err
	}
	drafts, err := d.next()
	if refused := (*RefusedError)(nil); err == nil || errors.As(err, &refused) {
		d.pending = false
	} else {
		d.err = err
	}
	return drafts, err
}

// Pending reports whether a value has begun and not ended, also after the reader's error.
// It is for a reader that has less patience in the middle of an array than before one.
func (d *Decoder) Pending() bool { return d.pending }

// Offset is how many bytes of the stream belong to the arrays that Next has returned, and
// to what stood before them. While an array is pending it is somewhere within that.
func (d *Decoder) Offset() int64 { return d.in.offset() }

func (d *Decoder) next() ([]Draft, error) {
	for {
		indent, err := d.start()
		if err != nil {
			return nil, err
		}
		d.pending = true
		var src source
		if c := d.in.buf[d.in.pos]; c == '[' || c == '{' {
			d.json.begin(&d.in, d.lim.Array)
			src = &d.json
		} else {
			doc, err := newYAMLSource(&d.in, indent, d.lim.YAML)
			if err != nil {
				return nil, err
			}
			if doc == nil { // only comments, or nothing between two lines "---"
				d.pending = false
				continue
			}
			src = doc
		}
		drafts, err := d.build.run(src, d.lim.Messages)
		if err == io.EOF {
			err = d.in.syntax("the stream ends in the middle of a message or an array of messages")
		}
		return drafts, err
	}
}

// start skips white space up to the first byte of a value, and returns how many blanks
// stand before it in its line: in YAML they count.
func (d *Decoder) start() (indent int, err error) {
	in := &d.in
	for {
		c, err := in.peek()
		if err != nil {
			return 0, err
		}
		switch c {
		case ' ':
			indent++
		case '\n', '\r', '\t':
			indent = 0
		case 0xEF: // a byte order mark, as some editors put it in front of a text
			r, size, err := in.rune()
			if err != nil {
				return 0, err
			}
			if r != '\uFEFF' || in.offset() != 0 {
				return indent, nil
			}
			in.pos += size - 1
		case ']', '}', ',', ':', '%', '@', '`':
			return 0, in.syntax(fmt.Sprintf("unexpected %q, want a message or an array of messages", c))
		default:
			if c < ' ' || c == 0x7F {
				return 0, in.syntax(fmt.Sprintf("unexpected byte 0x%02x, want a message or an array of messages", c))
			}
			return indent, nil
		}
		in.pos++
	}
}

// token is one step through a value, whatever language it was written in.
type token struct {
	kind tokenKind
	text []byte // of a key, string or number; valid until the next token
}

type tokenKind uint8

const (
	tokObject tokenKind = iota + 1
	tokEndObject
	tokArray
	tokEndArray
	tokKey
	tokString
	tokNumber
	tokTrue
	tokFalse
	tokNull
)

// source gives the tokens of one value. An error other than a [*RefusedError] is the end
// of the stream.
type source interface {
	next() (token, error)
	// depth counts the arrays and objects that are open.
	depth() int
	// discard says that texts do not matter any more, only the way to the end of the value.
	discard()
}
