package cli

import (
	"context"
	"fmt"
	"slices"

	"steward/client"
	"steward/message"
)

// mostLookedAt bounds the messages of which send looks for whom they are.
const mostLookedAt = 1000

// acquaintance is whom the node that runs here knows, when it takes nothing from others: not even an ACK.
type acquaintance struct {
	self  message.Node
	peers map[message.Node]client.Peer
}

// acquaintance asks for it. It is nil when the node takes what has no signature, or does not say: a message is accepted
// all the same.
func (c *call) acquaintance(ctx context.Context, local *client.Client) *acquaintance {
	info, err := local.Node(ctx)
	if err != nil || info.Signatures != "require" {
		return nil
	}
	a := &acquaintance{info.Node, map[message.Node]client.Peer{}}
	for p, err := range local.Nodes(ctx) {
		if err != nil {
			return nil
		}
		a.peers[p.Node] = p
	}
	return a
}

// missing says what is missing for a node to be heard here, nothing if that is nothing.
func (a *acquaintance) missing(n message.Node) string {
	if a == nil || n == a.self || n == message.Local {
		return ""
	}
	switch a.peers[n].Key {
	case client.KeyTrusted:
		return ""
	case client.KeyRevoked:
		return fmt.Sprintf("the keys of %s are revoked here", n)
	case client.KeyToken:
		return fmt.Sprintf("nobody has used the token for %s yet", n)
	}
	known := []string{string(a.self)}
	for _, p := range a.peers {
		if p.Key == client.KeyTrusted {
			known = append(known, string(p.Node))
		}
	}
	slices.Sort(known)
	return fmt.Sprintf("no node %s is known here: none of its keys is trusted%s", n, nearest(string(n), known))
}

// tellStrangers tells of nodes that are not heard here, and, when nobody waits for the messages, what becomes of those.
func (c *call) tellStrangers(command string, a *acquaintance, nodes []message.Node, waits bool) {
	told := false
	for _, n := range nodes {
		if text := a.missing(n); text != "" {
			fmt.Fprintf(c.err, "steward: %s: %s\n", command, text)
			told = true
		}
	}
	if told && !waits {
		fmt.Fprintln(c.err, "hint: what is for it waits; steward queue rm ID takes it back")
	}
}

// waitingFor returns those nodes that are not heard here for which some of these messages wait.
func (a *acquaintance) waitingFor(ctx context.Context, local *client.Client, ids []message.ID) (nodes []message.Node) {
	if a == nil {
		return nil
	}
	waits := func(p client.Peer) bool { return p.Waiting > 0 && a.missing(p.Node) != "" }
	left := 0
	for _, p := range a.peers {
		if waits(p) {
			left++
		}
	}
	for _, id := range ids[:min(len(ids), mostLookedAt)] {
		if left == len(nodes) {
			break
		}
		st, err := local.Status(ctx, id)
		if err == nil && st.Sent != nil && waits(a.peers[st.Sent.Peer]) && !slices.Contains(nodes, st.Sent.Peer) {
			nodes = append(nodes, st.Sent.Peer)
		}
	}
	return nodes
}
