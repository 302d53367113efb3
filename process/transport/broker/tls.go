//go:build !nobroker

package broker

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"steward/security"
)

// tls returns the server's side of TLS, or nil for none.
func (o Options) tls(log *logger) (*tls.Config, error) {
	if o.CertFile == "" {
		return nil, nil
	}
	c := &certificates{opts: o, log: log}
	first, err := c.load()
	if err != nil {
		return nil, err
	}
	first = first.Clone() // what asks does not come back from itself
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current() }
	return first, nil
}

// certificates are those of the files, read again when one of them has changed, so that a
// new certificate needs no new start.
type certificates struct {
	opts Options
	log  *logger

	mu    sync.Mutex // guards the fields below
	files string     // their times and sizes when they were read last
	good  *tls.Config
}

// current is what to offer a client. Files that make no sense, because they are just being
// written perhaps, leave the last good ones in use.
func (c *certificates) current() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stamp() == c.files {
		return c.good, nil
	}
	if _, err := c.read(); err != nil {
		c.log.Errorf("the new certificate of the broker is of no use, the one from before stays: %v", err)
	} else {
		c.log.Noticef("the certificate of the broker was read again")
	}
	return c.good, nil
}

func (c *certificates) load() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read()
}

// read is called with mu held.
func (c *certificates) read() (*tls.Config, error) {
	c.files = c.stamp()
	if err := security.CheckPrivate(c.opts.KeyFile); err != nil {
		return nil, fmt.Errorf("key file of the broker: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.opts.CertFile, c.opts.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", c.opts.CertFile, c.opts.KeyFile, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if c.opts.CAFile != "" {
		text, err := os.ReadFile(c.opts.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("CA file %s: no certificate in it", c.opts.CAFile)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		c.log.Errorf("certificate %s is valid from %s to %s: no client takes it; put a good one in its place, which is read without a new start, or set the clock",
			c.opts.CertFile, pair.Leaf.NotBefore.Format(time.RFC3339), pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	c.good = config
	return config, nil
}

func (c *certificates) stamp() string {
	var s string
	for _, file := range []string{c.opts.CertFile, c.opts.KeyFile, c.opts.CAFile} {
		if info, err := os.Stat(file); err == nil {
			s += fmt.Sprint(info.ModTime().UnixNano(), info.Size(), " ")
		} else {
			s += "- "
		}
	}
	return s
}
