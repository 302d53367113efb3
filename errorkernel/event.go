package errorkernel

import (
	"time"

	"steward/message"
)

// Class says what failed, for the policy.
type Class uint8

// The classes.
const (
	ProcessFailed Class = iota + 1 // a supervised process returned an error
	ProcessPanic                   // a supervised process panicked
	ProcessStuck                   // a supervised process did not stop in its grace period
	GivenUp                        // a message ended without having been delivered
	MethodFailed                   // a method ended with an error
	Refused                        // something from outside was refused
	StoreFailed                    // the disk did not take what it was given
	LinkFailed                     // the broker refused something
	NameTaken                      // another node runs under the name of this one
	RulesFailed                    // the rules of who may do what cannot be read
	Unproven                       // something is not proven to be from the node that it says to be from
	WroteStderr                    // a method ended well, and a command of it wrote on stderr
)

// Event is one failure, or what may be one, as it goes up to the kernel.
type Event struct {
	Class   Class
	Process string // the process it happened in
	Err     error
	Stack   string // of a panic

	// What the failure is about, as far as there is such a thing.
	Subject string
	ID      message.ID
	From    message.Node
	Method  message.Method // a failure about REQErrorLog itself never leaves the node

	// Failures counts the failures of this child in its window, this one included. Set by
	// supervisors.
	Failures int

	// Stored: central is told by a [Teller].
	Stored bool

	At time.Time // zero: now
}

// Action is what is to be done about an event.
type Action uint8

// The actions.
const (
	Continue Action = iota + 1 // nothing; the process goes on
	Retry                      // do the same again
	Restart                    // start the process anew
	Stop                       // leave the process stopped
	Escalate                   // fail the supervisor too
)

// Reporter takes events. Report never blocks and never fails.
type Reporter interface{ Report(Event) Action }
