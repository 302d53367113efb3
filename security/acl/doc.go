// Package acl decides who may do what on a node: rules about the sender of a message, its method and
// its arguments.
//
// The rules are a text ([Parse]) in a file that is followed while the node runs ([File]). Without a
// file there are none, and nothing is denied here; with one, what no rule allows is denied, and a
// rule that denies wins over all that allow. Whose messages are asked about at all is for the
// caller: a node's own are not. All of it is safe for concurrent use.
package acl
