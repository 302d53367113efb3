package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"steward/config"
	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/process/transport/broker"
	"steward/security"
)

// BrokerDoor says what the embedded broker has for who comes: TLS, and a login without which nobody gets in.
func BrokerDoor(cfg *config.Config) (tls, login bool) {
	tls = cfg.EmbeddedBrokerCertFile != "" || makesCertificate(cfg)
	login = cfg.EmbeddedBrokerLogin == "yes" || cfg.EmbeddedBrokerLogin == "auto" && (!broker.Loopback(cfg.EmbeddedBroker) || cfg.Signatures == "require")
	return tls, login
}

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
		Refused:    n.brokerRefused,
		Log:        n.log.With(logattr.Process("broker")),
	}
	_, login := BrokerDoor(n.cfg)
	if login {
		n.users = &brokerUsers{n: n, trusted: watched{path: n.cfg.TrustedNodesFile}, tokens: watched{path: string(n.tokens())}, refusals: make(chan refusal, refusalsWaiting)}
		users, err := n.users.read()
		if err != nil {
			return fmt.Errorf("who may log in to the embedded broker: %w", err)
		}
		n.users.note(users, time.Time{})
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
	// known says since when a key may log in: the zero time for those of the start.
	known map[string]time.Time
	// refusals are what the broker has refused, until it is known whether it did so too early.
	refusals chan refusal
}

// refusal is a line of the broker about what it did not allow.
type refusal struct {
	line string
	what broker.Refusal
	at   time.Time
}

// refusalLag is how late the broker may be in telling of a refusal.
const refusalLag = time.Second

// refusalsWaiting bounds the refusals that wait.
const refusalsWaiting = 64

// brokerRefused takes a line of the broker about what it did not allow somebody. It does not block.
func (n *Node) brokerRefused(line string, what broker.Refusal) {
	if n.users != nil {
		select {
		case n.users.refusals <- refusal{line, what, time.Now()}:
			return
		default:
		}
	}
	n.reportRefusal(line, what)
}

func (n *Node) reportRefusal(line string, what broker.Refusal) {
	process := "broker"
	switch what { // apart, so that strangers in whatever number do not cover up what a node tries
	case broker.RefusedTLS:
		process = "broker TLS"
	case broker.RefusedLogin:
		process = "broker login"
	}
	n.kernel.Report(errorkernel.Event{Class: errorkernel.Refused, Process: process, Err: errors.New(line)})
}

// judge reports a refusal, unless it was one of a key that had just been put on a list: its node tries again, and
// is let in. Such a list is read now.
func (u *brokerUsers) judge(r refusal) {
	u.follow()
	key := broker.RefusedKey(r.line)
	if since, ok := u.known[key]; ok && r.at.Before(since.Add(refusalLag)) {
		u.n.log.Info("a login came before its key was read; the next one will do", logattr.Process("broker"), "line", r.line)
		return
	}
	u.n.reportRefusal(r.line+u.revoked(key), r.what)
}

// revoked says of which node a key was that was revoked here, or nothing.
func (u *brokerUsers) revoked(key string) string {
	list, err := security.ReadTrust(RevokedFile(u.n.cfg))
	if err != nil || key == "" {
		return ""
	}
	i := slices.IndexFunc(list, func(t security.Trusted) bool { return t.Key.String() == key })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("; that is a key of %s, which was revoked here: steward revoke", list[i].Node)
}

// note remembers since when keys may log in.
func (u *brokerUsers) note(users []broker.User, since time.Time) {
	before := u.known
	u.known = make(map[string]time.Time, len(users))
	for _, user := range users {
		for _, k := range user.Keys {
			u.known[k] = since
			if was, ok := before[k]; ok {
				u.known[k] = was
			}
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
		u.note(users, time.Now())
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
