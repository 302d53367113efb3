package process

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
	"steward/security"
)

// Verifier says whose signature something bears. *security.Keyring is one.
type Verifier interface {
	// Verify returns the nodes for which the key speaks, or security.ErrUnknownKey or
	// security.ErrBadSignature.
	Verify(purpose string, text []byte, k security.PublicKey, sig []byte) ([]message.Node, error)
	// Known reports whether any key speaks for a node.
	Known(message.Node) bool
}

// SignaturesOptions configure signatures. All but Require are needed.
type SignaturesOptions struct {
	Self    message.Node
	Key     *security.Key
	Trusted Verifier
	// Require takes nothing without a signature by a key that is trusted for its sender. Else
	// what has none is taken, as is what was signed by a node of which no key is known: so a
	// fleet is changed over while it runs.
	Require bool
	// Report is told of what may have been recorded, when that shows only after a while; nil: nobody is.
	Report errorkernel.Reporter
}

// Signatures proves who sends: it signs the frames, acks, claims, questions and answers of this node, and checks
// those of others before anything else is done with them. A nil one does neither, and takes
// everything.
//
// A signature says who has written something, not when. So that what was recorded can not be
// sent again to a node that has forgotten it, as its store was lost or an older copy put back,
// each start of a node draws a number, and a signed frame names that of its receiver. A
// sender that does not know it learns it from the first ack, and sends again: one more round trip
// for each start of one of the two nodes. Frames without ACK have no place in a stream by which a second
// copy is known; they are counted instead.
type Signatures struct {
	opts   SignaturesOptions
	public security.PublicKey
	number uint64 // of this start, not 0

	refused [reasons]atomic.Int64
	doubted chan struct{} // one slot: there is a new one in doubts

	mu     sync.Mutex // guards what follows
	peers  map[message.Node]*signer
	counts map[kvstore.Stream]*counts
	doubts []doubt // the oldest in front
}

// signer is what is known about another node that signs. It is kept for as long as this node runs.
type signer struct {
	number uint64    // of its start, 0: not known
	fresh  time.Time // when it named the number of this node's start for the first time; zero: not yet
	by     started   // the start of it that did so last
	stale  []pending // what came of starts of it that have not done so yet
}

// counts are those of frames without ACK for one method, to a node and from it.
type counts struct {
	sent  uint64 // the last one to it
	told  uint64 // the number of its start for which it told from where on it takes them
	taken uint64 // the last one from it
}

// What a signature is for. A node signs nothing else with its key but what a broker asks it to
// at login, which has no purpose.
const (
	forFrame    = "steward frame 1"
	forAck      = "steward ack 1"
	forClaim    = "steward claim 1"
	forQuestion = "steward question 1"
	forAnswer   = "steward answer 1"
)

// reason says in a word why something was refused, for metrics.
type reason uint8

const (
	noSignature reason = iota
	unknownKey
	badSignature
	otherNode
	stale
	reasons
)

var reasonNames = [reasons]string{"unsigned", "unknown-key", "bad-signature", "other-node", "stale"}

// unproven says why something is not believed to be from whom it says.
type unproven struct {
	reason reason
	text   string
}

func (u *unproven) Error() string { return u.text }

// proof is what a signature says about what it was on.
type proof struct {
	signed      bool
	key         security.PublicKey
	nodes       []message.Node // for which the key speaks
	mine, yours uint64         // as in wire.Signature
}

// NewSignatures checks the options and draws the number of this start.
func NewSignatures(opts SignaturesOptions) (*Signatures, error) {
	if opts.Key == nil || opts.Trusted == nil {
		return nil, errors.New("signatures: an option is missing")
	}
	if err := opts.Self.Check(); err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return &Signatures{opts: opts, public: opts.Key.Public(), number: binary.BigEndian.Uint64(b[:]) | 1, doubted: make(chan struct{}, 1),
		peers: map[message.Node]*signer{}, counts: map[kvstore.Stream]*counts{}}, nil
}

// Refused returns how much was refused since the start, by reason.
func (s *Signatures) Refused() map[string]int64 {
	all := make(map[string]int64, reasons)
	for r, name := range reasonNames {
		all[name] = s.refused[r].Load()
	}
	return all
}

// sign signs data, which is used up.
func (s *Signatures) sign(purpose, subject, reply string, yours uint64, data []byte) []byte {
	if s == nil {
		return data
	}
	return wire.Sign(data, subject, reply, wire.Signature{Mine: s.number, Yours: yours, Key: s.public},
		func(text []byte) []byte { return s.opts.Key.Sign(purpose, text) })
}

// SignClaim signs a claim to this node's name.
func (s *Signatures) SignClaim(subject, reply string, claim []byte) []byte {
	return s.sign(forClaim, subject, reply, 0, claim)
}

