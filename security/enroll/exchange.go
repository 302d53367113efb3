package enroll

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"steward/message"
	"steward/security"
)

// What the signatures are for.
const (
	byNode    = "steward enroll node 1"
	byToken   = "steward enroll token 1"
	byCentral = "steward enroll answer 1"
)

// maxText bounds a request in bytes.
const maxText = 8 << 10

// Request is what a new node says.
type Request struct {
	Node    message.Node `json:"node"`
	Central message.Node `json:"central"`
	Key     string       `json:"key"`   // of the node
	Token   string       `json:"token"` // the public key of the token
	Nonce   []byte       `json:"nonce"`
}

// Answer is what central says to it.
type Answer struct {
	Request []byte `json:"request"` // the nonce of the request
	Key     string `json:"key"`     // of the node
	// Refused says for people why not; empty: the node is enrolled.
	Refused string `json:"refused,omitempty"`
	// Revoked: it was for the key, which is revoked, so that the node needs another one.
	Revoked bool `json:"revoked,omitempty"`
	// Signatures is the setting for the node.
	Signatures string `json:"signatures,omitempty"`
	// Rules are those of who may do what on a new node; empty: central has none for it.
	Rules string `json:"rules,omitempty"`
	// Trust is what all nodes are told about keys, signed by central; empty for nothing.
	Trust string `json:"trust,omitempty"`
}

// envelope is a text with its signatures.
type envelope struct {
	Text []byte `json:"text"`
	Sum  []byte `json:"signature"`
	More []byte `json:"tokenSignature,omitempty"`
}

// NewRequest returns the request of a node that has this key for a token, as bytes to send.
func NewRequest(t *Token, key *security.Key) (Request, []byte, error) {
	r := Request{Node: t.Node, Central: t.Central, Key: key.Public().String(), Token: t.Key.Public().String(), Nonce: make([]byte, 16)}
	_, _ = rand.Read(r.Nonce) // never fails
	text, err := json.Marshal(r)
	if err != nil {
		return r, nil, err
	}
	data, err := json.Marshal(envelope{text, key.Sign(byNode, text), t.Key.Sign(byToken, text)})
	return r, data, err
}

// ReadRequest reads a request for central and a token: it is from who has both that token and the key
// that is returned.
func ReadRequest(data []byte, central message.Node, token security.PublicKey) (r Request, key security.PublicKey, err error) {
	if len(data) > maxText {
		return r, key, fmt.Errorf("%w request of %d bytes", message.ErrInvalid, len(data))
	}
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return r, key, fmt.Errorf("%w request: %w", message.ErrInvalid, err)
	}
	if err := token.Verify(byToken, e.Text, e.More); err != nil {
		return r, key, fmt.Errorf("the key of the token: %w", err)
	}
	if err := json.Unmarshal(e.Text, &r); err != nil {
		return r, key, fmt.Errorf("%w request: %w", message.ErrInvalid, err)
	}
	if key, err = security.ParsePublicKey(r.Key); err != nil {
		return r, key, err
	}
	if err := key.Verify(byNode, e.Text, e.Sum); err != nil {
		return r, key, fmt.Errorf("the key of the node: %w", err)
	}
	if r.Central != central || r.Token != token.String() || len(r.Nonce) < 16 || len(r.Nonce) > 64 {
		return r, key, fmt.Errorf("%w request: it is for another central node or token", message.ErrInvalid)
	}
	return r, key, r.Node.Check()
}

// Write returns the answer to r as bytes to send.
func (a Answer) Write(r Request, central *security.Key) ([]byte, error) {
	a.Request, a.Key = r.Nonce, r.Key
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{Text: text, Sum: central.Sign(byCentral, text)})
}

// ErrNotMine says that an answer is to another request.
var ErrNotMine = errors.New("it answers another request")

// ReadAnswer reads the answer to r, which is from who has the key central.
func ReadAnswer(data []byte, r Request, central security.PublicKey) (a Answer, err error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return a, fmt.Errorf("%w answer: %w", message.ErrInvalid, err)
	}
	if err := central.Verify(byCentral, e.Text, e.Sum); err != nil {
		return a, fmt.Errorf("answer: %w", err)
	}
	if err := json.Unmarshal(e.Text, &a); err != nil {
		return a, fmt.Errorf("%w answer: %w", message.ErrInvalid, err)
	}
	if !bytes.Equal(a.Request, r.Nonce) || a.Key != r.Key {
		return a, ErrNotMine
	}
	if a.Refused == "" && !slices.Contains([]string{"off", "sign", "require"}, a.Signatures) {
		return a, fmt.Errorf("%w answer: signatures", message.ErrInvalid)
	}
	return a, nil
}
