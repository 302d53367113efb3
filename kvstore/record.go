package kvstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	"steward/message"
	"steward/message/wire"
)

// Every record begins with the version of its own format.
const recordVersion = 1

var errRecord = errors.New("record of an unknown format")

var be = binary.BigEndian

func seqKey(n uint64) []byte { return be.AppendUint64(nil, n) }

func parseStream(key []byte) (Stream, error) {
	i := bytes.IndexByte(key, 0)
	if i < 0 {
		return Stream{}, damaged("a stream without a name")
	}
	return Stream{Peer: message.Node(key[:i]), Method: message.Method(key[i+1:])}, nil
}

// numbers encodes fixed fields behind the record version.
func numbers(ns ...uint64) []byte {
	b := make([]byte, 1, 1+8*len(ns))
	b[0] = recordVersion
	for _, n := range ns {
		b = be.AppendUint64(b, n)
	}
	return b
}

func scanNumbers(b []byte, ns ...*uint64) error {
	if len(b) < 1+8*len(ns) || b[0] != recordVersion {
		return errRecord
	}
	for i, n := range ns {
		*n = be.Uint64(b[1+8*i:])
	}
	return nil
}

// sizes is what the whole store holds, kept along so that it never has to be counted.
// Sent and Received count the lives that have ended.
// Scheduled and Untold are counted when the file is opened.
type sizes struct{ Messages, Bytes, Dead, DeadBytes, Sent, Received, Scheduled, Untold uint64 }

func (z *sizes) save(meta *bbolt.Bucket) error {
	return meta.Put(keySizes, numbers(z.Messages, z.Bytes, z.Dead, z.DeadBytes, z.Sent, z.Received))
}

func (z *sizes) load(meta *bbolt.Bucket) error {
	return scanNumbers(meta.Get(keySizes), &z.Messages, &z.Bytes, &z.Dead, &z.DeadBytes, &z.Sent, &z.Received)
}

// streamState is the position and size of an outgoing stream.
type streamState struct{ Next, Count, Bytes uint64 }

func (s *streamState) encode() []byte { return numbers(s.Next, s.Count, s.Bytes) }
func (s *streamState) decode(b []byte) error {
	return scanNumbers(b, &s.Next, &s.Count, &s.Bytes)
}

// laneState is the size of a lane, and the arrival number its next message gets.
type laneState struct{ Next, Count, Bytes uint64 }

func (l *laneState) encode() []byte        { return numbers(l.Next, l.Count, l.Bytes) }
func (l *laneState) decode(b []byte) error { return scanNumbers(b, &l.Next, &l.Count, &l.Bytes) }

// Queued is a message of an outgoing stream with what its publisher has to know of it.
type Queued struct {
	Seq        uint64
	ID         message.ID
	ACKTimeout time.Duration
	Retries    int
	RetryWait  time.Duration
	TTL        time.Duration
	WantsReply bool
	Message    []byte // as wire.EncodeMessage wrote it
}

// An outgoing record is a fixed head, so that a publisher need not decode the message,
// and the message. The second version of it, for a message with an origin, has that between
// them, behind its length.
const outHead = 1 + 1 + 16 + 4*8

const flagReply = 1

const (
	recordOrigin = 2
	maxOrigin    = 1<<8 - 1
)

func encodeOut(m *message.Message, raw []byte) []byte {
	origin := m.Origin[:min(len(m.Origin), maxOrigin)]
	b := make([]byte, 2, outHead+1+len(origin)+len(raw))
	b[0] = recordVersion
	if origin != "" {
		b[0] = recordOrigin
	}
	if m.AwaitsReply() {
		b[1] = flagReply
	}
	b = append(b, m.ID[:]...)
	for _, d := range []int64{int64(m.ACKTimeout), int64(m.Retries), int64(m.RetryWait), int64(m.TTL)} {
		b = be.AppendUint64(b, uint64(d))
	}
	if origin != "" {
		b = append(append(b, byte(len(origin))), origin...)
	}
	return append(b, raw...)
}

