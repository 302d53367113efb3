package message

import "time"

// Code says in one word how something ended. Codes cross the wire and are kept in
// stores, so they are only ever added to. Programs branch on the code, people read the
// text beside it.
type Code string

// The codes.
const (
	CodeDone        Code = "done"        // ran, or was delivered, as asked
	CodeFailed      Code = "failed"      // the method ran and failed
	CodeTimeout     Code = "timeout"     // the method was cut off at its timeout
	CodeInterrupted Code = "interrupted" // the node died while the method ran, or lost it with its disk
	CodeInvalid     Code = "invalid"     // the receiver can never accept it
	CodeDenied      Code = "denied"      // the receiver does not allow the sender to do this
	CodeUnreachable Code = "unreachable" // no ACK in all attempts
	CodeExpired     Code = "expired"     // past its time to live
	CodeRemoved     Code = "removed"     // taken off the queue by an operator
)

// Result is how one run of a method ended.
type Result struct {
	Code Code
	// Text says why it failed, for people; empty when done.
	Text string
	// Exit is the exit status of a command and Signal the name of the signal that
	// ended it. Exit is -1 when there is none.
	Exit   int
	Signal string
	// Stderr is the beginning of what a command wrote there, StderrSize its whole
	// size in bytes.
	Stderr     []byte
	StderrSize int64
	// Started is when the run began, by the clock of the node that ran it.
	Started time.Time
	Took    time.Duration
	// Attempt counts the runs that failed or were interrupted and were made again, from 1.
	Attempt int
	// Run counts the runs of a message with a schedule, from 1; More says that another one
	// follows.
	Run  int
	More bool
}

// OK reports whether the run did what was asked.
func (r *Result) OK() bool { return r.Code == CodeDone }

// State is where a message is on its way.
type State string

// The states. The last four are ends, and a message has exactly one of them.
const (
	StateAccepted  State = "accepted"  // on disk at the sender
	StateDelivered State = "delivered" // on disk at the receiver, the reply is awaited
	StateReceived  State = "received"  // here from another node, on disk, not run yet
	StateDone      State = "done"
	StateFailed    State = "failed"
	StateExpired   State = "expired"
	StateRemoved   State = "removed"
)

// Final reports whether s is an end.
func (s State) Final() bool {
	return s == StateDone || s == StateFailed || s == StateExpired || s == StateRemoved
}

// EndOf returns the end that a code stands for.
func EndOf(c Code) State {
	switch c {
	case CodeDone:
		return StateDone
	case CodeExpired:
		return StateExpired
	case CodeRemoved:
		return StateRemoved
	}
	return StateFailed
}
