package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"steward/internal/logattr"
	"steward/message"
	"steward/message/wire"
	"steward/methods"
	"steward/process"
)

// openTree builds the process tree. Children start in the order in which they stand here
// and stop in the reverse one: intake closes first, the error kernel last.
func (n *Node) openTree() error {
	codec := n.opts.Codec
	if plain := n.cfg.Compression == "off"; plain || codec == nil {
		codec = wire.NewCodec()
		codec.Plain = plain
	}
	publishers, err := n.supervisor("publishers", nil)
	if err != nil {
		return err
	}
	lanes, err := n.supervisor("lanes", nil)
	if err != nil {
		return err
	}
	n.router, err = process.NewRouter(process.RouterOptions{
		Self: n.self, Store: n.store, Transport: n.transport, Codec: codec, Signatures: n.signatures, Publishers: publishers,
		Kind: n.kind, Report: n.kernel, Progress: &n.progress, Log: n.log, Greet: n.guard.Greet,
		WindowMessages: n.cfg.WindowMessages, WindowBytes: n.cfg.WindowBytes,
	})
	if err != nil {
		return err
	}
	n.link.OnDenied(n.router.Denied)
	subscribers, err := n.subscribers(codec, lanes)
	if err != nil {
		return err
	}
	children := []process.Child{
		child("error kernel", func() process.Service { return n.kernel }),
		child("bad ends", func() process.Service { return n.teller }),
		child("publishers", func() process.Service { return publishers }),
		child("lanes", func() process.Service { return lanes }),
		child("subscribers", func() process.Service { return subscribers }),
		child("router", func() process.Service { return n.router }),
		child("inquiry", n.router.Inquiry),
		child("presence", n.router.Presence),
	}
	if n.opts.Manager.Watchdog() > 0 {
		children = slices.Insert(children, 1, child("watchdog", func() process.Service { return process.ServiceFunc(n.watchdog) }))
	}
	if n.signatures != nil {
		children = append(children, child("signatures", func() process.Service { return n.signatures }))
	}
	if n.certificate != "" {
		children = append(children, child("broker certificate", func() process.Service { return process.ServiceFunc(n.keepCertificate) }))
	}
	if n.users != nil || n.self == n.cfg.CentralNodeName {
		children = append(children, child("fleet", func() process.Service { return newFleetKeeper(n) }))
	}
	control, err := n.control()
	if err != nil {
		return err
	}
	socket, err := n.socket()
	if err != nil {
		return err
	}
	ways, err := n.ways()
	if err != nil {
		return err
	}
	children = append(children, child("control", func() process.Service { return control }), child("socket", socket), child("ways in", func() process.Service { return ways }))
	outside, err := n.outside()
	if err != nil {
		return err
	}
	children = append(children, child("outside", func() process.Service { return outside }), process.Child{
		Name: "ready", Restart: process.Transient, Grace: grace,
		Make: func() process.Service { return process.ServiceFunc(n.announce) },
	})
	n.root, err = process.NewSupervisor(process.SupervisorOptions{
		Name: string(n.self), Children: children, Report: n.kernel, Log: n.log, IDs: &n.ids,
		// What fails again and again at the root cannot be mended from within.
		MaxFailures: 5,
	})
	return err
}

// grace is how long a child of the root may take to stop; it contains the graces of its
// own children.
const grace = 15 * time.Second

func child(name string, make func() process.Service) process.Child {
	return process.Child{Name: name, Make: make, Restart: process.Permanent, Grace: grace}
}

// supervisor makes a branch whose children may fail for ever, ever more slowly.
func (n *Node) supervisor(name string, children []process.Child) (*process.Supervisor, error) {
	return process.NewSupervisor(process.SupervisorOptions{Name: name, Children: children, Report: n.kernel, Log: n.log, IDs: &n.ids})
}

func (n *Node) kind(m message.Method) message.Kind {
	if spec, ok := n.opts.Registry.Lookup(m); ok {
		return spec.Kind
	}
	return message.CommandACK
}

