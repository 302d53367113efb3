// Package enroll lets a new node into a fleet without a door that is open to others: the token that
// central makes for one node, the folder in which central keeps what it has to know about it, and
// the two texts by which node and central tell each other their keys.
//
// A token is a secret. It names the broker, what its certificate is checked with, central and its
// key, and holds a key of its own that does nothing but this. Central keeps only the public
// half. It counts once: for the key of the first node that came with it, which may ask again as long
// as the token lasts. Whether it lasts is decided by the clock of central alone.
//
// The request is signed with the key of the node and with that of the token, the answer with that of
// central, and there is no secret in either, so that it does not matter who carries them.
//
// The package knows no network. Everything in it may be used by several processes at once.
package enroll

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"steward/message"
	"steward/security"
)

// Token is what a new node gets from whoever runs the fleet.
type Token struct {
	Node    message.Node // as which it is to be enrolled
	Brokers []string     // addresses as brokerAddress has them
	// CA are the certificates, as PEM, that those of the brokers are checked with; empty: those that
	// the system of the node trusts.
	CA      []byte
	Central message.Node
	// CentralKey is that of central, which signs the answer.
	CentralKey security.PublicKey
	Key        *security.Key // of the token
}

// prefix begins the text of a token, and says which form it has.
const prefix = "steward1-"

// maxToken bounds the text of a token in bytes: a terminal takes no longer line.
const maxToken = 4000

// fields are those of the text of a token.
type fields struct {
	Node       string   `asn1:"utf8"`
	Brokers    string   `asn1:"utf8"` // comma separated
	CA         [][]byte // certificates
	Central    string   `asn1:"utf8"`
	CentralKey []byte
	Seed       []byte
}

// sumSize is how much of the hash of a token stands behind it, against errors in copying.
const sumSize = 4

// Text returns the token as one line without blanks.
func (t *Token) Text() (string, error) {
	f := fields{Node: string(t.Node), Brokers: strings.Join(t.Brokers, ","), Central: string(t.Central), CentralKey: t.CentralKey[:], Seed: t.Key.Seed()}
	for rest := t.CA; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" {
			f.CA = append(f.CA, b.Bytes)
		}
	}
	if len(f.CA) == 0 && len(t.CA) > 0 {
		return "", fmt.Errorf("%w authority: no certificate in it", message.ErrInvalid)
	}
	der, err := asn1.Marshal(f)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	text := prefix + base64.RawURLEncoding.EncodeToString(append(der, sum[:sumSize]...))
	if len(text) > maxToken {
		return "", fmt.Errorf("the token would have %d characters, more than a terminal takes; the certificates of the authority are too large for it", len(text))
	}
	return text, nil
}

// ParseToken reads what [Token.Text] wrote. Its errors do not repeat the text.
func ParseToken(text string) (*Token, error) {
	bad := func(why string) (*Token, error) {
		return nil, fmt.Errorf("%w token: %s; copy all of the line that steward token new has printed", message.ErrInvalid, why)
	}
	body, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok || len(body) > maxToken {
		return bad("it does not begin with " + prefix + ", or is far too long")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(raw) < sumSize {
		return bad("a character in it is wrong or missing")
	}
	der := raw[:len(raw)-sumSize]
	if sum := sha256.Sum256(der); string(sum[:sumSize]) != string(raw[len(der):]) {
		return bad("a character in it is wrong or missing")
	}
	var f fields
	if rest, err := asn1.Unmarshal(der, &f); err != nil || len(rest) > 0 {
		return bad("it is of another version of steward")
	}
	t := &Token{Node: message.Node(f.Node), Brokers: strings.Split(f.Brokers, ","), Central: message.Node(f.Central)}
	for _, c := range f.CA {
		if _, err := x509.ParseCertificate(c); err != nil {
			return bad("a certificate in it cannot be read")
		}
		t.CA = append(t.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	if len(f.CentralKey) != len(t.CentralKey) || f.Brokers == "" {
		return bad("it lacks something")
	}
	copy(t.CentralKey[:], f.CentralKey)
	if t.Key, err = security.KeyOfSeed(f.Seed); err != nil {
		return bad("it lacks something")
	}
	if err := errors.Join(t.Node.Check(), t.Central.Check()); err != nil {
		return bad(err.Error())
	}
	return t, nil
}

// Subjects are where the request for a token goes to, and where the answer comes from.
func Subjects(central message.Node, token security.PublicKey) (request, answer string) {
	return string(central) + ".ENROLL." + token.String(), string(central) + ".ENROLLED." + token.String()
}

// TokenOf returns for which token a request is that came on subject.
func TokenOf(central message.Node, subject string) (security.PublicKey, error) {
	text, ok := strings.CutPrefix(subject, string(central)+".ENROLL.")
	if !ok {
		return security.PublicKey{}, fmt.Errorf("%w subject %s", message.ErrInvalid, message.Quote(subject))
	}
	return security.ParsePublicKey(text)
}
