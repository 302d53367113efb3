package security

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/ssh"

	"steward/internal/atomicfile"
	"steward/message"
)

// SignatureSize is the size of a signature in bytes.
const SignatureSize = ed25519.SignatureSize

// ErrBadSignature says that a signature was not made by its key, or not over this data, or
// for another purpose.
var ErrBadSignature = errors.New("the signature does not fit")

// PublicKey is the half of a node's key that others know it by.
type PublicKey [ed25519.PublicKeySize]byte

// ParsePublicKey reads the text of a key, which begins with U. The error wraps [message.ErrInvalid].
func ParsePublicKey(s string) (PublicKey, error) {
	var k PublicKey
	raw, err := nkeys.Decode(nkeys.PrefixByteUser, []byte(s))
	if err == nil && len(raw) == len(k) {
		if copy(k[:], raw); k.String() == s { // there is one text for a key
			return k, nil
		}
	}
	if _, _, err := nkeys.DecodeSeed([]byte(s)); err == nil {
		return k, fmt.Errorf("%w key: it is a private one, which nobody else should see; want the public one, which begins with U", message.ErrInvalid)
	}
	if len(s) == 56 && s[0] == 'U' {
		return PublicKey{}, fmt.Errorf("%w key %s: a character in it is wrong", message.ErrInvalid, message.Quote(s))
	}
	return PublicKey{}, fmt.Errorf("%w key %s: want the public key of a node, 56 characters that begin with U", message.ErrInvalid, message.Quote(s))
}

// String returns the text of the key.
func (k PublicKey) String() string {
	b, err := nkeys.Encode(nkeys.PrefixByteUser, k[:])
	if err != nil { // the prefix and the length are right
		panic(err)
	}
	return string(b)
}

// Verify says whether sig was made by k, over data, for this purpose: nil, or [ErrBadSignature].
func (k PublicKey) Verify(purpose string, data, sig []byte) error {
	if ed25519.VerifyWithOptions(k[:], data, sig, &ed25519.Options{Context: purpose}) != nil {
		return ErrBadSignature
	}
	return nil
}

// Key is the private key of a node. It does not print.
type Key struct{ private ed25519.PrivateKey }

// NewKey makes a key.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return &Key{private}, nil
}

// Public returns the public half.
func (k *Key) Public() PublicKey {
	return PublicKey(k.private.Public().(ed25519.PublicKey))
}

// Sign returns the signature of data for a purpose, which names what is signed and the version of
// its format, in 1 to 255 bytes.
func (k *Key) Sign(purpose string, data []byte) []byte {
	if purpose == "" { // it would be a signature without one, as a broker gets it
		panic("a signature without a purpose")
	}
	sig, err := k.private.Sign(nil, data, &ed25519.Options{Hash: crypto.Hash(0), Context: purpose})
	if err != nil { // of a purpose that is too long
		panic(err)
	}
	return sig
}

// String keeps the key out of logs and errors.
func (k *Key) String() string { return "private key of " + k.Public().String() }

// GoString is String.
func (k *Key) GoString() string { return k.String() }

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// LoadKey reads the key in a file: an nkeys seed of a user (SU…), alone or in a file of
// credentials, or an Ed25519 key as ssh-keygen writes it without a passphrase. A file that
// others may read is refused. The error wraps fs.ErrNotExist when there is no file.
func LoadKey(path string) (*Key, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("node key: %s: %w", path, err)
	}
	return k, nil
}

// CreateKey makes a key and puts it into a new file, as a seed that only its owner can read. There
// is the whole file or none. What is there stays as it is: then the error wraps fs.ErrExist.
func CreateKey(path string) (*Key, error) {
	k, err := NewKey()
	if err != nil {
		return nil, err
	}
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, k.private.Seed())
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := atomicfile.Create(path, append(seed, '\n')); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return k, nil
}

// EnsureKey is LoadKey, or CreateKey when there is no file yet; made says which.
func EnsureKey(path string) (k *Key, made bool, err error) {
	if k, err = LoadKey(path); !errors.Is(err, fs.ErrNotExist) {
		return k, false, err
	}
	if k, err = CreateKey(path); errors.Is(err, fs.ErrExist) { // another one was quicker
		k, err = LoadKey(path)
		return k, false, err
	}
	return k, err == nil, err
}

func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(path, info); err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s has %d bytes, which is no key", path, info.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

func parseKey(text []byte) (*Key, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return parseSSHKey(text)
	}
	pair, err := nkeys.ParseDecoratedNKey(text)
	if err != nil {
		return nil, errors.New("there is no key in it; want an nkeys seed that begins with SU, or an Ed25519 key as ssh-keygen makes it")
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return nil, err
	}
	prefix, raw, err := nkeys.DecodeSeed(seed)
	if err != nil {
		return nil, err
	}
	if prefix != nkeys.PrefixByteUser {
		return nil, fmt.Errorf("it is the key of a NATS %s; a node has one of a user, which begins with SU", prefix)
	}
	return &Key{ed25519.NewKeyFromSeed(raw)}, nil
}

func parseSSHKey(text []byte) (*Key, error) {
	raw, err := ssh.ParseRawPrivateKey(text)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, errors.New("the key is protected by a passphrase, which nobody is there to type when a node starts; " +
			"take it off a copy of the key with ssh-keygen -p, or leave the setting out and have a key made")
	}
	if err != nil {
		return nil, fmt.Errorf("not an SSH key: %w", err)
	}
	switch k := raw.(type) {
	case *ed25519.PrivateKey:
		return &Key{*k}, nil
	case ed25519.PrivateKey:
		return &Key{k}, nil
	}
	kind := strings.TrimPrefix(fmt.Sprintf("%T", raw), "*")
	return nil, fmt.Errorf("it is of the type %s; want an Ed25519 key, as ssh-keygen -t ed25519 makes it", kind)
}
