// Package security knows which node a message is from: the key of this node, the keys that it
// trusts for others, and signatures made and checked with them.
//
// A node has one key, an Ed25519 one in the format of nkeys, so that it can log in to a broker
// too. What a node trusts stands in a text file that people may edit, one key of one node to a
// line. [Keyring] asks that file, and whatever other sources there are, at each check, and
// remembers nothing in between: a key that was taken out of it counts from then on for
// nothing.
//
// Each signature is for one purpose, which is a part of what is signed (Ed25519ctx, RFC 8032):
// a broker chooses what a node signs to log in, and must not get a frame signed that way.
//
// The package decides nothing about what is not signed. It knows no logger, no error kernel
// and no network; it returns errors. Everything is safe for concurrent use.
package security