// decodeOut reads an outgoing record. The message shares memory with b.
func decodeOut(seq uint64, b []byte) (Queued, error) {
	_, raw, ok := splitOut(b)
	if !ok {
		return Queued{}, fmt.Errorf("message %d: %w", seq, errRecord)
	}
	q := Queued{Seq: seq, WantsReply: b[1]&flagReply != 0, Message: raw}
	copy(q.ID[:], b[2:18])
	q.ACKTimeout = time.Duration(be.Uint64(b[18:]))
	q.Retries = int(int64(be.Uint64(b[26:])))
	q.RetryWait = time.Duration(be.Uint64(b[34:]))
	q.TTL = time.Duration(be.Uint64(b[42:]))
	return q, nil
}

// splitOut returns what follows the head of an outgoing record.
func splitOut(b []byte) (origin, raw []byte, ok bool) {
	switch {
	case len(b) < outHead:
		return nil, nil, false
	case b[0] == recordVersion:
		return nil, b[outHead:], true
	case b[0] != recordOrigin || len(b) == outHead:
		return nil, nil, false
	}
	n, rest := int(b[outHead]), b[outHead+1:]
	if n == 0 || n > len(rest) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

// Waiting is a message of the inbox.
type Waiting struct {
	Arrival uint64
	// Accepted is when the sender accepted the message, by this node's clock as far as
	// the age that the sender stated is right.
	Accepted time.Time
	Message  *message.Message
	// Run is how many runs of its schedule there were before, and First when the first began.
	Run   int
	First time.Time
	// Mark is nil when no run of the message has begun.
	Mark *Mark
}

// inHead is a record of the inbox, as it is on disk: the first version of it for a message that
// was not run yet, the second for one that is run again.
type inHead struct {
	accepted int64 // milliseconds since 1970; so is first
	run      int
	first    int64
	message  []byte // as wire.EncodeMessage wrote it
}

const recordAgain = 2

func encodeIn(h inHead) []byte {
	b := make([]byte, 1, 25+len(h.message))
	b[0] = recordVersion
	b = be.AppendUint64(b, uint64(h.accepted))
	if h.run > 0 {
		b[0] = recordAgain
		b = be.AppendUint64(b, uint64(h.run))
		b = be.AppendUint64(b, uint64(h.first))
	}
	return append(b, h.message...)
}

// splitIn reads what encodeIn wrote. The message shares memory with b.
func splitIn(b []byte) (inHead, error) {
	switch {
	case len(b) >= 9 && b[0] == recordVersion:
		return inHead{accepted: int64(be.Uint64(b[1:])), message: b[9:]}, nil
	case len(b) >= 25 && b[0] == recordAgain:
		return inHead{accepted: int64(be.Uint64(b[1:])), run: int(be.Uint64(b[9:])), first: int64(be.Uint64(b[17:])), message: b[25:]}, nil
	}
	return inHead{}, errRecord
}

func decodeIn(s Stream, self message.Node, arrival uint64, b []byte) (Waiting, error) {
	h, err := splitIn(b)
	if err != nil {
		return Waiting{}, fmt.Errorf("message %d of %s from %s: %w", arrival, s.Method, s.Peer, err)
	}
	m, err := wire.DecodeMessage(h.message)
	if err != nil {
		return Waiting{}, err
	}
	m.From, m.To, m.Method = s.Peer, self, s.Method
	w := Waiting{Arrival: arrival, Accepted: time.UnixMilli(h.accepted), Message: m, Run: h.run}
	if h.run > 0 {
		w.First = time.UnixMilli(h.first)
	}
	return w, nil
}

// marshal and unmarshal put records without a fixed shape behind their version.
func marshal(v any) ([]byte, error) {
	b, err := cbor.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte{recordVersion}, b...), nil
}

func unmarshal(b []byte, v any) error {
	if len(b) == 0 || b[0] != recordVersion {
		return errRecord
	}
	return cbor.Unmarshal(b[1:], v)
}
