package wire

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"steward/message"
)

// record is a message as bytes. From, To and Method are left out: a message is always
// stored and sent as part of a stream, which names them once. Accepted is the time in
// the id. Keys are never given a new meaning; new fields get new keys.
type record struct {
	ID                 []byte            `cbor:"1,keyasint"`
	Data               []string          `cbor:"2,keyasint,omitempty"`
	Body               []byte            `cbor:"3,keyasint,omitempty"`
	ReplyMethod        string            `cbor:"4,keyasint,omitempty"`
	ReplyMethodArgs    []string          `cbor:"5,keyasint,omitempty"`
	ACKTimeout         int64             `cbor:"6,keyasint,omitempty"`
	Retries            int               `cbor:"7,keyasint,omitempty"`
	RetryWait          int64             `cbor:"8,keyasint,omitempty"`
	ReplyACKTimeout    int64             `cbor:"9,keyasint,omitempty"`
	ReplyRetries       int               `cbor:"10,keyasint,omitempty"`
	MethodTimeout      int64             `cbor:"11,keyasint,omitempty"`
	ReplyMethodTimeout int64             `cbor:"12,keyasint,omitempty"`
	MethodRetries      int               `cbor:"13,keyasint,omitempty"`
	TTL                int64             `cbor:"14,keyasint,omitempty"`
	Directory          string            `cbor:"15,keyasint,omitempty"`
	FileName           string            `cbor:"16,keyasint,omitempty"`
	Headers            map[string]string `cbor:"17,keyasint,omitempty"`
	InReplyTo          []byte            `cbor:"18,keyasint,omitempty"`
	RequestMethod      string            `cbor:"19,keyasint,omitempty"`
	Part               uint32            `cbor:"20,keyasint,omitempty"`
	Result             *result           `cbor:"21,keyasint,omitempty"`
	Operation          *operation        `cbor:"22,keyasint,omitempty"`
	Schedule           *schedule         `cbor:"23,keyasint,omitempty"`
}

type result struct {
	Code       string `cbor:"1,keyasint"`
	Text       string `cbor:"2,keyasint,omitempty"`
	Exit       int    `cbor:"3,keyasint,omitempty"`
	Signal     string `cbor:"4,keyasint,omitempty"`
	Stderr     []byte `cbor:"5,keyasint,omitempty"`
	StderrSize int64  `cbor:"6,keyasint,omitempty"`
	Started    int64  `cbor:"7,keyasint,omitempty"` // milliseconds since 1970
	Took       int64  `cbor:"8,keyasint,omitempty"` // microseconds
	Attempt    int    `cbor:"9,keyasint,omitempty"`
	Run        int    `cbor:"10,keyasint,omitempty"`
	More       bool   `cbor:"11,keyasint,omitempty"`
}

type operation struct {
	Cmd           string   `cbor:"1,keyasint"`
	Method        string   `cbor:"2,keyasint,omitempty"`
	Kind          string   `cbor:"3,keyasint,omitempty"`
	ReceivingNode string   `cbor:"4,keyasint,omitempty"`
	ID            int      `cbor:"5,keyasint,omitempty"`
	AllowedNodes  []string `cbor:"6,keyasint,omitempty"`
	MessageID     []byte   `cbor:"7,keyasint,omitempty"`
	OlderThan     int64    `cbor:"8,keyasint,omitempty"` // milliseconds
}

type schedule struct {
	Every int64 `cbor:"1,keyasint"` // milliseconds
	For   int64 `cbor:"2,keyasint"`
}

// maxElements bounds a list and maxPairs a map, so that a few bytes cannot claim much memory.
const (
	maxElements = 1 << 17
	maxPairs    = 1 << 10
)

// encMode and decMode are fixed settings of the library; both are safe for concurrent use.
var (
	encMode = must(cbor.EncOptions{}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: maxElements,
		MaxMapPairs:      maxPairs,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options are constants: only a bug of ours gets here
	}
	return v
}

