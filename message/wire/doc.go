// Package wire turns messages into text and bytes and back: JSON and YAML as people
// write them, and the binary frames and acks that travel between nodes.
//
// It owns the formats, their versions and their limits. What comes from outside is
// checked here as far as a single value can be checked alone; who may send what is
// decided elsewhere. A [Codec] is safe for concurrent use; everything else is plain data.
package wire
