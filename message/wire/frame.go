package wire

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"steward/message"
)

// The envelope of every frame, ack, claim, question and answer: a magic byte, the format version, flags.
const (
	magic      = 'S'
	version    = 1
	headerSize = 3

	flagZstd   = 1 << 0
	flagSigned = 1 << 1
	allFlags   = flagZstd | flagSigned
)

const (
	// MaxFrame bounds a frame in bytes, before compression. What claims to be larger
	// is refused before memory is given to it.
	MaxFrame = 8 << 20
	// MaxMessage bounds one message as EncodeMessage writes it, in bytes: it fits into a frame
	// of its own.
	MaxMessage = MaxFrame - 4<<10
	// maxReason bounds the texts of an ack in bytes. They end in error messages, which must
	// not grow with what a peer sends.
	maxReason = 1 << 10
	// maxEpoch leaves room above the highest epoch.
	maxEpoch = 1 << 62
	// minCompress is the size below which compression is not tried.
	minCompress = 128
)

// ErrVersion says that a frame or record was written by a version that is not known here.
var ErrVersion = errors.New("written in a format of a newer version of steward")

// Frame carries a run of messages of one stream: those of the sequence numbers from First
// up to, not including, End. Numbers in between that have no entry were given up by the
// sender, as was everything below Base that the receiver has not seen.
//
// Epochs of a stream only go up: each run of the sender has a higher one. A receiver takes
// nothing of an epoch below the highest that it has seen: that is late, or from a sender with
// an old store, which is told. A frame with Epoch 0 is outside of any stream: its entries are run as they come, without
// ACK, order or dedupe. Who signs such frames counts them in First.
type Frame struct {
	_      struct{} `cbor:",toarray"`
	From   message.Node
	To     message.Node
	Method message.Method
	Epoch  uint64
	Base   uint64
	First  uint64
	End    uint64
	// Sent is the sender's clock in milliseconds since 1970, so that a receiver can tell
	// the age of a message without trusting that both clocks agree.
	Sent    int64
	Entries []Entry
}

// Entry is one message of a frame.
type Entry struct {
	_       struct{} `cbor:",toarray"`
	Seq     uint64
	Message []byte // as EncodeMessage wrote it
}

// Ack answers a frame: everything of the stream below Next is on the receiver's disk. It
// names the stream and the epoch, so it can be taken for no other. A signed one with Next 0, or
// Epoch 0, has taken nothing: the frame did not name the receiver's start, see [Signature].
type Ack struct {
	_      struct{}     `cbor:",toarray"`
	By     message.Node // who acknowledges: the receiver of the frame
	To     message.Node // whom the ack is for: the sender of the frame
	Method message.Method
	Epoch  uint64
	Next   uint64
	// Gap: the frame began above Next, which is what the receiver wants to have next.
	Gap bool
	// Busy: the receiver has no room at the moment and took nothing or only a part.
	Busy bool
	// Refused lists messages at and above the frame's base that were taken off the stream
	// without being accepted. No retry can help them.
	Refused []Refusal
	// Newer, when not 0, is an epoch above that of the frame which the receiver has seen on
	// this stream. Nothing of the frame was taken, and nothing will be below that epoch.
	Newer uint64
	// Code and Text are set when the frame as a whole was refused.
	Code message.Code
	Text string
}

// Refusal is one refused message.
type Refusal struct {
	_    struct{} `cbor:",toarray"`
	Seq  uint64
	Code message.Code
	Text string
}

// Codec encodes and decodes frames and acks. One is enough for any number of nodes; it is
// safe for concurrent use and makes its compressor at the first need.
type Codec struct {
	// Plain, set before its first use, has nothing compressed; what others compress is read.
	Plain bool

	enc func() (*zstd.Encoder, error)
	dec func() (*zstd.Decoder, error)
}

// NewCodec returns a codec.
func NewCodec() *Codec {
	return &Codec{
		enc: sync.OnceValues(func() (*zstd.Encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
				zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false))
		}),
		dec: sync.OnceValues(func() (*zstd.Decoder, error) {
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecoderMaxWindow(MaxFrame))
		}),
	}
}

