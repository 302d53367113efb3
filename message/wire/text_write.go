package wire

import (
	"bytes"
	"encoding/json"
	"time"

	"steward/message"
)

// textMessage is a message as a person would write it, in the order of the documents. What
// has a default is always there: another node, or another day, may have other defaults.
type textMessage struct {
	ToNode             message.Node   `json:"toNode"`
	FromNode           string         `json:"fromNode,omitempty"`
	Method             message.Method `json:"method"`
	Data               []string       `json:"data,omitempty"`
	Operation          *textOperation `json:"operation,omitempty"`
	ReplyMethod        message.Method `json:"replyMethod"`
	ReplyMethodArgs    []string       `json:"replyMethodArgs,omitempty"`
	ACKTimeout         int64          `json:"ACKTimeout"`
	Retries            int            `json:"retries"`
	RetryWait          int64          `json:"retryWait,omitempty"`
	ReplyACKTimeout    int64          `json:"replyACKTimeout"`
	ReplyRetries       int            `json:"replyRetries"`
	MethodTimeout      int64          `json:"methodTimeout,omitempty"`
	ReplyMethodTimeout int64          `json:"replyMethodTimeout,omitempty"`
	MethodRetries      int            `json:"methodRetries,omitempty"`
	TTL                int64          `json:"ttl,omitempty"`
	Schedule           *[2]int64      `json:"schedule,omitempty"`
	Directory          string         `json:"directory,omitempty"`
	FileName           string         `json:"fileName,omitempty"`
}

type textOperation struct {
	Cmd string            `json:"opCmd"`
	Arg *textOperationArg `json:"opArg,omitempty"`
}

type textOperationArg struct {
	Method        message.Method `json:"method,omitempty"`
	Kind          string         `json:"kind,omitempty"`
	ReceivingNode message.Node   `json:"receivingNode,omitempty"`
	ID            int            `json:"id,omitempty"`
	AllowedNodes  []message.Node `json:"allowedNodes,omitempty"`
	MessageID     *message.ID    `json:"messageID,omitempty"`
	OlderThan     int64          `json:"olderThan,omitempty"`
}

// AppendText appends m as JSON on one line, as a [Decoder] reads it: sent again by the same
// node, it becomes the same message under another id. Of a reply the body and the result are left out:
// it is made by its request. Times are written in whole seconds, rounded up.
func AppendText(b []byte, m *message.Message) ([]byte, error) {
	t := textMessage{
		ToNode: m.To, FromNode: m.Headers[message.HeaderFrom], Method: m.Method, Data: m.Data,
		ReplyMethod: m.ReplyMethod, ReplyMethodArgs: m.ReplyMethodArgs,
		ACKTimeout: wholeSeconds(m.ACKTimeout), Retries: m.Retries, RetryWait: wholeSeconds(m.RetryWait),
		ReplyACKTimeout: wholeSeconds(m.ReplyACKTimeout), ReplyRetries: m.ReplyRetries,
		MethodTimeout: wholeSeconds(m.MethodTimeout), ReplyMethodTimeout: wholeSeconds(m.ReplyMethodTimeout),
		MethodRetries: m.MethodRetries, TTL: wholeSeconds(m.TTL), Directory: m.Directory, FileName: m.FileName,
	}
	if t.ReplyMethod == "" {
		t.ReplyMethod = message.MethodNone
	}
	if s := m.Schedule; s != nil {
		t.Schedule = &[2]int64{wholeSeconds(s.Every), wholeSeconds(s.For)}
	}
	if op := m.Operation; op != nil {
		arg := textOperationArg{Method: op.Arg.Method, Kind: op.Arg.Kind, ReceivingNode: op.Arg.ReceivingNode, ID: op.Arg.ID,
			AllowedNodes: op.Arg.AllowedNodes, OlderThan: wholeSeconds(op.Arg.OlderThan)}
		if !op.Arg.MessageID.IsZero() {
			arg.MessageID = &op.Arg.MessageID
		}
		t.Operation = &textOperation{Cmd: op.Cmd, Arg: &arg}
	}
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&t); err != nil {
		return b, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// wholeSeconds is a time as people write it; for ever stays that.
func wholeSeconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Second - 1) / time.Second)
}
