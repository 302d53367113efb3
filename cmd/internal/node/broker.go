package node

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"

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
	opts := broker.Options{
		Addr: n.cfg.EmbeddedBroker, Name: string(n.self), Self: n.self,
		CertFile: n.cfg.EmbeddedBrokerCertFile, KeyFile: n.cfg.EmbeddedBrokerKeyFile, CAFile: n.cfg.EmbeddedBrokerCAFile,
		Insecure: n.cfg.EmbeddedBrokerInsecure == "yes", MaxConnections: n.cfg.EmbeddedBrokerMaxConnections,
		MaxPayload: broker.PayloadFor(n.cfg.MaxMessageSize),
		Log:        n.log.With(logattr.Process("broker")),
	}
	login := n.cfg.EmbeddedBrokerLogin == "yes" || n.cfg.EmbeddedBrokerLogin == "auto" && !broker.Loopback(opts.Addr)
	if login {
		n.users = &brokerUsers{n: n}
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

// usersEvery is how often the list of trusted keys is looked at.
const usersEvery = time.Second

// brokerUsers keeps who may log in to the embedded broker to what the list of trusted keys
// says. Its only goroutine is that of Serve, after read was called once.
type brokerUsers struct {
	n    *Node
	seen fs.FileInfo // of the list when it was read last; nil for none
	bad  string      // what was said last about a list that cannot be used
}

// Serve follows the list until ctx ends.
func (u *brokerUsers) Serve(ctx context.Context) error {
	tick := time.NewTicker(usersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			u.follow()
		}
	}
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

func (u *brokerUsers) changed() bool {
	now := stat(u.n.cfg.TrustedNodesFile)
	if now == nil || u.seen == nil {
		return now != u.seen
	}
	return !os.SameFile(now, u.seen) || !now.ModTime().Equal(u.seen.ModTime()) || now.Size() != u.seen.Size() || now.Mode() != u.seen.Mode()
}

func (u *brokerUsers) read() ([]broker.User, error) {
	u.seen = stat(u.n.cfg.TrustedNodesFile) // before it is read: what changes meanwhile is seen the next time
	list, err := security.ReadTrust(u.n.cfg.TrustedNodesFile)
	if err != nil {
		return nil, err
	}
	users := make([]broker.User, len(list))
	for i, t := range list {
		users[i] = broker.User{Node: t.Node, Keys: []string{t.Key.String()}}
	}
	return users, nil
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
