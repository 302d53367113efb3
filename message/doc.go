// Package message is the vocabulary of Steward: nodes, methods, subjects, ids,
// messages and their results.
//
// It owns what these words mean and which values are valid, and nothing else: it
// does no I/O, starts no goroutine and imports the standard library only. How a
// message looks as text or as bytes is the business of message/wire. All values
// are plain data; they may be read by many goroutines, and a [Message] is not
// changed any more once it has been accepted.
package message
