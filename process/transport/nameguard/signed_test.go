package nameguard

import (
	"slices"
	"testing"
	"time"

	"steward/message"
	"steward/process"
	"steward/security"
)

// trusted are keys of nodes, as a list that all share.
type trusted map[security.PublicKey]message.Node

func (t trusted) Nodes(k security.PublicKey) []message.Node {
	if n, ok := t[k]; ok {
		return []message.Node{n}
	}
	return nil
}

func (t trusted) Known(n message.Node) bool {
	for _, known := range t {
		if known == n {
			return true
		}
	}
	return false
}

func newKey(t *testing.T) *security.Key {
	t.Helper()
	k, err := security.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// proof is what a node named ship1 with this key proves its claims with.
func proof(t *testing.T, k *security.Key, list trusted) *process.Signatures {
	t.Helper()
	s, err := process.NewSignatures(process.SignaturesOptions{Self: "ship1", Key: k, Require: true,
		Trusted: security.NewKeyring("ship1", k.Public(), list)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOnlyWhoHasAKeyOfTheNodeKeepsItsNameFromIt(t *testing.T) {
	key, next, central := newKey(t), newKey(t), newKey(t)
	list := trusted{next.Public(): "ship1", central.Public(): "central"}
	for _, tt := range []struct {
		name   string
		claims func() []Claims // of the one that has the name
		keeps  bool
	}{
		{"the same key", func() []Claims { return []Claims{proof(t, key, nil)} }, true},
		{"another key of the node", func() []Claims { return []Claims{proof(t, next, trusted{key.Public(): "ship1"})} }, true},
		{"no signature", func() []Claims { return nil }, false},
		{"a key of nobody", func() []Claims { return []Claims{proof(t, newKey(t), trusted{key.Public(): "ship1"})} }, false},
		{"the key of another node", func() []Claims { return []Claims{proof(t, central, trusted{key.Public(): "ship1"})} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			atSea(t, func(t *testing.T, s *sea) {
				first := s.sail("pirate", tt.claims()...)
				s.only(first)
				pass(time.Minute)
				second := s.sail("bridge", proof(t, key, list))
				if tt.keeps {
					s.only(first)
					s.says(second, yields)
					return
				}
				pass(answerWait)
				if up, _ := second.State(); !up {
					t.Error("it stands aside")
				}
				all := second.reports.all()
				if len(all) == 0 || slices.ContainsFunc(all, func(text string) bool { return !isUnproven(text) }) || second.Conflict() {
					t.Errorf("conflict %v, reported: %q", second.Conflict(), all)
				}
				pass(2 * time.Hour)
				if up, _ := second.State(); !up {
					t.Error("it stands aside later")
				}
			})
		})
	}
}

func isUnproven(text string) bool {
	const begins = "class unproven: a claim to the name of this node, ship1, by process id 4711 on host pirate, is not believed: "
	return len(text) > len(begins) && text[:len(begins)] == begins
}

// An answer that was recorded belongs to another question, which has a subject of its own.
func TestRecordedAnswerKeepsNobodyFromItsName(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		key := newKey(t)
		var recorded [][]byte
		recorder, err := s.central.Subscribe("ship1.NAME.*", func(d process.Delivery) { recorded = append(recorded, d.Data) })
		if err != nil {
			t.Fatal(err)
		}
		first := s.sail("bridge", proof(t, key, nil))
		s.only(first)
		clone := s.sail("clone", proof(t, key, nil))
		s.only(first)
		s.sink(clone)
		s.sink(first)
		delete(s.ships, "clone")
		delete(s.ships, "bridge")
		recorder.Close()
		if len(recorded) == 0 {
			t.Fatal("no answer was recorded")
		}
		if _, err := s.central.Subscribe("ship1.NAME", func(d process.Delivery) {
			for _, b := range recorded {
				if err := s.central.Publish(d.Reply, "", b); err != nil {
					t.Error(err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		again := s.sail("bridge", proof(t, key, nil))
		pass(answerWait)
		s.only(again)
		pass(time.Hour)
		s.only(again)
		if again.Conflict() {
			t.Errorf("a conflict: %q", again.reports.all())
		}
	})
}
