package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/process/transport/broker"
	"steward/security"
)

// openBroker starts the embedded broker, if there is to be one.
func (n *Node) openBroker() error {
	if n.cfg.EmbeddedBroker == "" {
		return nil
	}
	if err := n.ensureCertificate(); err != nil {
		return err
	}
	opts := broker.Options{
		Addr: n.cfg.EmbeddedBroker, Name: string(n.self), Self: n.self,
		CertFile: cmp.Or(n.cfg.EmbeddedBrokerCertFile, n.certificate), KeyFile: cmp.Or(n.cfg.EmbeddedBrokerKeyFile, n.certificate), CAFile: n.cfg.EmbeddedBrokerCAFile,
		Insecure: n.cfg.EmbeddedBrokerInsecure == "yes", MaxConnections: n.cfg.EmbeddedBrokerMaxConnections,
		MaxPayload: broker.PayloadFor(n.cfg.MaxMessageSize),
		Refused: func(line string, login bool) {
			process := "broker"
			if login { // apart, so that strangers in whatever number do not cover up what a node tries
				process = "broker login"
			}
			n.kernel.Report(errorkernel.Event{Class: errorkernel.Refused, Process: process, Err: errors.New(line)})
		},
		Log: n.log.With(logattr.Process("broker")),
	}
	login := n.cfg.EmbeddedBrokerLogin == "yes" || n.cfg.EmbeddedBrokerLogin == "auto" && (!broker.Loopback(opts.Addr) || n.cfg.Signatures == "require")
	if login {
		n.users = &brokerUsers{n: n, trusted: watched{path: n.cfg.TrustedNodesFile}, tokens: watched{path: string(n.tokens())}}
		users, err := n.users.read()
		if err != nil {
			return fmt.Errorf("who may log in to the embedded broker: %w", err)
		}
		opts.Access = &broker.Access{Central: n.cfg.CentralNodeName, Reach: broker.Reach(n.cfg.EmbeddedBrokerReach), Users: users}
	}
	b, err := broker.Start(opts)
	if err != nil {
		return err
	}
	n.broker = b
	n.onClose("broker", func() error { b.Shutdown(); return nil })
	n.log.Info("broker listens", "addr", b.Addr(), "tls", opts.CertFile != "", "login", login)
	if !login && (n.cfg.EmbeddedBrokerLogin == "auto" || !broker.Loopback(opts.Addr)) { // who says no for this machine alone knows
		n.log.Warn("the broker asks for no login: who reaches it can send anything in any name", "addr", b.Addr())
	}
	return nil
}

// brokerUsers keeps who may log in to the embedded broker to what the list of trusted keys and the
// tokens say. Its only goroutine is that of [fleetKeeper], after read was called once.
type brokerUsers struct {
	n *Node
	// trusted is the list, tokens the folder of the tokens.
	trusted, tokens watched
	bad             string // what was said last about a list that cannot be used
}

// follow applies a list that has changed. One that cannot be used leaves all as it was, and is
// told about once.
func (u *brokerUsers) follow() {
	if !u.changed() {
		return
	}
	users, err := u.read()
	if err == nil {
		err = u.n.broker.SetUsers(users)
	}
	if err == nil {
		u.bad = ""
		u.n.log.Info("the keys that may log in to the broker were read again", logattr.Process("broker"), "nodes", len(users))
		return
	}
	if err.Error() != u.bad {
		u.bad = err.Error()
		u.n.kernel.Report(errorkernel.Event{Class: errorkernel.LinkFailed, Process: "broker",
			Err: fmt.Errorf("who may log in stays as it was: %w", err)})
	}
}

func (u *brokerUsers) changed() bool { return u.trusted.changed() || u.tokens.changed() }

func (u *brokerUsers) read() ([]broker.User, error) {
	u.trusted.look() // before it is read: what changes meanwhile is seen the next time
	u.tokens.look()
	list, err := security.ReadTrust(u.n.cfg.TrustedNodesFile)
	if err != nil {
		return nil, err
	}
	users := make([]broker.User, len(list))
	for i, t := range list {
		users[i] = broker.User{Node: t.Node, Keys: []string{t.Key.String()}}
	}
	tokens, err := u.n.tokens().List()
	for _, t := range tokens {
		users = append(users, broker.User{Node: t.Node, Keys: []string{t.Key.String()}, Newcomer: true})
	}
	return users, err
}

// watched is a file, or a folder, of which changes are seen.
type watched struct {
	path string
	seen fs.FileInfo // nil: it was not there
}

func (w *watched) look() { w.seen = stat(w.path) }

func (w *watched) changed() bool {
	now := stat(w.path)
	if now == nil || w.seen == nil {
		return now != w.seen
	}
	return !os.SameFile(now, w.seen) || !now.ModTime().Equal(w.seen.ModTime()) || now.Size() != w.seen.Size() || now.Mode() != w.seen.Mode()
}

// stat returns nil for a file that is not there. What else is wrong with it is found when it is
// read.
func stat(path string) fs.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}
