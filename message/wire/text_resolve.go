package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"steward/message"
)

// Catalog is what the checks have to know about the methods there are. It is asked by
// many goroutines at once.
type Catalog interface {
	// Method returns what is known about a method, and whether there is one of that name.
	Method(name message.Method) (MethodInfo, bool)
	// Methods returns all names.
	Methods() []message.Method
}

// MethodInfo is one method of a [Catalog].
type MethodInfo struct {
	Kind    message.Kind
	Reply   message.Method // used when a message names no reply method
	Args    string         // what data holds, such as "FILE" or "COMMAND [ARG ...]"
	MinArgs int            // the fewest elements of data that make sense
}

// Defaults are what a node fills into a message that does not say, and what it accepts.
type Defaults struct {
	// Self is the name of the node: "local" and the author of the message.
	Self    message.Node
	Catalog Catalog

	// ACKTimeout and Retries are those of a message that names none, and of its reply.
	// RetryWait is added between attempts, MethodTimeout bounds the run of a method.
	ACKTimeout    time.Duration
	Retries       int
	RetryWait     time.Duration
	MethodTimeout time.Duration

	// MaxSize is the largest message in bytes, by estimate; 0 means no limit.
	MaxSize int
	// MaxReceivers bounds the receivers of one message, MaxMessages the messages that one
	// array may become; 0 means 10,000 and 100,000.
	MaxReceivers int
	MaxMessages  int

	// OnlySelf is for messages to this node only: it is their receiver when they name none,
	// and another one is refused.
	OnlySelf bool
	// Start, if not empty, is the start of the node that the messages belong to; see
	// message.HeaderStart.
	Start string
}

const (
	methodCommand message.Method = "REQCliCommand"

	// mostSeconds is ten years: longer is a mistake, and a Duration ends at 292 years.
	mostSeconds = 10 * 365 * 24 * 60 * 60
)

var (
	errNoCatalog  = errors.New("resolve messages: no catalog of methods")
	errNoReceiver = errors.New(`no receiver: set "toNode" or "toNodes"`)
)

// ResolveAll makes the messages of one array, in order, or refuses all of them with a
// [*RefusedError] about the first that is not acceptable.
func ResolveAll(drafts []Draft, def Defaults) ([]message.Message, error) {
	r, err := newResolver(def)
	if err != nil {
		return nil, err
	}
	r.out = make([]message.Message, 0, len(drafts))
	for i := range drafts {
		position := drafts[i].Position
		if position == 0 {
			position = i + 1
		}
		if err := r.draft(&drafts[i]); err != nil {
			return nil, err.at(position)
		}
	}
	return r.out, nil
}

// Resolve makes one message per receiver. A receiver that is named twice gets it once.
// Everything is checked; the error is a [*RefusedError].
func (d Draft) Resolve(def Defaults) ([]message.Message, error) {
	r, err := newResolver(def)
	if err != nil {
		return nil, err
	}
	if err := r.draft(&d); err != nil {
		return nil, err.at(d.Position)
	}
	return r.out, nil
}

type resolver struct {
	Defaults
	out []message.Message
}

func newResolver(def Defaults) (*resolver, error) {
	if def.Catalog == nil {
		return nil, errNoCatalog
	}
	if def.MaxReceivers <= 0 {
		def.MaxReceivers = 10_000
	}
	if def.MaxMessages <= 0 {
		def.MaxMessages = 100_000
	}
	return &resolver{Defaults: def}, nil
}

func (e *RefusedError) at(position int) *RefusedError {
	e.Message = position
	return e
}

func refuse(field string, err error) *RefusedError { return &RefusedError{Field: field, Err: err} }

func refusef(field, format string, args ...any) *RefusedError {
	return refuse(field, fmt.Errorf(format, args...))
}

// draft appends the messages of d.
func (r *resolver) draft(d *Draft) *RefusedError {
	m := message.Message{From: r.Self, Data: d.Data, ReplyMethodArgs: d.ReplyMethodArgs}
	for _, step := range [...]func(*Draft, *message.Message) *RefusedError{
		r.sender, r.methods, r.times, r.files, r.operation,
	} {
		if err := step(d, &m); err != nil {
			return err
		}
	}
	// Nobody acknowledges these, and nothing is kept of them.
	if info, _ := r.Catalog.Method(m.Method); info.Kind == message.EventNACK || info.Kind == message.CommandNACK {
		m.ACKTimeout = 0
	}
	if m.Schedule != nil && m.ACKTimeout == 0 {
		return refusef("schedule", "a message without ACK is not kept, so it cannot be run again")
	}
	return r.receivers(d, &m)
}

// resolveSchedule takes over [every, for].
func resolveSchedule(s *[2]int64, m *message.Message) *RefusedError {
	every, total := s[0], s[1]
	switch {
	case every < 1 || every > mostSeconds:
		return refusef("schedule", "found every %d, want seconds from 1 to %d (ten years)", every, mostSeconds)
	case total == -1:
		m.Schedule = &message.Schedule{Every: time.Duration(every) * time.Second, For: message.Forever}
	case total < every || total > mostSeconds:
		return refusef("schedule", "found every %d, for %d; for is seconds in all, from every to %d (ten years), or -1 for without end", every, total, mostSeconds)
	default:
		m.Schedule = &message.Schedule{Every: time.Duration(every) * time.Second, For: time.Duration(total) * time.Second}
	}
	return nil
}

