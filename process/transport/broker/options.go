// Package broker runs a nats-server inside this process: for small fleets, tests and the
// demo. Outside servers need nothing of it but what [Configuration] prints for them.
//
// It owns the server from Start to Shutdown. The server handles no signals, never exits
// the program, keeps nothing on disk and has no JetStream: what must not get lost is kept
// by the nodes.
//
// Where others than the processes of this machine reach it, it wants to know who they are,
// by an nkey for each node, and talks TLS. What a node may do follows from its name, see
// [Access.Grants]. The node in whose process the server runs needs no key for it: it
// connects with one that is made at each start and works in this process alone.
package broker

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"steward/message"
)

// Options says where to listen and what to allow.
type Options struct {
	// Addr is "host:port". Port 0 takes a free one, an empty host listens on all
	// addresses.
	Addr string
	// ConfigFile is a nats-server configuration, for what is not needed here but by tests.
	// The fields here win over the file, it cannot turn JetStream on, and there can be no
	// Access or TLS besides it.
	ConfigFile string
	// Access says who may log in. Without it everybody may do everything.
	Access *Access
	// CertFile and KeyFile turn TLS on, CAFile makes clients show a certificate that one of
	// its authorities has signed; all PEM. They are read again when they change.
	CertFile, KeyFile, CAFile string
	// Insecure allows an address that other machines reach without TLS and Access.
	Insecure bool
	// Name is shown to clients and in logs; empty for a random one.
	Name string
	// Self is the node of this process, of which [Server.Login] is. Needed for Access.
	Self message.Node
	// MaxPayload is the largest frame in bytes; 0 means that of the ConfigFile, or 1 MiB.
	MaxPayload int
	// MaxConnections is the number of clients at a time; 0 means that of the ConfigFile, or
	// 10,000.
	MaxConnections int
	// Refused, if not nil, is told what the server has refused somebody who has a connection: TLS, a login, a
	// subject; the same of one host once a minute, as long as there are not too many. It must not block.
	Refused func(line string, what Refusal)
	// Log gets the server's own lines. Nil drops them.
	Log *slog.Logger

	authTimeout float64 // seconds, for tests; 0 means authTimeout
}

// Refusal says how far somebody has come who was refused something.
type Refusal uint8

const (
	RefusedTLS   Refusal = iota // not through TLS
	RefusedLogin                // not logged in
	RefusedDeed                 // in, and may not do what he tries
)

// Limits bound the connections of a server at which nodes log in, besides MaxConnections. All are needed.
type Limits struct {
	// Token is how many there may be at a time with the key of one token, and TokenFor for how long.
	Token    int
	TokenFor time.Duration
	// Node is how many there may be with one key, for each node of which it is.
	Node int
	// Young is how old a connection has to be to count for that: who only says that he has the key is cut off before.
	Young time.Duration
	// Address is how many there may be from one address that have not logged in.
	Address int
}

// refusedKey finds the key in a line about a login.
var refusedKey = regexp.MustCompile(` - authentication error - Nkey "(U[A-Z2-7]{55})"$`)

// RefusedKey returns the key with which the login failed that a line which Refused was told is about, or nothing.
func RefusedKey(line string) string {
	if m := refusedKey.FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return ""
}

// Limits of every server that is not given others.
const (
	defaultMaxPayload     = 1 << 20
	defaultMaxConnections = 10_000
	// A line of the protocol holds two subjects of 1 KiB at most.
	maxControlLine = 4096
	// A node subscribes to its methods, and to the presence of nodes that it has something for.
	maxSubscriptions = 32_768 // a client
	// Over a link with a long way a handshake takes seconds. Who has not logged in by then
	// is cut off.
	tlsTimeout, authTimeout = 10, 15 // seconds
	// A client that takes nothing of what is sent to it is cut off after this long, or with
	// so much waiting for it. One on a slow link that takes something is not.
	writeDeadline = 10 * time.Second
	maxPending    = 32 << 20 // bytes a client
)

// door says what is wrong with who gets in at the address.
func (o Options) door(hasTLS, hasLogin bool) error {
	if Loopback(o.Addr) || o.Insecure || hasTLS && hasLogin {
		return nil
	}
	missing := "neither TLS nor logins"
	if hasTLS {
		missing = "no logins"
	} else if hasLogin {
		missing = "no TLS"
	}
	return fmt.Errorf("other machines can reach it, and there is %s: "+
		"do not switch -embeddedBrokerTLS or -embeddedBrokerLogin off, or give -embeddedBrokerCertFile and -embeddedBrokerKeyFile; "+
		"or 127.0.0.1 as its host; or, in a network that is closed by other means, -embeddedBrokerInsecure=yes", missing)
}

// Loopback reports whether only processes of this machine reach what listens on addr.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// check is about options that exclude or need each other.
func (o Options) check() error {
	switch {
	case (o.CertFile == "") != (o.KeyFile == ""):
		return errors.New("certificate file and key file: one is of no use without the other")
	case o.CAFile != "" && o.CertFile == "":
		return fmt.Errorf("CA file %s: it is of no use without a certificate file", o.CAFile)
	case o.ConfigFile != "" && (o.Access != nil || o.CertFile != ""):
		return errors.New("a configuration file brings logins and TLS of its own")
	case o.Access != nil && o.Self == "":
		return errors.New("no name of the own node")
	case o.MaxPayload < 0 || o.MaxPayload > maxPending/2:
		return fmt.Errorf("largest frame of %d bytes: want at most %d", o.MaxPayload, maxPending/2)
	case o.MaxConnections < 0:
		return fmt.Errorf("%d connections", o.MaxConnections)
	}
	return nil
}

// PayloadFor is the largest frame for messages of up to so many bytes: with what is around
// them, and not less than a nats-server takes that is not told.
func PayloadFor(maxMessage int) int { return max(defaultMaxPayload, maxMessage+64<<10) }

func (o Options) maxPayload() int { return cmp.Or(o.MaxPayload, defaultMaxPayload) }
