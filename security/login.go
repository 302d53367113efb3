package security

import (
	"crypto"
	"crypto/ed25519"
	"fmt"

	"steward/message"
)

// Login proves to a broker that a client has a key. What a broker lets it sign has no purpose, and so
// serves nobody for anything else.
type Login struct{ key *Key }

// Login returns the key as one of a user of a broker.
func (k *Key) Login() Login { return Login{k} }

// PublicKey returns the text of the key.
func (l Login) PublicKey() (string, error) { return l.key.Public().String(), nil }

// Sign signs what a broker has drawn.
func (l Login) Sign(nonce []byte) ([]byte, error) {
	return l.key.private.Sign(nil, nonce, crypto.Hash(0))
}

// Seed returns what the key is made of, and [KeyOfSeed] makes it of again: a secret.
func (k *Key) Seed() []byte { return k.private.Seed() }

// KeyOfSeed returns the key of a seed, which has 32 bytes.
func KeyOfSeed(seed []byte) (*Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w seed of %d bytes", message.ErrInvalid, len(seed))
	}
	return &Key{ed25519.NewKeyFromSeed(seed)}, nil
}
