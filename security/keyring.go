package security

import (
	"errors"
	"fmt"
	"slices"

	"steward/message"
)

// ErrUnknownKey says that a signature was made with a key that speaks for nobody.
var ErrUnknownKey = errors.New("the key is not trusted")

// Source says which keys speak for which nodes. It is asked for each signature, must not
// block for long, and what it says holds until it is asked again. *TrustFile is one.
type Source interface {
	// Nodes returns the nodes for which a key speaks. The list is not changed by who gets it.
	Nodes(PublicKey) []message.Node
	// Known reports whether any key speaks for a node.
	Known(message.Node) bool
}

// RevokedError says that central has revoked the key with which a signature was made. It is an [ErrUnknownKey].
type RevokedError struct{ Node, By message.Node }

func (e *RevokedError) Error() string {
	return fmt.Sprintf("%s has revoked the key of %s", e.By, e.Node)
}

func (e *RevokedError) Unwrap() error { return ErrUnknownKey }

// revoker is a [Source] that knows which keys were revoked. *FleetFile is one.
type revoker interface {
	Revoked(PublicKey) (of, by message.Node, ok bool)
}

// Keyring checks signatures by all keys that this node trusts: its own, for itself, and those
// of its sources. A key is trusted when any source says so.
type Keyring struct {
	self    message.Node
	own     PublicKey
	sources []Source
}

// NewKeyring returns the keyring of a node.
func NewKeyring(self message.Node, own PublicKey, sources ...Source) *Keyring {
	return &Keyring{self: self, own: own, sources: slices.Clone(sources)}
}

// Verify checks that sig was made by k, over data, for a purpose, and returns the nodes for which k
// speaks; whoever calls it has to look whether that which was signed says to be from one of
// them. The error is [ErrUnknownKey], or a [*RevokedError], when there is none, which is found before any arithmetic, or
// [ErrBadSignature].
func (r *Keyring) Verify(purpose string, data []byte, k PublicKey, sig []byte) ([]message.Node, error) {
	nodes := r.nodes(k)
	if len(nodes) == 0 {
		return nil, r.unknown(k)
	}
	if err := k.Verify(purpose, data, sig); err != nil {
		return nil, err
	}
	return nodes, nil
}

func (r *Keyring) unknown(k PublicKey) error {
	for _, s := range r.sources {
		if s, ok := s.(revoker); ok {
			if of, by, ok := s.Revoked(k); ok {
				return &RevokedError{Node: of, By: by}
			}
		}
	}
	return ErrUnknownKey
}

func (r *Keyring) nodes(k PublicKey) []message.Node {
	var all []message.Node
	if k == r.own {
		all = append(all, r.self)
	}
	for _, s := range r.sources {
		switch nodes := s.Nodes(k); {
		case len(all) == 0:
			all = nodes
		case len(nodes) > 0:
			all = append(slices.Clip(all), nodes...)
		}
	}
	return all
}

// Known reports whether any key speaks for a node.
func (r *Keyring) Known(n message.Node) bool {
	return n == r.self || slices.ContainsFunc(r.sources, func(s Source) bool { return s.Known(n) })
}
