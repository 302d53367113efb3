package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"steward/client"
	"steward/config"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
	"steward/methods"
	"steward/process"
	"steward/process/control"
	"steward/process/ingress"
	"steward/security"
)

// socket makes the unix socket.
func (n *Node) socket() (func() process.Service, error) {
	opts := n.socketOptions("socket")
	opts.Path, opts.Access = n.SocketPath(), n.door
	return checked(func() (process.Service, error) { return ingress.NewSocket(opts) })
}

func (n *Node) socketOptions(name string) ingress.Options {
	return ingress.Options{
		Accept:      n.router.Submit,
		Resolve:     n.resolve,
		IdleTimeout: n.cfg.SocketIdleTimeout,
		Report:      n.kernel,
		Log:         n.log.With(logattr.Process(name)),
	}
}

// control makes the branch of the operator's commands. When their socket cannot be made, the node goes on, says
// so, and tries again.
func (n *Node) control() (*process.Supervisor, error) {
	service, err := checked(func() (process.Service, error) {
		return control.NewServer(control.Options{
			Path: filepath.Join(n.cfg.SocketFolder, client.ControlSocket), Access: n.door,
			Info: n.info, Store: n.store, Queue: n.router, Progress: &n.progress, Tree: n.Tree, Hellos: n.hellos, Heard: n.observer.heard.all, Errors: n.errors, Keys: n.keysOfNodes,
			Log: n.log.With(logattr.Process("control")),
		})
	})
	if err != nil {
		return nil, err
	}
	return n.supervisor("control", []process.Child{child("control socket", service)})
}

func (n *Node) info() client.NodeInfo {
	linked, _ := n.Link()
	return client.NodeInfo{Node: n.self, Central: n.cfg.CentralNodeName, Version: n.opts.Version, Linked: linked,
		Signatures: n.cfg.Signatures, MethodTimeout: int(n.live.Load().DefaultMethodTimeout / time.Second), DataFolder: n.files.Name()}
}

// keysOfNodes says of which other nodes keys are known here, or tokens, and what of them.
func (n *Node) keysOfNodes() (map[message.Node]client.Key, error) {
	revoked, err := security.ReadTrust(RevokedFile(n.cfg))
	if err != nil {
		return nil, err
	}
	trusted, err := security.ReadTrust(n.cfg.TrustedNodesFile)
	if err != nil {
		return nil, err
	}
	var byFleet []security.Trusted
	if n.fleetKeys != nil {
		if fleet := n.fleetKeys.Now(); fleet != nil {
			byFleet, trusted = fleet.Revoked, append(trusted, fleet.Trusted...)
		}
	}
	tokens, err := n.tokens().List()
	if err != nil {
		return nil, err
	}
	all, gone := map[message.Node]client.Key{}, map[security.PublicKey]bool{}
	for _, t := range revoked {
		all[t.Node], gone[t.Key] = client.KeyRevoked, true
	}
	known := map[message.Node]bool{}
	for _, t := range trusted {
		known[t.Node] = true
	}
	for _, t := range byFleet {
		gone[t.Key] = true
		// Of a node with no key here that counts or did, nobody has said that it has no other one: central tells of those
		// that are trusted only where nodes talk to each other.
		if known[t.Node] {
			all[t.Node] = client.KeyRevoked
		}
	}
	for _, t := range tokens {
		if t.Used == nil && time.Now().Before(t.Expires) {
			all[t.Node] = client.KeyToken
		}
	}
	// On central, what stands on its list counts; on the others, what central says.
	for _, t := range trusted {
		if !gone[t.Key] || n.self == n.cfg.CentralNodeName || t.Node == n.cfg.CentralNodeName {
			all[t.Node] = client.KeyTrusted
		}
	}
	delete(all, n.self)
	return all, nil
}

