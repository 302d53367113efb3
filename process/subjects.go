package process

import (
	"strings"

	"steward/message"
)

// ackSubject, hereSubject and openSubject are the only subjects of delivery besides those of messages.
// All begin with a node's own name, so that a broker's permissions for a node need no other
// names than those of the nodes that it talks with.
func ackSubject(n message.Node, token string) string { return string(n) + ".ACK." + token }
func hereSubject(n message.Node) string              { return string(n) + ".HERE" }

// ProbeToken is in the place of the token when somebody asks the broker whether acks may be sent to a node. What
// comes there is empty, and is for nobody.
const ProbeToken = "DOCTOR"

// IsAckSubject reports whether acks for a node arrive on subject.
func IsAckSubject(n message.Node, subject string) bool {
	return strings.HasPrefix(subject, ackSubject(n, ""))
}

// mayAnswer reports whether what answers a frame from a node may go to subject: only to where
// acks arrive, since a node may publish more than who puts a subject into its frame. Of
// garbage nobody knows whose it is.
func mayAnswer(from message.Node, subject string) bool {
	if from == "" {
		i := strings.LastIndexByte(subject, '.')
		return i > 0 && strings.HasSuffix(subject[:i], ".ACK")
	}
	return IsAckSubject(from, subject)
}

// openSubject is that of questions to a node. No method has such a name.
func openSubject(n message.Node) string {
	return message.Subject{Node: n, Method: "OPEN", Kind: message.EventACK}.String()
}

// ackNode returns the node to which acks on a subject go, or nothing.
func ackNode(subject string) message.Node {
	i := strings.LastIndex(subject, ".ACK.")
	if i < 0 || message.Node(subject[:i]).Check() != nil {
		return ""
	}
	return message.Node(subject[:i])
}
