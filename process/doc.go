// Package process delivers messages: it owns the supervised processes between the
// door of a node and the methods that its messages ask for.
//
// A [Router] takes accepted messages and keeps one [Publisher] per (node, method)
// stream; a publisher sends its stream over a [Transport] in a sliding window until
// every message is acknowledged or given up; a [Subscriber] per method takes frames
// into the inbox, acknowledges what is on disk, and its lanes run the method and put
// the reply back on the ring buffer. Requests to which no reply will come, since their
// receiver lost its disk, are found by asking ([Router.Inquiry]).
// [Signatures], where there are some, prove who has sent what comes in.
//
// The package knows neither NATS nor the file behind the store: a transport and the
// methods are handed in. Every process is a [Service] under a [Supervisor].
package process
