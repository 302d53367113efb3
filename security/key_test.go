package security_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/ssh"

	"steward/message"
	"steward/security"
)

func newKey(t testing.TB) *security.Key {
	t.Helper()
	k, err := security.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func write(t testing.TB, name string, text []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSignatureIsForOnePurposeAndOneText(t *testing.T) {
	k, other := newKey(t), newKey(t)
	sig := k.Sign("steward frame 1", []byte("text"))
	if err := k.Public().Verify("steward frame 1", []byte("text"), sig); err != nil {
		t.Fatal(err)
	}
	// What a broker has a node sign at login has no purpose.
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, seedOf(t, k))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	login, err := pair.Sign([]byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another purpose": k.Public().Verify("steward ack 1", []byte("text"), sig),
		"no purpose":      k.Public().Verify("", []byte("text"), sig),
		"another text":    k.Public().Verify("steward frame 1", []byte("Text"), sig),
		"another key":     other.Public().Verify("steward frame 1", []byte("text"), sig),
		"half":            k.Public().Verify("steward frame 1", []byte("text"), sig[:32]),
		"nothing":         k.Public().Verify("steward frame 1", []byte("text"), nil),
		"a login":         k.Public().Verify("steward frame 1", []byte("text"), login),
	} {
		if !errors.Is(err, security.ErrBadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// seedOf finds the private half by way of a file.
func seedOf(t *testing.T, k *security.Key) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.key")
	made, err := security.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	*k = *made
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := nkeys.DecodeSeed([]byte(strings.TrimSpace(string(text))))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPublicKeyComesBackFromItsText(t *testing.T) {
	k := newKey(t).Public()
	s := k.String()
	if got, err := security.ParsePublicKey(s); err != nil || got != k || s[0] != 'U' || !nkeys.IsValidPublicUserKey(s) {
		t.Errorf("%s: %v, %v", s, got, err)
	}
	account, err := nkeys.Encode(nkeys.PrefixByteAccount, k[:])
	if err != nil {
		t.Fatal(err)
	}
	wrong := []byte(s)
	wrong[20] ^= 1
	for _, bad := range []string{"", "U", string(account), string(wrong), s + "A", strings.ToLower(s), strings.Repeat("U", 1<<16)} {
		if _, err := security.ParsePublicKey(bad); !errors.Is(err, message.ErrInvalid) || len(err.Error()) > 400 {
			t.Errorf("%.60s: %v", bad, err)
		}
	}
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := security.ParsePublicKey(string(seed)); !errors.Is(err, message.ErrInvalid) || strings.Contains(err.Error(), string(seed)) || !strings.Contains(err.Error(), "private") {
		t.Errorf("a private key: %v", err)
	}
}

// A key with a slip in it is told apart from what is no key.
func TestPublicKeyWithAWrongCharacterIsToldSo(t *testing.T) {
	text := newKey(t).Public().String()
	other := "A"
	if text[30] == 'A' {
		other = "B"
	}
	for _, c := range []struct{ text, want string }{
		{text[:30] + other + text[31:], "a character in it is wrong"},
		{text[:55] + "1", "a character in it is wrong"},
		{text[:55], "want the public key of a node, 56 characters that begin with U"},
		{text + "A", "want the public key of a node, 56 characters that begin with U"},
		{"A" + text[1:], "want the public key of a node, 56 characters that begin with U"},
	} {
		if _, err := security.ParsePublicKey(c.text); !errors.Is(err, message.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

func TestKeyIsMadeOnceAndComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "node.key")
	if _, err := security.LoadKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: %v", err)
	}
	k, made, err := security.EnsureKey(path)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	again, made, err := security.EnsureKey(path)
	if err != nil || made || again.Public() != k.Public() {
		t.Errorf("%v, %v: %v, was %v", made, err, again, k)
	}
	if _, err := security.CreateKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over one that is there: %v", err)
	}
	if k, err := security.LoadKey(path); err != nil || k.Public() != again.Public() {
		t.Errorf("%v, %v", k, err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v in the folder, %v", entries, err)
	}
}

func TestKeysOfOtherProgramsAreRead(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, private.Seed())
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "me@here")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"seed":          string(seed),
		"seed, comment": "# of ship1\n" + string(seed) + "\n",
		"credentials":   "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.abc\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n" + string(seed) + "\n------END USER NKEY SEED------\n",
		"OpenSSH":       string(pem.EncodeToMemory(block)),
	} {
		k, err := security.LoadKey(write(t, "key", []byte(text)))
		if err != nil || k.Public() != security.PublicKey(public) {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
}

func TestUnusableKeysAreRefusedWithAReason(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.MarshalPrivateKey(curve, "")
	if err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.EncodeSeed(nkeys.PrefixByteAccount, private.Seed())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "there is no key in it"},
		{"text", "SUnny day\n", "there is no key in it"},
		{"public", newKey(t).Public().String(), "there is no key in it"},
		{"account", string(account), "the key of a NATS account"},
		{"passphrase", string(pem.EncodeToMemory(locked)), "protected by a passphrase"},
		{"other type", string(pem.EncodeToMemory(other)), "want an Ed25519 key"},
		{"broken", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "not an SSH key"},
		{"large", strings.Repeat("x", 1<<20), "which is no key"},
	} {
		path := write(t, "key", []byte(tt.text))
		k, err := security.LoadKey(path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", tt.name, k, err)
		}
		if err != nil && strings.Contains(err.Error(), string(account)) {
			t.Errorf("%s: the error holds the key", tt.name)
		}
	}
	if _, err := security.LoadKey(t.TempDir()); err == nil {
		t.Error("a folder is a key")
	}
}

func TestKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes there")
	}
	path := filepath.Join(t.TempDir(), "node.key")
	if _, err := security.CreateKey(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := security.LoadKey(path); err == nil || !strings.Contains(err.Error(), "run: chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := security.LoadKey(path); err != nil {
		t.Errorf("mode 400: %v", err)
	}
}

func TestPrivateKeyIsNotPrinted(t *testing.T) {
	k := newKey(t)
	raw := seedOf(t, k)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k)} {
		if !strings.Contains(text, k.Public().String()) || strings.Contains(text, fmt.Sprint(raw[0], raw[1], raw[2])) ||
			strings.Contains(text, fmt.Sprintf("%#v", raw)[8:20]) {
			t.Error(text)
		}
	}
}
