package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"steward/message"
)

// What errors of this package are, for errors.Is.
var (
	// ErrNoNode: nobody answers at the sockets, or the node has ended before its answer did.
	ErrNoNode = errors.New("no node answers")
	// ErrNotFound: the node knows no such message.
	ErrNotFound = errors.New("not found")

	// How a message ended. One of which the method ran and failed is none of them.
	ErrDenied      = errors.New("denied")      // the receiver does not allow the sender to do this
	ErrExpired     = errors.New("expired")     // it was past its time to live before it was run
	ErrUnreachable = errors.New("unreachable") // nobody acknowledged it in all its attempts
	ErrTimeout     = errors.New("timeout")     // its method was cut off at its timeout
	ErrInterrupted = errors.New("interrupted") // its receiver ended while it ran
	ErrRemoved     = errors.New("removed")     // somebody took it off the queue
)

// Error says why the node could not be asked, or had no answer.
type Error struct {
	Text string `json:"error"`
	Hint string `json:"hint,omitempty"` // what an operator can do about it
	// Status is the status of HTTP with which the node has answered; 0 when there was no answer.
	Status int   `json:"-"`
	Cause  error `json:"-"` // of Status 0
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether this is [ErrNotFound]; for others its cause counts.
func (e *Error) Is(target error) bool {
	return target == ErrNotFound && e.Status == http.StatusNotFound
}

// RefusedError says why a node has not taken over messages. Of each array it takes all or none.
type RefusedError struct {
	Reasons []string // one for each array that was refused
}

func (e *RefusedError) Error() string { return strings.Join(e.Reasons, "\n") }

// EndError is the end of a message that did not end well.
type EndError struct {
	ID     message.ID
	Node   message.Node // the receiver
	Method message.Method
	Code   message.Code // how it ended, in one word
	Text   string       // why, for people
	Exit   int          // exit status of a command that failed; 0 for any other
	Stderr string       // the beginning of what a command wrote there
}

func (e *EndError) Error() string {
	return fmt.Sprintf("%s on %s: %s", e.Method, e.Node, strings.TrimSuffix(string(e.Code)+": "+e.Text, ": "))
}

// Is reports whether target is the error of e's code.
func (e *EndError) Is(target error) bool {
	of := map[message.Code]error{
		message.CodeDenied: ErrDenied, message.CodeExpired: ErrExpired, message.CodeUnreachable: ErrUnreachable,
		message.CodeTimeout: ErrTimeout, message.CodeInterrupted: ErrInterrupted, message.CodeRemoved: ErrRemoved,
	}[e.Code]
	return of != nil && target == of
}

// Life is what is known of a message at the node that has to do with its end: the one that accepted it, if
// that was asked.
func (s *Status) Life() *Life {
	if s.Sent != nil {
		return s.Sent
	}
	return s.Received
}

// Err returns nil for a message that is done, or has not ended, and an [*EndError] for any other.
func (s *Status) Err() error {
	l := s.Life()
	if !s.Ended || l == nil || l.State == message.StateDone {
		return nil
	}
	e := &EndError{ID: s.ID, Node: l.Peer, Method: l.Method, Code: l.Code, Text: l.Text, Exit: l.Exit, Stderr: l.Stderr}
	if s.Sent == nil {
		e.Node = s.Node
	}
	return e
}

// invalid is an error of the caller that says nothing of it in its text.
type invalid string

func (e invalid) Error() string        { return string(e) }
func (e invalid) Is(target error) bool { return target == message.ErrInvalid }
