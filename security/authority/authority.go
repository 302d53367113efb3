// Package authority makes the certificates of a broker, so that TLS takes no other program: an
// authority of the fleet's own, and with it a certificate for the names and addresses at which
// the broker is reached. Nodes trust the authority, so that another certificate of the broker means
// nothing to them.
//
// The files are in one folder: broker-ca.key, the key of the authority with its certificate,
// broker-ca.pem, the certificate alone, for others, and broker.pem, certificate and key of the
// broker. Each is whole at any moment. Two processes may do the same at once.
package authority

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"steward/internal/atomicfile"
	"steward/security"
)

// The files in the folder.
const (
	keyFile    = "broker-ca.key"
	CAFile     = "broker-ca.pem"
	BrokerFile = "broker.pem"
)

const (
	day = 24 * time.Hour
	// years of the authority: nobody changes it but for cause.
	authorityTerm = 20 * 365 * day
	// The certificate of a broker is made anew when a third of its time is left.
	brokerTerm = 365 * day
	renewal    = brokerTerm / 3
	// before is how far the clock of who checks may be behind.
	before = 48 * time.Hour
)

// Authority signs certificates of brokers.
type Authority struct {
	folder string
	cert   *x509.Certificate
	key    ed25519.PrivateKey
}

// Ensure returns the authority in a folder, which it makes when there is none.
func Ensure(folder string, now time.Time) (*Authority, error) {
	path := filepath.Join(folder, keyFile)
	a, err := open(folder, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(path, now); err == nil || errors.Is(err, fs.ErrExist) { // another one was quicker
			a, err = open(folder, path)
		}
	}
	if err == nil {
		err = replace(filepath.Join(folder, CAFile), a.PEM())
	}
	if err != nil {
		return nil, fmt.Errorf("authority of the broker: %w", err)
	}
	return a, nil
}

// PEM returns the certificate of the authority.
func (a *Authority) PEM() []byte { return block("CERTIFICATE", a.cert.Raw) }

// Broker sees to it that there is a certificate for these names and addresses, which is good for a
// while. It reports whether it made one, and returns the path of the file that it is in, with its key.
func (a *Authority) Broker(names []string, now time.Time) (path string, made bool, err error) {
	path = filepath.Join(a.folder, BrokerFile)
	if a.good(path, names, now) {
		return path, false, nil
	}
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", false, fmt.Errorf("certificate of the broker: %w", err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "steward broker"}, NotBefore: now.Add(-before), NotAfter: now.Add(brokerTerm),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip, err := netip.ParseAddr(n); err == nil {
			c.IPAddresses = append(c.IPAddresses, ip.AsSlice())
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	text, err := sign(c, a.cert, public, a.key, key)
	if err == nil {
		err = atomicfile.Replace(path, text)
	}
	if err != nil {
		return "", false, fmt.Errorf("certificate of the broker: %w", err)
	}
	return path, true, nil
}

// good reports whether the certificate in a file serves on.
func (a *Authority) good(path string, names []string, now time.Time) bool {
	if security.CheckPrivate(path) != nil {
		return false
	}
	cert, _, err := read(path)
	if err != nil || cert.CheckSignatureFrom(a.cert) != nil || now.Before(cert.NotBefore) || cert.NotAfter.Sub(now) < renewal {
		return false
	}
	return !slices.ContainsFunc(names, func(n string) bool { return cert.VerifyHostname(n) != nil })
}

func open(folder, path string) (*Authority, error) {
	if err := security.CheckPrivate(path); err != nil {
		return nil, err
	}
	cert, key, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Authority{folder, cert, key}, nil
}

func create(path string, now time.Time) error {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "steward"}, NotBefore: now.Add(-before), NotAfter: now.Add(authorityTerm),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	text, err := sign(c, c, public, key, key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Create(path, text)
}

// sign returns a certificate, signed by the key of its parent, and its own key.
func sign(c, parent *x509.Certificate, public ed25519.PublicKey, by, key ed25519.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	c.SerialNumber = serial.Add(serial, big.NewInt(1))
	cert, err := x509.CreateCertificate(rand.Reader, c, parent, public, by)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(block("CERTIFICATE", cert), block("PRIVATE KEY", private)...), nil
}

func read(path string) (*x509.Certificate, ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	first, rest := pem.Decode(text)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil || first.Type != "CERTIFICATE" || second.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("want a certificate with its key behind it, as steward writes them")
	}
	cert, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := private.(ed25519.PrivateKey)
	if public, fits := cert.PublicKey.(ed25519.PublicKey); !ok || !fits || !public.Equal(key.Public()) {
		return nil, nil, errors.New("certificate and key do not belong together")
	}
	return cert, key, nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// replace writes a file that does not say this yet.
func replace(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return atomicfile.Replace(path, text)
}