// subscribers makes the branch with a subscriber for each method that is not switched off.
func (n *Node) subscribers(codec *wire.Codec, lanes process.Starter) (*process.Supervisor, error) {
	op := newOperator(n)
	n.operator = op
	var err error
	n.quota, err = process.NewQuota(process.QuotaOptions{Messages: n.cfg.SenderMessagesPerSecond, Bytes: n.cfg.SenderBytesPerSecond, Report: n.kernel})
	if err != nil {
		return nil, err
	}
	env := &process.Env{Self: n.self, Central: n.cfg.CentralNodeName, Files: n.files, Stdout: n.opts.Stdout, Stderr: n.opts.Stderr, Operator: op, Rules: op, Fleet: op, Commands: n.commands}
	op.make = func(spec process.Spec) (*process.Subscriber, error) {
		return process.NewSubscriber(process.SubscriberOptions{
			Spec: spec, Env: env, Store: n.store, Send: n.router, Transport: n.transport, Codec: codec, Signatures: n.signatures, Quota: n.quota, Lanes: lanes,
			Allowed: func() process.Allowed { return op.judge(spec.Name) },
			Report:  n.kernel, Progress: &n.progress, Log: n.log, MaxParallel: n.cfg.MaxParallel, Start: n.start,
		})
	}
	var children []process.Child
	for _, spec := range n.opts.Registry.All() {
		if _, err := op.make(spec); err != nil {
			return nil, fmt.Errorf("%s: %w", spec.Name, err)
		}
		if len(op.list(spec.Name)) == 0 {
			n.log.Info("subscriber is off", logattr.Method(spec.Name))
			continue
		}
		children = append(children, op.child(spec, nil))
	}
	branch, err := n.supervisor("subscribers", children)
	op.branch = branch
	return branch, err
}

// defaults is what the node fills into a message.
func (n *Node) defaults() wire.Defaults {
	cfg := n.live.Load()
	return wire.Defaults{
		Self: n.self, Catalog: Catalog{n.opts.Registry},
		ACKTimeout: cfg.DefaultMessageTimeout, Retries: cfg.DefaultMessageRetries,
		MethodTimeout: cfg.DefaultMethodTimeout, MaxSize: n.cfg.MaxMessageSize,
	}
}

// Catalog shows a registry to the checks of incoming messages.
type Catalog struct{ Registry *methods.Registry }

// Method is part of wire.Catalog.
func (c Catalog) Method(name message.Method) (wire.MethodInfo, bool) {
	spec, ok := c.Registry.Lookup(name)
	return wire.MethodInfo{Kind: spec.Kind, Reply: spec.Reply, Args: spec.Args, MinArgs: spec.MinArgs}, ok
}

// Methods is part of wire.Catalog.
func (c Catalog) Methods() []message.Method { return c.Registry.Names() }

// outside makes the branch of what is of use but not needed: when its port is taken, the
// node goes on, and says so.
func (n *Node) outside() (*process.Supervisor, error) {
	var children []process.Child
	if n.cfg.PromHostAndPort != "" {
		n.metrics = newMetrics(n)
		children = append(children, child("metrics", func() process.Service { return n.metrics.server(n.cfg.PromHostAndPort) }))
	}
	if n.cfg.ProfilingPort != "" {
		children = append(children, child("profiling", func() process.Service { return profiling(n.cfg.ProfilingPort) }))
	}
	if every := n.cfg.StartPubREQHello; every > 0 {
		children = append(children, child("hello", func() process.Service { return n.hello(every) }))
	}
	children = append(children, child("old replies", func() process.Service {
		return process.ServiceFunc(func(ctx context.Context) error {
			sweepAsked(ctx, n.files, n.log.With(logattr.Process("old replies")))
			return nil
		})
	}))
	return n.supervisor("outside", children)
}

// helloPrefix stands before the version in a hello.
const helloPrefix = "steward "

// hello says at intervals that this node is there, for the first time when there is a link.
// A hello that finds no link is not kept.
func (n *Node) hello(every time.Duration) process.Service {
	return process.ServiceFunc(func(ctx context.Context) error {
		for up := false; !up; {
			var changed <-chan struct{}
			if up, changed = n.transport.State(); up {
				break
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			m := message.Message{To: n.cfg.CentralNodeName, Method: message.MethodHello, ReplyMethod: message.MethodNone,
				Data: []string{helloPrefix + n.opts.Version}, MethodTimeout: n.live.Load().DefaultMethodTimeout}
			if err := n.router.SendUnacked(&m); err != nil {
				n.log.Debug("hello not sent", logattr.Err(err))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
}
