package process

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"steward/message"
)

// Crash says what it means for a method when its node dies in the middle of it.
type Crash uint8

const (
	// Repeat: it is harmless to run it again, so it is.
	Repeat Crash = iota + 1
	// Once: it is never run again unasked. The start is on disk before the method
	// begins; after a crash the sender learns "interrupted", unless methodRetries allows
	// another run.
	Once
	// Exact: a half-done run can be taken back, and is, before it is run again. Such a
	// method has RunAll, Mark and Undo in place of Run.
	Exact
	// Resume: a run notes how far it has come, with Call.EmitNoting. After a crash or a stop
	// it goes on from there, within the time that it has left.
	Resume
)

// Access says who may use a method when the configuration does not say.
type Access uint8

const (
	AccessCentral Access = iota + 1 // the central node only
	AccessAll                       // every node
)

// Spec describes a method: everything that subscribers, configuration, documents and
// checks have to know about it.
type Spec struct {
	Name    message.Method
	Summary string // what it does, in a line
	// Details are what a user has to know besides, in a few sentences on one line; empty for
	// nothing.
	Details string
	Args    string // what data holds, for example "COMMAND [ARG ...]"; empty for nothing
	MinArgs int    // the fewest elements of data that make sense
	Kind    message.Kind
	Access  Access
	// Ordered methods run one at a time per sender; others many at a time.
	Ordered bool
	// Parallel, when not 0, is how many runs of a method without order there may be at a
	// time, in place of what the node is configured for. It is for runs that take long and
	// cost little.
	Parallel int
	Crash    Crash
	// Reply is the reply method when the message names none; REQNone for a method that
	// makes no reply.
	Reply message.Method

	// File says where it stores a message, below the data folder; nil for a method that stores none.
	File func(m *message.Message) (string, error)

	// Run carries out one call (Crash is not Exact).
	Run func(ctx context.Context, c *Call) (Outcome, error)

	// RunAll carries out calls in order and returns one error each, in the same order
	// (Crash is Exact). What it did is on disk when it returns. Mark is called before
	// each RunAll, and returns what Undo needs to take back a RunAll of the same calls that
	// a crash cut off at any point. Undo may be called for calls of which nothing was run, and twice.
	RunAll func(ctx context.Context, calls []*Call) []error
	Mark   func(calls []*Call) ([]byte, error)
	Undo   func(env *Env, mark []byte) error
}

// Allowed decides whether a message from another node may be run here. The error says for people why
// not.
type Allowed func(from message.Node, m *message.Message) error

// Env is what a node lends to its methods.
type Env struct {
	Self    message.Node
	Central message.Node
	// Files is the data folder; nothing outside of it can be opened through it.
	Files *os.Root
	// Stdout and Stderr are where REQToConsole prints. Safe for concurrent use.
	Stdout, Stderr io.Writer
	// Operator is how REQOpCommand reaches the node; nil where that is not to be.
	Operator Operator
	// Commands is how commands are run.
	Commands Commands
	// Rules are how REQAclUpdate reaches the rules of the node; nil where that is not to be.
	Rules Rules
	// Fleet is how REQTrustUpdate reaches the keys that the node trusts; nil where that is not to be.
	Fleet Fleet
}

// Commands says how a node runs commands.
type Commands struct {
	// User is whom they run as; nil is the user of the node itself.
	User *User
	// Environment names variables of the node's own environment that commands get besides
	// those that every command gets.
	Environment []string
}

// User is a user of the system.
type User struct {
	Name, Home, Shell string
	UID, GID          uint32
	Groups            []uint32 // the supplementary ones
}

// Rules are those of who may do what on a node.
type Rules interface {
	// Replace puts a text in the place of the rules and in force, if its version is higher. by is the node
	// that wants that. One that shuts out who sends rules is refused unless force is set. It returns what
	// was done, as a line for people.
	Replace(text string, by message.Node, force bool) (string, error)
}

// Fleet is what central tells its nodes about keys.
type Fleet interface {
	// ReplaceKeys puts a list that central has signed in force, if its version is higher. It returns
	// what was done, as a line for people.
	ReplaceKeys(text string) (string, error)
}

// Operator is what an operator may ask of a node while it runs. Nothing of it outlasts that
// run. It is safe for concurrent use; the methods return when it is done, or with the error
// of ctx.
type Operator interface {
	// Tree returns the node's processes.
	Tree() Tree
	// StartSubscriber lets these nodes use a method here, and starts its subscriber when it
	// does not run. Without nodes it is the list from before.
	StartSubscriber(ctx context.Context, m message.Method, allowed []message.Node) error
	// StopSubscriber stops the subscriber of a method and the runs under way.
	StopSubscriber(ctx context.Context, m message.Method) error
	// StartPublisher and StopPublisher are for the messages for a method of a node.
	StartPublisher(ctx context.Context, m message.Method, to message.Node) error
	StopPublisher(ctx context.Context, m message.Method, to message.Node) error
	// ClearQueue takes messages off the ring buffer; by says who wants that.
	ClearQueue(ctx context.Context, f QueueFilter, by string) ([]Cleared, error)
}

// Call is one run of a method: all that its handler may use.
type Call struct {
	*Env
	Message *message.Message
	Attempt int // counts from 1
	Log     *slog.Logger
	// Emit makes body the next part of the reply, before the method has ended. It returns
	// when the part is on disk, and waits while there is no room for it; a context of a
	// handler's own may outlast the run's, the end of the node ends it all the same. It is nil
	// in a RunAll.
	Emit func(ctx context.Context, body []byte) error
	// EmitNoting is Emit, and notes in the same commit how far the run has come. An empty
	// body makes no part, only the note. It is nil unless Crash is Resume.
	EmitNoting func(ctx context.Context, body, note []byte) error
	// Noted is what was noted last before the run was cut off; nil when nothing was.
	Noted []byte
}

// Outcome is what a run produced besides its error.
type Outcome struct {
	// Body is the reply's payload, or its last part.
	Body []byte
	// Exit, Signal, Stderr and StderrSize are as in message.Result. Set Exit to -1 when
	// no command ran.
	Exit       int
	Signal     string
	Stderr     []byte
	StderrSize int64
}

// ErrTryLater is wrapped by the error of a handler that could not do its work for a reason
// that passes (a full disk, say). The call stays in the inbox and is run again after a
// while, and the calls behind it wait.
var ErrTryLater = errors.New("will be tried again")

// MaxPart bounds one part of a reply, in bytes. A larger body has to be emitted in parts.
const MaxPart = 256 << 10
