// Package certtest makes certificates for tests: an authority of a test's own, and what it
// signs, as PEM files.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority signs certificates. Its files are in one folder.
type Authority struct {
	// File is its own certificate.
	File string

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority and writes its certificate to ca.pem in dir.
func New(dir string) (*Authority, error) {
	a := &Authority{File: filepath.Join(dir, "ca.pem"), dir: dir}
	now := time.Now()
	der, key, err := a.sign(x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(48 * time.Hour),
	})
	if err != nil {
		return nil, err
	}
	a.key = key
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, writePEM(a.File, "CERTIFICATE", der)
}

// Issue is [Authority.IssueFor] for a certificate that is good now.
func (a *Authority) Issue(name string) (cert, key string, err error) {
	now := time.Now()
	return a.IssueFor(name, now.Add(-time.Hour), now.Add(time.Hour))
}

// IssueFor makes a certificate for both ends of a connection to the hosts, which are
// 127.0.0.1 and localhost when none is given, and writes it to <name>.crt and its key to
// <name>.key.
func (a *Authority) IssueFor(name string, notBefore, notAfter time.Time, hosts ...string) (cert, key string, err error) {
	c := x509.Certificate{
		DNSNames:    hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   notBefore, NotAfter: notAfter,
	}
	if len(hosts) == 0 {
		c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, private, err := a.sign(c)
	if err != nil {
		return "", "", err
	}
	text, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	return cert, key, errors.Join(writePEM(cert, "CERTIFICATE", der), writePEM(key, "EC PRIVATE KEY", text))
}

// sign makes a key and the certificate for it; without an authority it signs itself.
func (a *Authority) sign(c x509.Certificate) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: "test"}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = &c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, key.Public(), by)
	return der, key, err
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