func (r *resolver) sender(d *Draft, m *message.Message) *RefusedError {
	set := func(header, value string) {
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[header] = value
	}
	if r.Start != "" {
		set(message.HeaderStart, r.Start)
	}
	if d.FromNode == nil {
		return nil
	}
	from := message.Node(*d.FromNode)
	if from == message.Local || from == r.Self {
		return nil
	}
	if err := from.Check(); err != nil {
		return refuse("fromNode", err)
	}
	set(message.HeaderFrom, string(from))
	return nil
}

func (r *resolver) methods(d *Draft, m *message.Message) *RefusedError {
	if d.Method == "" {
		return refusef("", `no method: set "method"`)
	}
	m.Method = modern(d.Method)
	info, ok := r.Catalog.Method(m.Method)
	if !ok {
		return refuse("", r.unknown(m.Method))
	}
	if len(m.Data) < info.MinArgs {
		return refusef("data", "%s wants %s; found %d of at least %d elements", m.Method, info.Args, len(m.Data), info.MinArgs)
	}
	m.ReplyMethod = info.Reply
	if d.ReplyMethod != nil {
		m.ReplyMethod = modern(*d.ReplyMethod)
		if _, ok := r.Catalog.Method(m.ReplyMethod); !ok && m.ReplyMethod != message.MethodNone {
			return refuse("replyMethod", r.unknown(m.ReplyMethod))
		}
	}
	return nil
}

// modern returns the name of today for a method of the first days.
func modern(name string) message.Method {
	switch name {
	case "shellCommand":
		return methodCommand
	case "textLogging":
		return message.MethodToFileAppend
	}
	return message.Method(name)
}

func (r *resolver) unknown(m message.Method) error {
	return fmt.Errorf("unknown method %s%s", message.Quote(string(m)), DidYouMean(string(m), r.Catalog.Methods()))
}

func (r *resolver) times(d *Draft, m *message.Message) *RefusedError {
	if s := d.Schedule; s != nil {
		if err := resolveSchedule(s, m); err != nil {
			return err
		}
	}
	for _, f := range [...]struct {
		field    string
		given    *int64
		standard time.Duration
		into     *time.Duration
		run      bool // bounds a run: -1 is for ever, 0 makes no sense
	}{
		{"ACKTimeout", d.ACKTimeout, r.ACKTimeout, &m.ACKTimeout, false},
		{"retryWait", d.RetryWait, r.RetryWait, &m.RetryWait, false},
		{"replyACKTimeout", d.ReplyACKTimeout, r.ACKTimeout, &m.ReplyACKTimeout, false},
		{"methodTimeout", d.MethodTimeout, r.MethodTimeout, &m.MethodTimeout, true},
		{"replyMethodTimeout", d.ReplyMethodTimeout, r.MethodTimeout, &m.ReplyMethodTimeout, true},
		{"ttl", d.TTL, 0, &m.TTL, false},
	} {
		switch {
		case f.given == nil:
			*f.into = f.standard
		case f.run && *f.given == -1:
			*f.into = message.Forever
		case f.run && *f.given < 1:
			return refusef(f.field, "found %d, want seconds from 1 on, or -1 for as long as the node runs", *f.given)
		case *f.given < 0:
			return refusef(f.field, "found %d, want seconds from 0 on", *f.given)
		case *f.given > mostSeconds:
			return refusef(f.field, "found %d, want at most %d seconds (ten years)", *f.given, mostSeconds)
		default:
			*f.into = time.Duration(*f.given) * time.Second
		}
	}
	for _, f := range [...]struct {
		field    string
		given    *int64
		standard int
		into     *int
	}{
		{"retries", d.Retries, r.Retries, &m.Retries},
		{"replyRetries", d.ReplyRetries, r.Retries, &m.ReplyRetries},
		{"methodRetries", d.MethodRetries, 0, &m.MethodRetries},
	} {
		switch {
		case f.given == nil:
			*f.into = f.standard
		case *f.given < 0 || *f.given > math.MaxInt32:
			return refusef(f.field, "found %d, want a number from 0 to %d", *f.given, math.MaxInt32)
		default:
			*f.into = int(*f.given)
		}
	}
	return nil
}

func (r *resolver) files(d *Draft, m *message.Message) *RefusedError {
	if d.Directory != nil {
		if err := message.CheckDirectory(*d.Directory); err != nil {
			return refuse("directory", err)
		}
		m.Directory = *d.Directory
	}
	if d.FileName != nil && *d.FileName != "" {
		if err := message.CheckFileName(*d.FileName); err != nil {
			return refuse("fileName", err)
		}
		m.FileName = *d.FileName
	}
	return nil
}