// hellos returns the last hello of each node. What a node says of itself begins with its version.
func (n *Node) hellos() ([]control.Hello, error) {
	last, err := methods.Hellos(n.files)
	if err != nil {
		return nil, err
	}
	all := make([]control.Hello, len(last))
	for i, h := range last {
		all[i] = control.Hello{Node: h.Node, At: h.At, Text: h.Text}
		if rest, ok := strings.CutPrefix(h.Text, helloPrefix); ok {
			all[i].Version, all[i].Text, _ = strings.Cut(rest, " ")
		}
	}
	return all, nil
}

// errors reads the error log.
func (n *Node) errors(ctx context.Context, of message.Node, most int, follow bool, do func(line string) error) error {
	log := methods.ErrorLog{Folder: n.files.Name(), Node: of, Log: n.log.With(logattr.Process("control"))}
	if follow {
		return log.Follow(ctx, most, do)
	}
	return log.Last(most, do)
}

// ways makes the branch of the ways in besides the socket. When one of them does not work
// (its port is taken, its folder cannot be read), the node goes on, says so, and tries again.
func (n *Node) ways() (*process.Supervisor, error) {
	var children []process.Child
	add := func(name string, restart process.RestartRule, make func() (process.Service, error)) error {
		service, err := checked(make)
		if err != nil {
			return err
		}
		c := child(name, service)
		c.Restart = restart
		children = append(children, c)
		return nil
	}
	var errs []error
	if n.cfg.TCPListener != "" {
		opts := n.socketOptions("tcp listener")
		opts.Addr = n.cfg.TCPListener
		errs = append(errs, add("tcp listener", process.Permanent, func() (process.Service, error) { return ingress.NewSocket(opts) }))
	}
	if n.cfg.ReadFolder != "" {
		opts := n.fileOptions(n.cfg.ReadFolder)
		errs = append(errs, add("read folder", process.Permanent, func() (process.Service, error) { return ingress.NewFolder(opts) }))
	}
	if n.cfg.InFile != "" {
		opts := n.fileOptions(n.cfg.InFile)
		errs = append(errs, add("in file", process.Permanent, func() (process.Service, error) { return ingress.NewInFile(opts) }))
	}
	startup := startupFolder(n.cfg)
	if n.cfg.ReadFolder != "" && filepath.Clean(n.cfg.ReadFolder) == filepath.Clean(startup) {
		return nil, fmt.Errorf("readFolder and startupFolder are both %s: what is there would be put away and not be run at the next start", startup)
	}
	opts := n.fileOptions(startup)
	opts.Resolve = func(drafts []wire.Draft) ([]message.Message, error) {
		def := n.defaults()
		def.OnlySelf, def.Start = true, n.start
		return wire.ResolveAll(drafts, def)
	}
	errs = append(errs, add("startup folder", process.Temporary, func() (process.Service, error) { return ingress.NewStartup(opts) }))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n.supervisor("ways in", children)
}

func startupFolder(cfg *config.Config) string {
	return cmp.Or(cfg.StartupFolder, filepath.Join(cfg.ConfigFolder, "startup"))
}

func (n *Node) fileOptions(path string) ingress.FileOptions {
	return ingress.FileOptions{
		Path: path, Resolve: n.resolve, Stamp: n.store.Stamp, Accept: n.router.AcceptStamped, Accepted: n.accepted,
		Report: n.kernel, Log: n.log,
	}
}

// resolve makes messages of what came in, or refuses it.
func (n *Node) resolve(drafts []wire.Draft) ([]message.Message, error) {
	return wire.ResolveAll(drafts, n.defaults())
}

func (n *Node) accepted(id message.ID) (bool, error) {
	_, err := n.store.Sent(id)
	if errors.Is(err, kvstore.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// checked makes a service once, to see whether its options are right, and returns what makes
// it anew for each start.
func checked(make func() (process.Service, error)) (func() process.Service, error) {
	if _, err := make(); err != nil {
		return nil, err
	}
	return func() process.Service {
		s, err := make()
		if err != nil {
			return process.ServiceFunc(func(context.Context) error { return err })
		}
		return s
	}, nil
}
