// Package logattr spells the attributes of log lines, so that one fact has one key in
// every package. It owns the keys; levels and texts are the business of who logs.
//
// All functions are pure and may be called by many goroutines at once. None of them takes
// a payload: a line names a message by its id.
package logattr

import (
	"log/slog"
	"time"

	"steward/message"
)

// The keys.
const (
	KeyNode    = "node"
	KeyProcess = "process"
	KeySubject = "subject"
	KeyMethod  = "method"
	KeyMsgID   = "msg_id"
	KeyFrom    = "from"
	KeyTo      = "to"
	KeyAttempt = "attempt"
	KeyErr     = "err"
	KeyTook    = "took"
)

// Node is the node that writes the line.
func Node(n message.Node) slog.Attr { return slog.String(KeyNode, string(n)) }

// Process is the name of a supervised process.
func Process(name string) slog.Attr { return slog.String(KeyProcess, name) }

// Subject is where a message travels.
func Subject(s string) slog.Attr { return slog.String(KeySubject, s) }

// Method is what a message asks for.
func Method(m message.Method) slog.Attr { return slog.String(KeyMethod, string(m)) }

// Msg is the id of m.
func Msg(m *message.Message) slog.Attr { return ID(m.ID) }

// ID is the id of a message.
func ID(id message.ID) slog.Attr { return slog.String(KeyMsgID, id.String()) }

// From is the node a message comes from.
func From(n message.Node) slog.Attr { return slog.String(KeyFrom, string(n)) }

// To is the node a message goes to.
func To(n message.Node) slog.Attr { return slog.String(KeyTo, string(n)) }

// Attempt counts tries, from 1.
func Attempt(n int) slog.Attr { return slog.Int(KeyAttempt, n) }

// Err is why something did not work; without an error it adds nothing to the line.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String(KeyErr, err.Error())
}

// Took is how long something ran.
func Took(d time.Duration) slog.Attr { return slog.Duration(KeyTook, d) }