// EncodeFrame returns f as bytes, compressed when that makes it smaller. The error wraps
// [message.ErrInvalid] when f is larger than [MaxFrame].
func (c *Codec) EncodeFrame(f *Frame) ([]byte, error) { return c.seal("frame", f) }

// DecodeFrame reads what [Codec.EncodeFrame] wrote and checks that it is sound in itself.
// The error wraps [message.ErrInvalid] or is [ErrVersion].
func (c *Codec) DecodeFrame(b []byte) (*Frame, error) {
	f := new(Frame)
	if err := c.open("frame", b, f); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("%w frame: %w", message.ErrInvalid, err)
	}
	return f, nil
}

func (f *Frame) check() error {
	for _, check := range []func() error{f.From.Check, f.To.Check, f.Method.Check} {
		if err := check(); err != nil {
			return err
		}
	}
	if f.Epoch == 0 {
		return nil
	}
	if f.Epoch > maxEpoch {
		return fmt.Errorf("epoch %d is too high", f.Epoch)
	}
	if f.Base < 1 || f.First < f.Base || f.End < f.First {
		return fmt.Errorf("base %d, first %d, end %d are not in order", f.Base, f.First, f.End)
	}
	last := f.First - 1
	for _, e := range f.Entries {
		if e.Seq <= last || e.Seq >= f.End {
			return fmt.Errorf("message %d is out of order between %d and %d", e.Seq, f.First, f.End)
		}
		last = e.Seq
	}
	return nil
}

// EncodeAck returns a as bytes.
func (c *Codec) EncodeAck(a *Ack) ([]byte, error) { return c.seal("ack", a) }

// DecodeAck reads what [Codec.EncodeAck] wrote, its texts cut to what an error message can
// hold. The error wraps [message.ErrInvalid] or is [ErrVersion].
func (c *Codec) DecodeAck(b []byte) (*Ack, error) {
	a := new(Ack)
	if err := c.open("ack", b, a); err != nil {
		return nil, err
	}
	a.Text = clip(a.Text, maxReason)
	for i := range a.Refused {
		a.Refused[i].Text = clip(a.Refused[i].Text, maxReason)
	}
	return a, nil
}

// clip cuts s to most bytes, and a sign that it was cut.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func (c *Codec) seal(what string, v any) ([]byte, error) {
	body, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	if len(body) > MaxFrame {
		return nil, fmt.Errorf("%w %s: %d bytes, at most %d can be sent", message.ErrInvalid, what, len(body), MaxFrame)
	}
	out := make([]byte, headerSize, headerSize+len(body))
	out[0], out[1] = magic, version
	if !c.Plain && len(body) >= minCompress {
		enc, err := c.enc()
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", what, err)
		}
		if packed := enc.EncodeAll(body, out); len(packed) < headerSize+len(body) {
			packed[2] |= flagZstd
			return packed, nil
		}
	}
	return append(out, body...), nil
}

func (c *Codec) open(what string, b []byte, v any) error {
	flags, body, err := envelope(what, b)
	if err != nil {
		return err
	}
	if flags&flagZstd != 0 {
		dec, err := c.dec()
		if err != nil {
			return fmt.Errorf("decode %s: %w", what, err)
		}
		if body, err = dec.DecodeAll(body, nil); err != nil {
			return fmt.Errorf("%w %s: %w", message.ErrInvalid, what, err)
		}
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("%w %s: larger than %d bytes", message.ErrInvalid, what, MaxFrame)
	}
	if err := decMode.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w %s: %w", message.ErrInvalid, what, err)
	}
	return nil
}

// envelope takes off what stands before and behind the body of b, after checks.
func envelope(what string, b []byte) (flags byte, body []byte, err error) {
	if len(b) < headerSize || b[0] != magic || b[1] == 0 {
		return 0, nil, fmt.Errorf("%w %s: %d bytes that are not from a steward", message.ErrInvalid, what, len(b))
	}
	if b[1] != version || b[2]&^allFlags != 0 {
		return 0, nil, fmt.Errorf("%s of format %d.%d: %w", what, b[1], b[2], ErrVersion)
	}
	body = b[headerSize:]
	if b[2]&flagSigned != 0 {
		if body, err = unsigned(what, body); err != nil {
			return 0, nil, err
		}
	}
	return b[2], body, nil
}
