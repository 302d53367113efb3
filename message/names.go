package message

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Node is the unique name of one Steward instance. It is not an address: nothing
// resolves it. Dots are allowed ("ww.central") and make name parts that a broker
// permission can match ("ww.>").
type Node string

// Local is the receiver that stands for the node itself, whatever its name.
const Local Node = "local"

// Method names what a message does on its receiver, for example REQCliCommand.
type Method string

// The methods that the delivery itself has to know by name. All others are known
// by the registry only.
const (
	MethodNone         Method = "REQNone"
	MethodToFileAppend Method = "REQToFileAppend"
	MethodErrorLog     Method = "REQErrorLog"
	MethodHello        Method = "REQHello"
	MethodOpCommand    Method = "REQOpCommand"
	MethodACLUpdate    Method = "REQAclUpdate"
	MethodTrustUpdate  Method = "REQTrustUpdate"
)

// maxName bounds a node or method name in bytes. A subject is two names and a kind;
// a nats-server refuses protocol lines longer than 4,096 bytes.
const maxName = 255

// ErrInvalid is wrapped by every error about a value that can never be delivered,
// however often it is tried.
var ErrInvalid = errors.New("invalid")

// Check says whether n can be used as a node name, and if not, why. A name is a part
// of a NATS subject and of a path, so what has a meaning in either is refused.
func (n Node) Check() error {
	s := string(n)
	if err := checkName("node name", s); err != nil {
		return err
	}
	if slices.Contains(strings.Split(s, "."), "") {
		return fmt.Errorf("%w node name %s: a part between dots is empty", ErrInvalid, Quote(s))
	}
	return nil
}

// Check says whether m can be used as a method name. It does not say whether such a
// method exists.
func (m Method) Check() error {
	s := string(m)
	if err := checkName("method", s); err != nil {
		return err
	}
	if strings.Contains(s, ".") {
		return fmt.Errorf("%w method %s: no dots", ErrInvalid, Quote(s))
	}
	return nil
}

func checkName(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w %s: it is empty", ErrInvalid, what)
	case len(s) > maxName:
		return fmt.Errorf("%w %s %s: longer than %d bytes", ErrInvalid, what, Quote(s), maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w %s %s: not UTF-8", ErrInvalid, what, Quote(s))
	}
	bad := strings.IndexFunc(s, func(r rune) bool {
		return strings.ContainsRune(`*>/\`, r) || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
	if bad >= 0 {
		return fmt.Errorf(`%w %s %s: blanks, control characters, "*", ">", "/" and "\" are not allowed`, ErrInvalid, what, Quote(s))
	}
	return nil
}

// Quote returns s in quotes for use in an error text, with every character printable
// and cut after 64 runes: a bad input must not blow up the error about it.
func Quote(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) > most {
		return fmt.Sprintf("%q… (%d bytes)", string([]rune(s[:min(len(s), most*utf8.UTFMax)])[:most]), len(s))
	}
	return fmt.Sprintf("%q", s)
}

// Kind says what a message is (a command to carry out or an event that happened) and
// whether its receiver acknowledges it.
type Kind uint8

// The kinds, in the spelling of the subject.
const (
	CommandACK Kind = iota + 1
	CommandNACK
	EventACK
	EventNACK
)

var kindNames = [...]string{CommandACK: "CommandACK", CommandNACK: "CommandNACK", EventACK: "EventACK", EventNACK: "EventNACK"}

// String returns the kind as it is spelled in a subject.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ACK reports whether a message of this kind is acknowledged by its receiver.
func (k Kind) ACK() bool { return k == CommandACK || k == EventACK }

// WithoutACK returns the kind of the same message when nobody waits for an
// acknowledgement.
func (k Kind) WithoutACK() Kind {
	switch k {
	case CommandACK:
		return CommandNACK
	case EventACK:
		return EventNACK
	}
	return k
}

// Subject is where a message travels on the broker: <node>.<method>.<kind>.
type Subject struct {
	Node   Node
	Method Method
	Kind   Kind
}

// String returns the NATS subject. It is the only place that builds one for messages.
func (s Subject) String() string {
	return string(s.Node) + "." + string(s.Method) + "." + s.Kind.String()
}

// ParseSubject reads what [Subject.String] wrote. The last two parts are method and
// kind, everything before them is the node, since node names may hold dots.
func ParseSubject(s string) (Subject, error) {
	bad := func(why string) (Subject, error) {
		return Subject{}, fmt.Errorf("%w subject %s: %s", ErrInvalid, Quote(s), why)
	}
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return bad("want <node>.<method>.<kind>")
	}
	kind := slices.Index(kindNames[:], s[i+1:])
	if kind < 1 {
		return bad("the last part is not CommandACK, CommandNACK, EventACK or EventNACK")
	}
	j := strings.LastIndexByte(s[:i], '.')
	if j < 0 {
		return bad("want <node>.<method>.<kind>")
	}
	sub := Subject{Node: Node(s[:j]), Method: Method(s[j+1 : i]), Kind: Kind(kind)}
	if err := sub.Node.Check(); err != nil {
		return Subject{}, fmt.Errorf("subject %s: %w", Quote(s), err)
	}
	if err := sub.Method.Check(); err != nil {
		return Subject{}, fmt.Errorf("subject %s: %w", Quote(s), err)
	}
	return sub, nil
}