// EncodeMessage returns m as bytes, without what the stream says: From, To and Method. Bytes
// that are not UTF-8 in a text are replaced by U+FFFD. The error wraps [message.ErrInvalid]
// when m is too large to be sent, or names a method that cannot exist.
func EncodeMessage(m *message.Message) ([]byte, error) {
	if len(m.Data) > maxElements || len(m.ReplyMethodArgs) > maxElements || len(m.Headers) > maxPairs ||
		m.Operation != nil && len(m.Operation.Arg.AllowedNodes) > maxElements {
		return nil, fmt.Errorf("%w message: more than %d elements of a list, or %d headers", message.ErrInvalid, maxElements, maxPairs)
	}
	if err := checkMethods(m.ReplyMethod, m.RequestMethod); err != nil {
		return nil, err
	}
	r := record{
		ID:                 m.ID[:],
		Data:               valid(m.Data),
		Body:               m.Body,
		ReplyMethod:        string(m.ReplyMethod),
		ReplyMethodArgs:    valid(m.ReplyMethodArgs),
		ACKTimeout:         millis(m.ACKTimeout),
		Retries:            m.Retries,
		RetryWait:          millis(m.RetryWait),
		ReplyACKTimeout:    millis(m.ReplyACKTimeout),
		ReplyRetries:       m.ReplyRetries,
		MethodTimeout:      millis(m.MethodTimeout),
		ReplyMethodTimeout: millis(m.ReplyMethodTimeout),
		MethodRetries:      m.MethodRetries,
		TTL:                millis(m.TTL),
		Directory:          text(m.Directory),
		FileName:           text(m.FileName),
		Headers:            validMap(m.Headers),
		RequestMethod:      string(m.RequestMethod),
		Part:               m.Part,
	}
	if m.IsReply() {
		r.InReplyTo = m.InReplyTo[:]
	}
	if res := m.Result; res != nil {
		r.Result = &result{
			Code: text(string(res.Code)), Text: text(res.Text), Exit: res.Exit,
			Signal: text(res.Signal), Stderr: res.Stderr, StderrSize: res.StderrSize,
			Took: res.Took.Microseconds(), Attempt: res.Attempt, Run: res.Run, More: res.More,
		}
		if !res.Started.IsZero() {
			r.Result.Started = res.Started.UnixMilli()
		}
	}
	if op := m.Operation; op != nil {
		r.Operation = &operation{
			Cmd: text(op.Cmd), Method: text(string(op.Arg.Method)), Kind: text(op.Arg.Kind),
			ReceivingNode: text(string(op.Arg.ReceivingNode)), ID: op.Arg.ID, OlderThan: op.Arg.OlderThan.Milliseconds(),
		}
		if !op.Arg.MessageID.IsZero() {
			r.Operation.MessageID = op.Arg.MessageID[:]
		}
		for _, n := range op.Arg.AllowedNodes {
			r.Operation.AllowedNodes = append(r.Operation.AllowedNodes, text(string(n)))
		}
	}
	if s := m.Schedule; s != nil {
		r.Schedule = &schedule{Every: millis(s.Every), For: millis(s.For)}
	}
	b, err := encMode.Marshal(&r)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w message: %d bytes, at most %d can be sent", message.ErrInvalid, len(b), MaxMessage)
	}
	return b, nil
}