func (r *resolver) operation(d *Draft, m *message.Message) *RefusedError {
	op := d.Operation
	switch {
	case op == nil && m.Method == message.MethodOpCommand:
		return refusef("operation", "%s wants one", m.Method)
	case op == nil:
		return nil
	case m.Method != message.MethodOpCommand:
		return refusef("operation", "only %s takes one", message.MethodOpCommand)
	case op.Cmd == "":
		return refusef("operation.opCmd", "it is empty or missing")
	case op.ID < 0 || op.ID > math.MaxInt32:
		return refusef("operation.opArg.id", "found %d, want a number from 0 to %d", op.ID, math.MaxInt32)
	}
	arg := message.OperationArg{Method: message.Method(op.Method), Kind: op.Kind, ReceivingNode: message.Node(op.ReceivingNode), ID: int(op.ID)}
	if arg.Method != "" {
		if err := arg.Method.Check(); err != nil {
			return refuse("operation.opArg.method", err)
		}
	}
	if arg.ReceivingNode != "" {
		if err := arg.ReceivingNode.Check(); err != nil {
			return refuse("operation.opArg.receivingNode", err)
		}
	}
	for _, n := range op.AllowedNodes {
		if err := message.Node(n).Check(); err != nil && n != "*" {
			return refuse("operation.opArg.allowedNodes", err)
		}
		arg.AllowedNodes = append(arg.AllowedNodes, message.Node(n))
	}
	if op.MessageID != nil {
		id, err := message.ParseID(*op.MessageID)
		if err != nil || id.IsZero() {
			return refusef("operation.opArg.messageID", "found %s, want the id that was given at acceptance", message.Quote(*op.MessageID))
		}
		arg.MessageID = id
	}
	if op.OlderThan != nil {
		if *op.OlderThan < 1 || *op.OlderThan > mostSeconds {
			return refusef("operation.opArg.olderThan", "found %d, want seconds from 1 to %d", *op.OlderThan, mostSeconds)
		}
		arg.OlderThan = time.Duration(*op.OlderThan) * time.Second
	}
	m.Operation = &message.Operation{Cmd: op.Cmd, Arg: arg}
	if err := CheckOperation(m.Operation); err != nil {
		return refuse("operation", err)
	}
	return nil
}

// receivers appends one copy of m per receiver. The copies share what is inside of them:
// a message is not changed any more.
func (r *resolver) receivers(d *Draft, m *message.Message) *RefusedError {
	if r.OnlySelf && len(d.ToNodes) == 0 {
		d.ToNodes = []string{string(message.Local)}
	}
	switch {
	case len(d.ToNodes) == 0:
		return refuse("", errNoReceiver)
	case len(d.ToNodes) > r.MaxReceivers:
		return refusef("toNodes", "%d receivers, at most %d are allowed", len(d.ToNodes), r.MaxReceivers)
	case len(r.out)+len(d.ToNodes) > r.MaxMessages:
		return refusef("", "with its receivers the array has more than %d messages; send it in parts", r.MaxMessages)
	}
	base := size(m)
	var seen map[message.Node]bool
	if len(d.ToNodes) > 1 {
		seen = make(map[message.Node]bool, len(d.ToNodes))
	}
	for _, name := range d.ToNodes {
		m.To = message.Node(name)
		if m.To == message.Local {
			m.To = r.Self
		}
		if err := m.To.Check(); err != nil {
			return refuse("toNode", err)
		}
		if m.To != r.Self && r.OnlySelf {
			return refusef("toNode", "found %s, but what is in this folder is for this node itself: leave it out, or write local", message.Quote(name))
		}
		if m.To != r.Self && d.FromNode != nil {
			return refusef("fromNode", "filled in by the node, leave it out; only a message to the node itself can have another one")
		}
		if n := base + len(m.To); r.MaxSize > 0 && n > r.MaxSize {
			return refusef("", "it is too large: about %d bytes, the limit is %d", n, r.MaxSize)
		}
		if seen[m.To] {
			continue
		}
		if seen != nil {
			seen[m.To] = true
		}
		r.out = append(r.out, *m)
	}
	return nil
}

// size estimates the bytes of a message when it is encoded, rather too large than too small.
func size(m *message.Message) int {
	const (
		fixed   = 256 // numbers, times, ids
		perText = 8   // the length before a text
	)
	n := fixed + len(m.From) + len(m.Method) + len(m.ReplyMethod) + len(m.Directory) + len(m.FileName)
	for _, s := range m.Data {
		n += perText + len(s)
	}
	for _, s := range m.ReplyMethodArgs {
		n += perText + len(s)
	}
	for k, v := range m.Headers {
		n += 2*perText + len(k) + len(v)
	}
	if op := m.Operation; op != nil {
		n += len(op.Cmd) + len(op.Arg.Method) + len(op.Arg.Kind) + len(op.Arg.ReceivingNode)
		for _, s := range op.Arg.AllowedNodes {
			n += perText + len(s)
		}
	}
	return n
}