// check looks at the signature of what came in. Whether it is that of the sender is found with
// from, once it is known who that is. The error is an *unproven, or about an envelope that
// cannot be read.
func (s *Signatures) check(purpose, subject, reply string, data []byte) (proof, error) {
	if s == nil {
		return proof{}, nil
	}
	sig, text, signed, err := wire.ReadSignature(data, subject, reply)
	switch {
	case err != nil:
		return proof{}, err
	case !signed && s.opts.Require:
		return proof{}, s.refuse(noSignature, "it is not signed, and %s takes nothing without a signature; set signatures=sign or require on the node that it is from", s.opts.Self)
	case !signed:
		return proof{}, nil
	}
	p := proof{signed: true, key: sig.Key, mine: sig.Mine, yours: sig.Yours}
	p.nodes, err = s.opts.Trusted.Verify(purpose, text, p.key, sig.Sum[:])
	if errors.Is(err, security.ErrUnknownKey) && !s.opts.Require {
		err = p.key.Verify(purpose, text, sig.Sum[:])
	}
	switch {
	case errors.Is(err, security.ErrUnknownKey):
		return proof{}, s.refuse(unknownKey, "it is signed with the key %s, which %s does not trust; if it is that of a node, say so there: steward keys trust NODE KEY", p.key, s.opts.Self)
	case err != nil:
		return proof{}, s.refuse(badSignature, "its signature does not fit: it was changed on the way, or is not from the owner of the key %s", p.key)
	}
	return p, nil
}

// from says whether a proof is one of node n; nil: it is, or none is required.
func (s *Signatures) from(p proof, n message.Node) error {
	if s == nil || slices.Contains(p.nodes, n) || !s.opts.Require && (!p.signed || !s.opts.Trusted.Known(n)) {
		return nil
	}
	return s.refuse(otherNode, "it says to be from %s, and is signed with the key %s, which %s does not trust for that node; if it is its key, say so there: steward keys trust %s %s",
		n, p.key, s.opts.Self, n, p.key)
}

// open checks what came in, and who it is from, as decode says; that is not called when no signature fits.
func (s *Signatures) open(purpose string, d Delivery, decode func() (from message.Node, err error)) (p proof, err error) {
	if !d.Local {
		if p, err = s.check(purpose, d.Subject, d.Reply, d.Data); err != nil {
			return p, err
		}
	}
	n, err := decode()
	if err == nil && !d.Local {
		err = s.from(p, n)
	}
	return p, err
}

// refusedOr is the class of what is not taken because of err.
func refusedOr(err error) errorkernel.Class {
	if errors.As(err, new(*unproven)) {
		return errorkernel.Unproven
	}
	return errorkernel.Refused
}

// known says whether any key of n is trusted, if one has to be.
func (s *Signatures) known(n message.Node) error {
	if s == nil || !s.opts.Require || s.opts.Trusted.Known(n) {
		return nil
	}
	return fmt.Errorf("no key of %s is trusted; steward keys trust %s KEY", n, n)
}

// CheckClaim says whether a claim to this node's name is from a node that may have it.
func (s *Signatures) CheckClaim(subject, reply string, claim []byte) error {
	p, err := s.check(forClaim, subject, reply, claim)
	if err != nil {
		return err
	}
	if s == nil {
		return nil
	}
	return s.from(p, s.opts.Self)
}

func (s *Signatures) refuse(r reason, format string, args ...any) error {
	s.refused[r].Add(1)
	return &unproven{r, fmt.Sprintf(format, args...)}
}

// peer is called with mu held.
func (s *Signatures) peer(n message.Node) *signer {
	p := s.peers[n]
	if p == nil {
		p = new(signer)
		s.peers[n] = p
	}
	return p
}

// numberOf returns the number of the start of n, 0 when it is not known.
func (s *Signatures) numberOf(n message.Node) uint64 {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer(n).number
}

// learn takes note of the number of a start of n that came in answer to a frame which named the number
// old, and returns the one to be used now.
func (s *Signatures) learn(n message.Node, old, number uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	peer := s.peer(n)
	if peer.number == old {
		peer.number = number
	}
	return peer.number
}

// count returns the count of the next frame without ACK, and the number of the start of its receiver; 0
// and 0 as long as that has not told both.
func (s *Signatures) count(id kvstore.Stream) (count, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, peer := s.countsOf(id), s.peer(id.Peer)
	if peer.number == 0 || c.told != peer.number {
		return 0, 0
	}
	c.sent++
	return c.sent, peer.number
}

// recount is count once the receiver has told both.
func (s *Signatures) recount(id kvstore.Stream, number, next uint64) (count, _ uint64) {
	s.mu.Lock()
	c, peer := s.countsOf(id), s.peer(id.Peer)
	if peer.number, c.told = number, number; next > 0 {
		c.sent = max(c.sent, next-1)
	}
	s.mu.Unlock()
	return s.count(id)
}

// countsOf is called with mu held.
func (s *Signatures) countsOf(id kvstore.Stream) *counts {
	c := s.counts[id]
	if c == nil {
		c = new(counts)
		s.counts[id] = c
	}
	return c
}