// DecodeMessage reads what [EncodeMessage] wrote. The caller fills in From, To and Method.
// The message shares no memory with b. The error wraps [message.ErrInvalid].
func DecodeMessage(b []byte) (*message.Message, error) {
	var r record
	if err := decMode.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%w message: %w", message.ErrInvalid, err)
	}
	m := &message.Message{
		Data:               r.Data,
		Body:               r.Body,
		ReplyMethod:        message.Method(r.ReplyMethod),
		ReplyMethodArgs:    r.ReplyMethodArgs,
		ACKTimeout:         duration(r.ACKTimeout),
		Retries:            r.Retries,
		RetryWait:          duration(r.RetryWait),
		ReplyACKTimeout:    duration(r.ReplyACKTimeout),
		ReplyRetries:       r.ReplyRetries,
		MethodTimeout:      duration(r.MethodTimeout),
		ReplyMethodTimeout: duration(r.ReplyMethodTimeout),
		MethodRetries:      r.MethodRetries,
		TTL:                duration(r.TTL),
		Directory:          r.Directory,
		FileName:           r.FileName,
		Headers:            r.Headers,
		RequestMethod:      message.Method(r.RequestMethod),
		Part:               r.Part,
	}
	if copy(m.ID[:], r.ID) != len(m.ID) || len(r.ID) != len(m.ID) || m.ID.IsZero() {
		return nil, fmt.Errorf("%w message: no id", message.ErrInvalid)
	}
	if err := checkMethods(m.ReplyMethod, m.RequestMethod); err != nil {
		return nil, fmt.Errorf("message %s: %w", m.ID, err)
	}
	m.Accepted = m.ID.Time()
	if len(r.InReplyTo) != 0 && (copy(m.InReplyTo[:], r.InReplyTo) != len(m.ID) || len(r.InReplyTo) != len(m.ID)) {
		return nil, fmt.Errorf("%w message %s: inReplyTo is no id", message.ErrInvalid, m.ID)
	}
	if res := r.Result; res != nil {
		m.Result = &message.Result{
			Code: message.Code(res.Code), Text: res.Text, Exit: res.Exit, Signal: res.Signal,
			Stderr: res.Stderr, StderrSize: res.StderrSize,
			Took: time.Duration(max(0, min(res.Took, maxMicros))) * time.Microsecond, Attempt: res.Attempt, Run: res.Run, More: res.More,
		}
		if res.Started != 0 {
			m.Result.Started = unixMilli(res.Started)
		}
	}
	if op := r.Operation; op != nil {
		m.Operation = &message.Operation{Cmd: op.Cmd, Arg: message.OperationArg{
			Method: message.Method(op.Method), Kind: op.Kind, ReceivingNode: message.Node(op.ReceivingNode), ID: op.ID,
			OlderThan: duration(op.OlderThan),
		}}
		if len(op.MessageID) != 0 && (copy(m.Operation.Arg.MessageID[:], op.MessageID) != len(m.ID) || len(op.MessageID) != len(m.ID)) {
			return nil, fmt.Errorf("%w message: an id in its operation has %d bytes", message.ErrInvalid, len(op.MessageID))
		}
		for _, n := range op.AllowedNodes {
			m.Operation.Arg.AllowedNodes = append(m.Operation.Arg.AllowedNodes, message.Node(n))
		}
	}
	if s := r.Schedule; s != nil {
		m.Schedule = &message.Schedule{Every: duration(s.Every), For: duration(s.For)}
	}
	return m, nil
}

// checkMethods checks the methods that a message names besides its own, where it names any: a
// reply is sent on a subject that is made of one.
func checkMethods(methods ...message.Method) error {
	for _, m := range methods {
		if m == "" {
			continue
		}
		if err := m.Check(); err != nil {
			return err
		}
	}
	return nil
}

// maxMillis and maxMicros keep a duration from outside within time.Duration: about 290 years.
const (
	maxMillis = int64(1<<63-1) / int64(time.Millisecond)
	maxMicros = int64(1<<63-1) / int64(time.Microsecond)
)

// millis rounds up: a short time must not become none at all, which means something else.
func millis(d time.Duration) int64 {
	switch {
	case d < 0:
		return -1
	case d%time.Millisecond != 0:
		return d.Milliseconds() + 1
	}
	return d.Milliseconds()
}

func duration(ms int64) time.Duration {
	if ms < 0 {
		return message.Forever
	}
	return time.Duration(min(ms, maxMillis)) * time.Millisecond
}

// maxTime is the last millisecond of the year 9999: times beyond it cannot be printed as JSON.
const maxTime = 253402300799999

func unixMilli(ms int64) time.Time { return time.UnixMilli(max(0, min(ms, maxTime))) }

// text makes what a method or a person produced fit for CBOR, whose text strings are UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// valid is text for a list, which stays as it is when nothing has to be replaced.
func valid(texts []string) []string {
	for i, s := range texts {
		if utf8.ValidString(s) {
			continue
		}
		out := slices.Clone(texts)
		for ; i < len(out); i++ {
			out[i] = text(out[i])
		}
		return out
	}
	return texts
}

func validMap(m map[string]string) map[string]string {
	for k, v := range m {
		if utf8.ValidString(k) && utf8.ValidString(v) {
			continue
		}
		out := make(map[string]string, len(m))
		for k, v := range m {
			out[text(k)] = text(v)
		}
		return out
	}
	return m
}
