package natstransport

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"steward/errorkernel"
	"steward/security"
)

// InProcess connects to a broker in this process.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Key is an nkey of a user.
type Key interface {
	PublicKey() (string, error)
	Sign(nonce []byte) ([]byte, error)
}

// Options says where brokers are and how to get in.
type Options struct {
	// Servers are the brokers, as people write them: "host", "host:port", or an URL that
	// begins with nats://, tls://, ws:// or wss:// and may hold user and password. They
	// are tried in random order.
	Servers []string
	// InProcess replaces Servers and TLS by a broker in this process.
	InProcess InProcess
	// Name is the node's name, for the broker's own lists and logs.
	Name string

	// ConnectTimeout bounds each step of connecting to one broker; 0 means 5 s.
	ConnectTimeout time.Duration
	// ReconnectWait is between two rounds through the brokers; 0 means 2 s.
	ReconnectWait time.Duration
	// ReconnectJitter is the most that is added to each wait, so that a fleet does not
	// come back in one moment; 0 means 1 s.
	ReconnectJitter time.Duration
	// PingInterval is how often the link is checked when all is quiet. A link that does
	// not answer two pings is given up; 0 means 30 s.
	PingInterval time.Duration
	// WriteTimeout is how long a link that takes nothing at all may hold up a sender before
	// it is given up; 0 means 30 s. A link that is merely slow is not.
	WriteTimeout time.Duration

	// Roots are certificates as PEM, in place of those in RootCA; nil for none.
	Roots []byte
	// PEM files; empty for none. All are read again for each connection.
	RootCA, ClientCert, ClientKey string
	// NkeySeedFile, CredsFile and Key prove who we are; at most one of them. What is in the
	// files, and in ClientKey, is for their owner alone.
	NkeySeedFile, CredsFile string
	Key                     Key

	// Log gets one line for each change of the link. Nil drops them.
	Log *slog.Logger
	// Report gets what a broker refuses: our login, our certificate, a subject. Nil sends
	// these to Log. A link that is merely gone is no failure.
	Report errorkernel.Reporter
}

// server is one broker to try.
type server struct {
	name string // for logs: without user and password
	opts nats.Options
}

// servers checks o and returns what to try, with defaults filled in.
func (o *Options) servers() ([]server, error) {
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.ReconnectWait = cmp.Or(o.ReconnectWait, 2*time.Second)
	o.ReconnectJitter = cmp.Or(o.ReconnectJitter, time.Second)
	o.PingInterval = cmp.Or(o.PingInterval, 30*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	for what, d := range map[string]time.Duration{
		"connect timeout": o.ConnectTimeout, "reconnect wait": o.ReconnectWait, "reconnect jitter": o.ReconnectJitter,
		"ping interval": o.PingInterval, "write timeout": o.WriteTimeout,
	} {
		if d < 0 {
			return nil, fmt.Errorf("%s of %v: less than nothing", what, d)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	base, err := o.nats()
	if err != nil {
		return nil, err
	}
	if o.InProcess != nil {
		base.Servers = []string{nats.DefaultURL} // unused, but the library wants one
		return []server{{name: "in this process", opts: base}}, nil
	}
	var all []server
	for _, s := range o.Servers {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		u, err := parseServer(s)
		if err != nil {
			return nil, err
		}
		one := server{name: u.Redacted(), opts: base}
		if u.User != nil {
			one.name = u.Scheme + "://" + u.Host // a token stands where a user would
		}
		one.opts.Servers = []string{u.String()}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, errors.New("no broker address")
	}
	return all, nil
}

func parseServer(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		// The error of url.Parse repeats its input, password included.
		return nil, errors.New("a broker address is not an URL: want host:port")
	}
	if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
		return nil, fmt.Errorf("broker address %s: want nats://, tls://, ws:// or wss://", u.Redacted())
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("broker address %s: no host", u.Redacted())
	}
	return u, nil
}

// nats returns the options that are the same for all brokers.
func (o *Options) nats() (nats.Options, error) {
	n := nats.GetDefaultOptions()
	n.Name = o.Name
	n.Timeout = o.ConnectTimeout
	n.PingInterval = o.PingInterval
	n.MaxPingsOut = 2
	n.FlusherTimeout = 0 // patientConn sees to it
	// The library is told when to connect, and to give up at once: see the package comment.
	n.AllowReconnect = false
	n.ReconnectOnFlusherError = true // here: a failed write ends the connection
	n.ReconnectBufSize = -1
	n.IgnoreDiscoveredServers = true
	n.SkipHostLookup = true // the dialer resolves, and can be interrupted while it does

	var opts []nats.Option
	if o.InProcess == nil {
		if o.Roots != nil {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(o.Roots) {
				return n, errors.New("no certificate to check brokers with")
			}
			opts = append(opts, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
		}
		if o.RootCA != "" {
			opts = append(opts, nats.RootCAs(o.RootCA))
		}
		switch {
		case o.ClientCert != "" && o.ClientKey != "":
			if err := security.CheckPrivate(o.ClientKey); err != nil {
				return n, fmt.Errorf("client key file: %w", err)
			}
			opts = append(opts, nats.ClientCert(o.ClientCert, o.ClientKey))
		case o.ClientCert != "" || o.ClientKey != "":
			return n, errors.New("client certificate and client key: one is of no use without the other")
		}
	}
	login, err := o.login()
	if err != nil {
		return n, err
	}
	if login != nil {
		opts = append(opts, login)
	}
	for _, set := range opts {
		if err := set(&n); err != nil {
			return n, err
		}
	}
	return n, nil
}

// login returns what proves who we are, or nil.
func (o *Options) login() (nats.Option, error) {
	given := 0
	for _, is := range []bool{o.NkeySeedFile != "", o.CredsFile != "", o.Key != nil} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, errors.New("nkey seed file, creds file and key: only one of them can be used")
	case o.NkeySeedFile != "":
		if err := security.CheckPrivate(o.NkeySeedFile); err != nil {
			return nil, fmt.Errorf("nkey seed file: %w", err)
		}
		nkey, err := nats.NkeyOptionFromSeed(o.NkeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("nkey seed file %s: %w", o.NkeySeedFile, err)
		}
		return nkey, nil
	case o.CredsFile != "":
		if err := security.CheckPrivate(o.CredsFile); err != nil {
			return nil, fmt.Errorf("creds file: %w", err)
		}
		return nats.UserCredentials(o.CredsFile), nil
	case o.Key != nil:
		public, err := o.Key.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		return nats.Nkey(public, o.Key.Sign), nil
	}
	return nil, nil
}
