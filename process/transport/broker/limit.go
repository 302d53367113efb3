//go:build !nobroker

package broker

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"steward/message"
)

// limited is what the last look at the connections has found. It belongs to who calls Limit.
type limited struct {
	connections int // there were then
	at          time.Time
}

// lookAnyway is how often is looked at connections though there are as many as before.
const lookAnyway = 10 * time.Second

// Limit cuts off connections that are too many, or have been there for too long. It is to be called now and then, by one
// goroutine: the server itself knows only how many there may be in all.
func (s *Server) Limit(l Limits) error {
	if s.opts.Access == nil {
		return nil // nobody can be told apart
	}
	s.users.Lock()
	nodes, tokens := make(map[string][]message.Node), make(map[string]bool) // by key
	for _, u := range s.current {
		for _, k := range u.Keys {
			if u.Newcomer {
				tokens[k] = true
			} else {
				nodes[k] = append(nodes[k], u.Node)
			}
		}
	}
	s.users.Unlock()
	now := time.Now()
	count := s.server.NumClients()
	if len(tokens) == 0 && (count <= min(l.Node, l.Address) || count == s.limited.connections && now.Sub(s.limited.at) < lookAnyway) {
		return nil // it is a look at each of them
	}
	all, err := s.server.Connz(&server.ConnzOptions{Username: true, Sort: server.ByCid, State: server.ConnOpen, Limit: math.MaxInt32})
	if err != nil {
		return fmt.Errorf("embedded broker: look at its connections: %w", err)
	}
	s.limited = limited{count, now}
	byKey, strangers, byToken := make(map[string][]uint64), make(map[string][]uint64), make(map[string]int) // the oldest in front
	for _, c := range all.Conns {
		switch key := c.AuthorizedUser; {
		case tokens[key]:
			// A token is for one question: those that came first are enough for it.
			if byToken[key] >= l.Token || now.Sub(c.Start) >= l.TokenFor {
				_ = s.server.DisconnectClientByID(c.Cid) // it may have gone by itself
				continue
			}
			byToken[key]++
		case nodes[key] != nil:
			if now.Sub(c.Start) >= l.Young {
				byKey[key] = append(byKey[key], c.Cid)
			}
		case key == "" && c.IP != "":
			strangers[c.IP] = append(strangers[c.IP], c.Cid)
		}
	}
	for key, ids := range byKey {
		if s.cutOff(ids, l.Node*len(nodes[key])) {
			s.refuse(RefusedDeed, fmt.Sprintf("more than %d connections with the key of %s, %s: the oldest are cut off", l.Node*len(nodes[key]), slices.Min(nodes[key]), key))
		}
	}
	for ip, ids := range strangers {
		if s.cutOff(ids, l.Address) {
			s.refuse(RefusedLogin, fmt.Sprintf("more than %d connections from %s that have not logged in: the oldest are cut off", l.Address, ip))
		}
	}
	return nil
}

// cutOff ends all but the newest connections, and reports whether there were more.
func (s *Server) cutOff(ids []uint64, most int) bool {
	for _, id := range ids[:max(0, len(ids)-most)] {
		_ = s.server.DisconnectClientByID(id) // it may have gone by itself
	}
	return len(ids) > most
}

// refuse tells of what was cut off.
func (s *Server) refuse(what Refusal, line string) {
	if s.opts.Refused != nil {
		s.opts.Refused(line, what)
	}
}
