package message

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Forever is a method timeout that never ends: the method may run as long as the node.
const Forever time.Duration = -1

// DataPlaceholder stands for the output of the request in the arguments of a reply method that runs a
// command.
const DataPlaceholder = "{{STEWARD_DATA}}"

// Message is one thing to be done on one node. It is complete: whatever its author
// left out was filled in from the defaults of the accepting node before acceptance.
type Message struct {
	// ID, From and Accepted are given by the node that accepts the message.
	ID       ID
	From     Node
	Accepted time.Time

	// Origin is how the message came to the node that accepted it: "socket uid=1000 pid=4242".
	// It is empty for those that the node makes itself, and stays on that node.
	Origin string

	To     Node
	Method Method
	// Data are the arguments of the method, as text.
	Data []string
	// Body is what a method produced, byte for byte: the payload of a reply.
	Body []byte

	// ReplyMethod runs on the sending node with what the method produced.
	ReplyMethod     Method
	ReplyMethodArgs []string

	// ACKTimeout is how long one attempt waits for its ACK; 0 means that no ACK is
	// wanted. Retries is the number of attempts, 0 means without end. RetryWait is
	// added between a missed ACK and the next attempt.
	ACKTimeout time.Duration
	Retries    int
	RetryWait  time.Duration
	// ReplyACKTimeout and ReplyRetries are the same for the reply.
	ReplyACKTimeout time.Duration
	ReplyRetries    int

	// MethodTimeout bounds the run of the method; [Forever] means no bound.
	// MethodRetries is how often a run that failed or was interrupted is repeated.
	MethodTimeout      time.Duration
	ReplyMethodTimeout time.Duration
	MethodRetries      int

	// TTL is the time after acceptance from which on the message is not run any
	// more; 0 means that it never expires.
	TTL time.Duration

	// Directory and FileName say where a reply or text is stored, below the data
	// folder of the node that stores it.
	Directory string
	FileName  string

	// Operation is what REQOpCommand does, nil for other methods.
	Operation *Operation
	// Schedule repeats the message, nil for once.
	Schedule *Schedule

	// Headers travel with the message and come back in its reply.
	Headers map[string]string

	// InReplyTo, RequestMethod and Result are set in replies only: what is answered,
	// and how the run of its method ended. A reply in several parts carries the Result
	// in its last part; Part counts from 0.
	InReplyTo     ID
	RequestMethod Method
	Part          uint32
	Result        *Result
}

// Headers that a node gives to messages for itself. Those of other nodes have no effect.
const (
	// HeaderFrom is the node in whose name the message is: the method sees it as the
	// sender, and the reply goes there.
	HeaderFrom = "steward-from"
	// HeaderStart names the start of the node that the message belongs to. A later start
	// does not run it any more.
	HeaderStart = "steward-start"
)

// Schedule has the receiver run a message again every Every, for For in all, counted from the
// beginning of the first run; [Forever] is without end.
type Schedule struct {
	Every time.Duration
	For   time.Duration
}

// Check says whether a schedule makes sense, and if not, why.
func (s *Schedule) Check() error {
	switch {
	case s.Every < time.Second:
		return fmt.Errorf("%w schedule: every %v, want a second or more", ErrInvalid, s.Every)
	case s.For != Forever && s.For < s.Every:
		return fmt.Errorf("%w schedule: every %v for %v in all, which is shorter", ErrInvalid, s.Every, s.For)
	}
	return nil
}

// Next returns when the run after one that has ended at now is due, first being when the first
// run began. Runs that are missed meanwhile are left out. more is false when there is none.
func (s *Schedule) Next(first, now time.Time) (due time.Time, more bool) {
	past := max(0, now.Sub(first))
	due = first.Add((past/s.Every + 1) * s.Every)
	return due, s.For == Forever || due.Sub(first) < s.For
}

// IsReply reports whether m answers another message.
func (m *Message) IsReply() bool { return !m.InReplyTo.IsZero() }

// Last reports whether m is the last part of a reply, or no reply at all.
func (m *Message) Last() bool { return !m.IsReply() || m.Result != nil }

// WantsReply reports whether running m makes a reply.
func (m *Message) WantsReply() bool { return m.ReplyMethod != "" && m.ReplyMethod != MethodNone }

// AwaitsReply reports whether a reply comes to the node that accepts m, for sure. That to a
// message in the name of another node goes to that one, and one without ACK may get lost.
func (m *Message) AwaitsReply() bool {
	return m.WantsReply() && m.ReplyACKTimeout > 0 && m.Headers[HeaderFrom] == ""
}

// ReplyWith returns a reply to m for a method of its sender, with what the author of m wanted for
// replies and nothing in it yet.
func (m *Message) ReplyWith(method Method) *Message {
	return &Message{
		To: m.From, Method: method, ReplyMethod: MethodNone,
		ACKTimeout: m.ReplyACKTimeout, Retries: m.ReplyRetries, RetryWait: m.RetryWait, MethodTimeout: m.ReplyMethodTimeout,
		Directory: m.Directory, FileName: m.FileName, Headers: m.Headers, InReplyTo: m.ID, RequestMethod: m.Method,
	}
}

// Expired reports whether m is past its time to live at now.
func (m *Message) Expired(now time.Time) bool {
	return m.TTL > 0 && now.Sub(m.Accepted) > m.TTL
}

// File returns the relative, slash-separated path below the data folder at which a text
// or reply is stored: <directory>/<node that sent it>/<file name>. An absolute directory
// is taken as below the data folder. The error wraps [ErrInvalid] when the path would
// leave it.
func (m *Message) File() (string, error) {
	name := m.FileName
	if name == "" {
		method := m.Method
		if m.IsReply() {
			method = m.RequestMethod
		}
		name = string(method) + ".log"
	}
	if err := CheckDirectory(m.Directory); err != nil {
		return "", err
	}
	if err := CheckFileName(name); err != nil {
		return "", err
	}
	if err := m.From.Check(); err != nil {
		return "", err
	}
	return path.Join(strings.TrimLeft(m.Directory, "/"), string(m.From), name), nil
}

// CheckDirectory says whether a directory given in a message stays below the data folder.
func CheckDirectory(dir string) error {
	if strings.ContainsRune(dir, 0) {
		return fmt.Errorf("%w directory %s: it holds a NUL byte", ErrInvalid, Quote(dir))
	}
	depth := 0
	for part := range strings.SplitSeq(strings.ReplaceAll(dir, `\`, "/"), "/") {
		switch part {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return fmt.Errorf("%w directory %s: it leaves the data folder", ErrInvalid, Quote(dir))
		}
	}
	return nil
}

// CheckFileName says whether a file name given in a message is one name and not a path.
func CheckFileName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf(`%w fileName %s: want a plain name; folders go into "directory"`, ErrInvalid, Quote(name))
	}
	return nil
}
