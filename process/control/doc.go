// Package control answers what an operator's commands, and other clients, ask a running node: where is a
// message, what waits for whom, what was given up, which processes run, which nodes are there.
//
// The store of a node is open in that node alone, so every command asks it: by HTTP on a unix socket
// beside the one for messages, with JSON in the answers. Lists are streams of lines, so that a long
// queue is in nobody's memory. Paths begin with the version of this protocol, and within it nothing is
// renamed or taken away. Who may open the socket may do all of it.
//
// [Server] is a Service of the node's tree, and may be used by many goroutines at once. Package client is the
// other side, and has the types of the answers.
package control
