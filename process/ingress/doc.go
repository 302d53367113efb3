// Package ingress is the door of a node: it reads messages as text, has them checked,
// hands them in, and answers.
//
// It owns connections and the socket file, and what lies in the folders that it reads. What a
// valid message is belongs to message/wire, keeping messages to the store: both are handed in
// as functions. A [Socket] is a process.Service and serves once: it opens when Serve is
// called, and when Serve has returned the socket file, all connections and all goroutines are
// gone. A [Folder], an [InFile] and a [Startup] have no goroutines of their own; what they
// must not forget is on disk, so that they can be served again after any end.
package ingress
