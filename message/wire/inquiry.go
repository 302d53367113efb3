package wire

import (
	"fmt"

	"steward/message"
)

const (
	// MaxAsked bounds the requests of one question, so that the answer about all of them fits into
	// 64 KiB.
	MaxAsked = 128
	// maxFateText bounds what an answer says about one of them.
	maxFateText = 256
)

// Question asks a node whether it still knows requests that it has acknowledged.
type Question struct {
	From, To message.Node
	IDs      []message.ID
}

// Answer names those requests of a [Question] to which no reply will come.
type Answer struct {
	By, To message.Node
	Fates  []Fate
}

// Fate is how the run of a request ended; without a code, it is not known.
type Fate struct {
	ID   message.ID
	Code message.Code
	Text string
}

// What travels. Keys are never given a new meaning; new fields get new keys.
type question struct {
	From string   `cbor:"1,keyasint"`
	To   string   `cbor:"2,keyasint"`
	IDs  [][]byte `cbor:"3,keyasint"`
}

type answer struct {
	By    string `cbor:"1,keyasint"`
	To    string `cbor:"2,keyasint"`
	Fates []fate `cbor:"3,keyasint,omitempty"`
}

type fate struct {
	ID   []byte `cbor:"1,keyasint"`
	Code string `cbor:"2,keyasint,omitempty"`
	Text string `cbor:"3,keyasint,omitempty"`
}

// EncodeQuestion returns q as bytes.
func (c *Codec) EncodeQuestion(q *Question) ([]byte, error) {
	out := question{From: string(q.From), To: string(q.To), IDs: make([][]byte, len(q.IDs))}
	for i := range q.IDs {
		out.IDs[i] = q.IDs[i][:]
	}
	return c.seal("question", out)
}

// DecodeQuestion reads what [Codec.EncodeQuestion] wrote. The error wraps [message.ErrInvalid] or is
// [ErrVersion].
func (c *Codec) DecodeQuestion(b []byte) (*Question, error) {
	var in question
	if err := c.open("question", b, &in); err != nil {
		return nil, err
	}
	q := &Question{From: message.Node(in.From), To: message.Node(in.To)}
	err := between(q.From, q.To, len(in.IDs))
	for _, id := range in.IDs {
		if err == nil {
			q.IDs, err = appendID(q.IDs, id)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w question: %w", message.ErrInvalid, err)
	}
	return q, nil
}

// EncodeAnswer returns a as bytes, its texts cut to what an answer has room for.
func (c *Codec) EncodeAnswer(a *Answer) ([]byte, error) {
	out := answer{By: string(a.By), To: string(a.To)}
	for i := range a.Fates {
		f := &a.Fates[i]
		out.Fates = append(out.Fates, fate{ID: f.ID[:], Code: text(string(f.Code)), Text: clip(text(f.Text), maxFateText)})
	}
	return c.seal("answer", out)
}

// DecodeAnswer reads what [Codec.EncodeAnswer] wrote. The error wraps [message.ErrInvalid] or is
// [ErrVersion].
func (c *Codec) DecodeAnswer(b []byte) (*Answer, error) {
	var in answer
	if err := c.open("answer", b, &in); err != nil {
		return nil, err
	}
	a := &Answer{By: message.Node(in.By), To: message.Node(in.To)}
	err := between(a.By, a.To, len(in.Fates))
	var ids []message.ID
	for _, f := range in.Fates {
		if err == nil {
			ids, err = appendID(ids, f.ID)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w answer: %w", message.ErrInvalid, err)
	}
	for i, f := range in.Fates {
		a.Fates = append(a.Fates, Fate{ID: ids[i], Code: message.Code(clip(f.Code, maxFateText)), Text: clip(f.Text, maxFateText)})
	}
	return a, nil
}

// between checks what a question and its answer have in common.
func between(a, b message.Node, n int) error {
	if err := a.Check(); err != nil {
		return err
	}
	if err := b.Check(); err != nil {
		return err
	}
	if n > MaxAsked {
		return fmt.Errorf("it is about %d messages, want at most %d", n, MaxAsked)
	}
	return nil
}

func appendID(ids []message.ID, b []byte) ([]message.ID, error) {
	var id message.ID
	if len(b) != len(id) {
		return nil, fmt.Errorf("an id of %d bytes", len(b))
	}
	copy(id[:], b)
	return append(ids, id), nil
}
