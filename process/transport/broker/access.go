package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"steward/message"
)

// User is a node that may log in, with any of its keys.
type User struct {
	Node message.Node
	Keys []string // public nkeys of users; they begin with U
	// Newcomer says that each of the keys is that of a token: it may ask central to enrol the node, and
	// do nothing in the name of any.
	Newcomer bool
}

// Reach says what a node other than central may send, and to whom.
type Reach string

// The reaches, from the least to the most.
const (
	ReachEvents   Reach = "events"   // events to central
	ReachCommands Reach = "commands" // all kinds of messages to central
	ReachAll      Reach = "all"      // all kinds of messages to every node
)

// Access says who may log in, and so what for: a node's permissions follow from its name.
type Access struct {
	// Central is the node that sends to all others.
	Central message.Node
	// Reach is that of the others; empty means ReachEvents.
	Reach Reach
	Users []User
}

// Grant is what who has a key may do, as subjects of NATS.
type Grant struct {
	Key                string
	Nodes              []message.Node // sorted; mostly one, and none for a token
	Publish, Subscribe []string
}

// Grants returns what each key may do, sorted by node: all that the subjects of
// doc/wire-format.md need, and no more. It is the one place that knows. Who has the key of
// several nodes may do what each of them may.
//
// A node publishes in its own name only what concerns that name (NAME, HERE), and listens
// only to what is for it. It cannot hear what is for others, answer for them or ask who
// they are. See doc/decisions/0012-permissions-follow-from-names.md.
func (a Access) Grants() ([]Grant, error) {
	if err := checkName(a.Central); err != nil {
		return nil, fmt.Errorf("central node: %w", err)
	}
	reach := cmp.Or(a.Reach, ReachEvents)
	if !slices.Contains([]Reach{ReachEvents, ReachCommands, ReachAll}, reach) {
		return nil, fmt.Errorf("reach %s is none of %s, %s, %s", message.Quote(string(reach)), ReachEvents, ReachCommands, ReachAll)
	}
	nodes := make(map[string][]message.Node) // by key
	var newcomers []Grant
	depth := parts(a.Central)
	for _, u := range a.Users {
		if err := checkName(u.Node); err != nil {
			return nil, err
		}
		depth = max(depth, parts(u.Node))
		for _, k := range u.Keys {
			if !nkeys.IsValidPublicUserKey(k) {
				return nil, fmt.Errorf("node %s: %s is not the public key of a user, which begins with U", u.Node, message.Quote(k))
			}
			if u.Newcomer {
				newcomers = append(newcomers, Grant{Key: k, Publish: []string{string(a.Central) + ".ENROLL." + k}, Subscribe: []string{string(a.Central) + ".ENROLLED." + k}})
				continue
			}
			if !slices.Contains(nodes[k], u.Node) {
				nodes[k] = append(nodes[k], u.Node)
			}
		}
	}
	var grants []Grant
	for k, names := range nodes {
		slices.Sort(names)
		g := Grant{Key: k, Nodes: names}
		for _, n := range names {
			a.grant(&g, n, reach, depth)
		}
		grants = append(grants, g)
	}
	for _, g := range newcomers {
		if nodes[g.Key] != nil {
			return nil, fmt.Errorf("the key %s is that of a node and of a token", g.Key)
		}
	}
	grants = append(grants, newcomers...)
	slices.SortFunc(grants, func(x, y Grant) int {
		return cmp.Or(slices.Compare(x.Nodes, y.Nodes), cmp.Compare(x.Key, y.Key))
	})
	return grants, nil
}

var (
	events   = []message.Kind{message.EventACK, message.EventNACK}
	allKinds = []message.Kind{message.CommandACK, message.CommandNACK, message.EventACK, message.EventNACK}
)

// grant adds what a node may do. depth is the number of parts of the longest name.
func (a Access) grant(g *Grant, n message.Node, reach Reach, depth int) {
	publish := func(subjects ...string) { g.Publish = add(g.Publish, subjects) }
	subscribe := func(subjects ...string) { g.Subscribe = add(g.Subscribe, subjects) }
	// send allows to send to a node, and to answer what it has sent.
	send := func(to string, kinds []message.Kind) {
		publish(methods(to, kinds)...)
		publish(to + ".ACK.*")
		subscribe(to + ".HERE")
	}
	self := string(n)
	publish(self+".HERE", self+".NAME", self+".NAME.*")
	subscribe(methods(self, allKinds)...)
	subscribe(self+".ACK.*", self+".NAME", self+".NAME.*")
	if n == a.Central {
		subscribe(self + ".ENROLL.*")
		publish(self + ".ENROLLED.*")
	}
	switch {
	case n == a.Central, reach == ReachAll:
		// To all nodes, those to come among them: by the number of parts in their names,
		// since a list of each for each would have to be told anew with every node.
		for n := range depth {
			send(strings.Repeat("*.", n)+"*", allKinds)
		}
	case reach == ReachCommands:
		send(string(a.Central), allKinds)
	default:
		send(string(a.Central), events)
	}
}

// add appends what is not in the list yet.
func add(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// methods is the subjects of all methods of a node.
func methods(node string, kinds []message.Kind) []string {
	var list []string
	for _, k := range kinds {
		list = append(list, node+".*."+k.String())
	}
	return list
}

func parts(n message.Node) int { return strings.Count(string(n), ".") + 1 }

// checkName refuses besides what cannot be a name what would share subjects with the node that is named by the parts before
// one of these words. That goes for each part but the first: where ship1.ACK.* is allowed, a broker allows to listen to ship1.ACK.>, too.
func checkName(n message.Node) error {
	if err := n.Check(); err != nil {
		return err
	}
	for _, word := range strings.Split(string(n), ".")[1:] {
		if slices.Contains([]string{"ACK", "NAME", "ENROLL", "ENROLLED"}, word) {
			return fmt.Errorf("node %s: a name cannot have .%s in it: the node before that would hear what is for this one", n, word)
		}
	}
	return nil
}

// Login proves to the server that a client is the node of its process.
type Login interface {
	PublicKey() (string, error)
	Sign(nonce []byte) ([]byte, error)
}

// errNoAccess is returned where users cannot be changed.
var errNoAccess = errors.New("embedded broker: it asks for no login")
