package client

import (
	"encoding/json"
	"time"

	"steward/message"
)

// What a [Message] says where zero would be the default of the node.
const (
	// Unlimited, as Retries or ReplyRetries, is without end: the message is never given up.
	Unlimited = -1
	// NoACK, as ACKTimeout or ReplyACKTimeout, wants no acknowledgement: what gets lost is lost.
	NoACK time.Duration = -1
)

// Message is something to be done on one or more nodes. What is zero is left to the defaults of the node that takes it
// over. Times are whole seconds on their way, rounded up.
type Message struct {
	// To are the receivers, each of which gets a message of its own; [message.Local] is the node itself.
	To     []message.Node
	Method message.Method
	Data   []string // the arguments of the method

	// ReplyMethod is run on this node with what the method produced, [message.MethodNone] being no reply.
	ReplyMethod     message.Method
	ReplyMethodArgs []string

	ACKTimeout time.Duration // how long one attempt waits for its ACK, or NoACK
	Retries    int           // how many attempts there are, or Unlimited
	RetryWait  time.Duration // between a missed ACK and the next attempt

	ReplyACKTimeout time.Duration // the same for the reply
	ReplyRetries    int

	MethodTimeout      time.Duration // how long the method may run, or message.Forever
	ReplyMethodTimeout time.Duration
	MethodRetries      int // how often a run that failed or was interrupted is repeated

	// TTL is the time after which the message is not run any more; 0 is never.
	TTL time.Duration
	// Schedule has the receiver repeat it.
	Schedule *message.Schedule

	// Directory and FileName say where a reply or text is stored, below the data folder of the node that stores it.
	Directory, FileName string

	// Operation is for message.MethodOpCommand.
	Operation *message.Operation
	// From is another node in whose name the message is, and to which the reply goes. It is for messages to the node itself alone.
	From message.Node
}

// MarshalJSON writes the message as sockets and message files hold it.
func (m Message) MarshalJSON() ([]byte, error) {
	type operationArg struct {
		Method        message.Method `json:"method,omitempty"`
		Kind          string         `json:"kind,omitempty"`
		ReceivingNode message.Node   `json:"receivingNode,omitempty"`
		ID            int            `json:"id,omitempty"`
		AllowedNodes  []message.Node `json:"allowedNodes,omitempty"`
		MessageID     message.ID     `json:"messageID,omitzero"`
		OlderThan     int64          `json:"olderThan,omitempty"`
	}
	type operation struct {
		Cmd string       `json:"opCmd"`
		Arg operationArg `json:"opArg"`
	}
	text := struct {
		ToNodes            []message.Node `json:"toNodes,omitempty"`
		FromNode           message.Node   `json:"fromNode,omitempty"`
		Method             message.Method `json:"method"`
		Data               []string       `json:"data,omitempty"`
		Operation          *operation     `json:"operation,omitempty"`
		ReplyMethod        message.Method `json:"replyMethod,omitempty"`
		ReplyMethodArgs    []string       `json:"replyMethodArgs,omitempty"`
		ACKTimeout         *int64         `json:"ACKTimeout,omitempty"`
		Retries            *int64         `json:"retries,omitempty"`
		RetryWait          *int64         `json:"retryWait,omitempty"`
		ReplyACKTimeout    *int64         `json:"replyACKTimeout,omitempty"`
		ReplyRetries       *int64         `json:"replyRetries,omitempty"`
		MethodTimeout      *int64         `json:"methodTimeout,omitempty"`
		ReplyMethodTimeout *int64         `json:"replyMethodTimeout,omitempty"`
		MethodRetries      int            `json:"methodRetries,omitempty"`
		TTL                *int64         `json:"ttl,omitempty"`
		Schedule           *[2]int64      `json:"schedule,omitempty"`
		Directory          string         `json:"directory,omitempty"`
		FileName           string         `json:"fileName,omitempty"`
	}{
		ToNodes: m.To, FromNode: m.From, Method: m.Method, Data: m.Data, ReplyMethod: m.ReplyMethod, ReplyMethodArgs: m.ReplyMethodArgs,
		ACKTimeout: optional(unless(NoACK, m.ACKTimeout)), Retries: optional(attempts(m.Retries)), RetryWait: optional(seconds(m.RetryWait), m.RetryWait != 0),
		ReplyACKTimeout: optional(unless(NoACK, m.ReplyACKTimeout)), ReplyRetries: optional(attempts(m.ReplyRetries)),
		MethodTimeout:      optional(seconds(m.MethodTimeout), m.MethodTimeout != 0),
		ReplyMethodTimeout: optional(seconds(m.ReplyMethodTimeout), m.ReplyMethodTimeout != 0),
		MethodRetries:      m.MethodRetries, TTL: optional(seconds(m.TTL), m.TTL != 0),
		Directory: m.Directory, FileName: m.FileName,
	}
	if s := m.Schedule; s != nil {
		text.Schedule = &[2]int64{seconds(s.Every), seconds(s.For)}
	}
	if o := m.Operation; o != nil {
		text.Operation = &operation{o.Cmd, operationArg{o.Arg.Method, o.Arg.Kind, o.Arg.ReceivingNode, o.Arg.ID, o.Arg.AllowedNodes,
			o.Arg.MessageID, seconds(o.Arg.OlderThan)}}
	}
	return json.Marshal(text)
}

// seconds is a time as a message has it, in whole ones, rounded up; [message.Forever] is -1.
func seconds(d time.Duration) int64 {
	if d < 0 {
		return int64(min(-1, d/time.Second)) // one that makes no sense is for the node to refuse
	}
	return int64((d + time.Second - 1) / time.Second)
}

// unless is a time of which another one, and not 0, stands for 0.
func unless(zero, d time.Duration) (n int64, is bool) {
	if d == zero {
		return 0, true
	}
	return seconds(d), d != 0
}

func attempts(n int) (int64, bool) {
	if n == Unlimited {
		return 0, true
	}
	return int64(n), n != 0
}

func optional(n int64, is bool) *int64 {
	if !is {
		return nil
	}
	return &n
}

// Command is a command to be run on nodes.
type Command struct {
	Nodes []message.Node // message.Local is the node itself
	// Args are the command and its arguments. No shell reads them: {"sh", "-c", line} has one read a line.
	Args []string
	// Stream sends on what is written while the command runs, which then waits for no other command of this node there. Without it
	// commands run one after the other, and what they write comes at their end.
	Stream bool
	// Timeout is when the command is ended, counted from its start, and not run any more if it was not delivered, counted from now;
	// whole seconds, rounded up. 0: the command is ended when its node's default says so, and the message waits for ever.
	Timeout time.Duration
}

// Message is the message that has the command run. It waits until it is delivered, and is answered with what the
// command writes.
func (c Command) Message() Message {
	m := Message{To: c.Nodes, Method: "REQCliCommand", Data: c.Args, Retries: Unlimited, TTL: c.Timeout, MethodTimeout: c.Timeout}
	if c.Stream {
		m.Method = "REQnCliCommandCont"
	}
	return m
}
