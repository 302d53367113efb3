package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"steward/client"
	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
	"steward/methods"
	"steward/process"
	"steward/process/control"
	"steward/process/ingress"
	"steward/process/transport/loopback"
	"steward/process/transport/memtransport"
)

// socketFolder is that of the node central, which runs as long as the tests do, as do ship1 and ship2. ship9 is never there.
var socketFolder string

func TestMain(m *testing.M) { goleak.VerifyTestMain(withNodes{m}) }

// withNodes runs tests with the nodes.
type withNodes struct{ m *testing.M }

func (w withNodes) Run() int {
	f, err := newFleet("central", "ship1", "ship2")
	code := 1
	if err == nil {
		socketFolder = f.nodes["central"].dir
		code = w.m.Run()
	}
	if err = errors.Join(err, f.close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// fleet is nodes of this process with a network in memory between them. All else of them is real: store, sockets,
// processes, methods and commands.
type fleet struct {
	dir   string
	net   *memtransport.Network
	codec *wire.Codec
	nodes map[message.Node]*node
}

// node is one of them; it keeps its disk while it is down.
type node struct {
	f    *fleet
	name message.Node
	dir  string // of all that it has, and its socket folder
	stop func() error
}

// newFleet starts nodes. It is to be closed in any case.
func newFleet(names ...message.Node) (*fleet, error) {
	f := &fleet{net: memtransport.New(memtransport.Options{}), codec: wire.NewCodec(), nodes: map[message.Node]*node{}}
	var err error
	if f.dir, err = os.MkdirTemp("", "client"); err != nil { // the path of a socket has to be short
		return f, err
	}
	for _, name := range names {
		f.nodes[name] = &node{f: f, name: name, dir: filepath.Join(f.dir, string(name))}
		if err := f.nodes[name].start(); err != nil {
			return f, err
		}
	}
	return f, nil
}

// fleetOf is newFleet for a test, with a client of the first node.
func fleetOf(t *testing.T, names ...message.Node) (*fleet, *client.Client) {
	t.Helper()
	f, err := newFleet(names...)
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return f, open(t, f.nodes[names[0]].dir)
}

// open returns a client that is closed with the test.
func open(t *testing.T, folder string) *client.Client {
	c := client.New(folder)
	t.Cleanup(c.Close)
	return c
}

func (f *fleet) close() error {
	var errs []error
	for _, n := range f.nodes {
		if n.stop != nil {
			errs = append(errs, n.stop())
		}
	}
	return errors.Join(append(errs, f.net.Close(context.Background()), os.RemoveAll(f.dir))...)
}

// silent takes events and does nothing.
type silent struct{}

func (silent) Report(errorkernel.Event) errorkernel.Action { return errorkernel.Continue }

// catalog shows the methods to the checks of incoming messages.
type catalog struct{ *methods.Registry }

func (c catalog) Method(name message.Method) (wire.MethodInfo, bool) {
	spec, ok := c.Lookup(name)
	return wire.MethodInfo{Kind: spec.Kind, Reply: spec.Reply, Args: spec.Args, MinArgs: spec.MinArgs}, ok
}

func (c catalog) Methods() []message.Method { return c.Names() }

// start starts the node, with its disk as it is, and returns when it takes messages.
func (n *node) start() (err error) {
	data := filepath.Join(n.dir, "var")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	files, err := os.OpenRoot(data)
	if err != nil {
		return err
	}
	store, err := kvstore.Open(kvstore.Options{Path: filepath.Join(n.dir, "a.db"), Self: n.name, MaxMessages: 10_000, MaxBytes: 1 << 30})
	if err != nil {
		return errors.Join(err, files.Close())
	}
	local, err := loopback.New(loopback.Options{Inner: n.f.net.Node(string(n.name)), Mine: func(subject string) bool {
		if s, err := message.ParseSubject(subject); err == nil {
			return s.Node == n.name
		}
		return process.IsAckSubject(n.name, subject)
	}})
	if err != nil {
		return errors.Join(err, store.Close(), files.Close())
	}
	release := func() error { return errors.Join(local.Close(context.Background()), store.Close(), files.Close()) }
	root, err := n.tree(store, files, local)
	if err != nil {
		return errors.Join(err, release())
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- root.Serve(ctx) }()
	n.stop = func() error {
		n.stop = nil
		cancel()
		err := <-over
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return errors.Join(err, release())
	}
	select {
	case <-root.Ready():
		return nil
	case err := <-over:
		over <- nil
		return fmt.Errorf("%s did not start: %w", n.name, err)
	}
}

// tree builds the processes, as the program does.
func (n *node) tree(store *kvstore.Store, files *os.Root, link process.Transport) (root *process.Supervisor, err error) {
	log := slog.New(slog.DiscardHandler)
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	supervisor := func(name string, children ...process.Child) *process.Supervisor {
		s, serr := process.NewSupervisor(process.SupervisorOptions{Name: name, Children: children, Report: silent{}, Log: log})
		err = errors.Join(err, serr)
		return s
	}
	service := func(name string, s process.Service) process.Child {
		return process.Child{Name: name, Make: func() process.Service { return s }, Restart: process.Permanent, Grace: 15 * time.Second}
	}
	publishers, lanes := supervisor("publishers"), supervisor("lanes")
	progress := &process.Progress{}
	router, rerr := process.NewRouter(process.RouterOptions{Self: n.name, Store: store, Transport: link, Codec: n.f.codec, Publishers: publishers,
		Kind: func(m message.Method) message.Kind { spec, _ := registry.Lookup(m); return spec.Kind }, Report: silent{}, Progress: progress, Log: log})
	if err = errors.Join(err, rerr); err != nil {
		return nil, err
	}
	env := &process.Env{Self: n.name, Central: "central", Files: files, Stdout: io.Discard, Stderr: io.Discard}
	var subscribers []process.Child
	for _, spec := range registry.All() {
		s, serr := process.NewSubscriber(process.SubscriberOptions{Spec: spec, Env: env, Store: store, Send: router, Transport: link, Codec: n.f.codec,
			Lanes: lanes, Report: silent{}, Progress: progress, Log: log, Allowed: func() process.Allowed {
				return func(from message.Node, m *message.Message) error {
					if from == "central" || m.IsReply() || spec.Access == process.AccessAll {
						return nil
					}
					return errors.New("for central only")
				}
			}})
		err = errors.Join(err, serr)
		subscribers = append(subscribers, service(string(spec.Name), s))
	}
	defaults := wire.Defaults{Self: n.name, Catalog: catalog{registry}, ACKTimeout: time.Second, Retries: 3, MethodTimeout: 10 * time.Second}
	socket, serr := ingress.NewSocket(ingress.Options{Path: filepath.Join(n.dir, client.MessageSocket), Accept: router.Submit, Log: log,
		Resolve: func(d []wire.Draft) ([]message.Message, error) { return wire.ResolveAll(d, defaults) }})
	questions, cerr := control.NewServer(control.Options{Path: filepath.Join(n.dir, client.ControlSocket), Store: store, Queue: router, Progress: progress, Log: log,
		Info: func() client.NodeInfo {
			up, _ := link.State()
			return client.NodeInfo{Node: n.name, Central: "central", Version: "test", Linked: up, DataFolder: files.Name()}
		},
		Tree:   func() process.Tree { return root.Tree() },
		Hellos: func() ([]control.Hello, error) { return nil, nil },
		Heard:  func() map[message.Node]time.Time { return nil },
		Keys:   func() (map[message.Node]client.Key, error) { return nil, nil },
		Errors: func(ctx context.Context, of message.Node, n int, follow bool, do func(string) error) error {
			errorLog := methods.ErrorLog{Folder: files.Name(), Node: of, Log: log}
			if follow {
				return errorLog.Follow(ctx, n, do)
			}
			return errorLog.Last(n, do)
		}})
	if err = errors.Join(err, serr, cerr); err != nil {
		return nil, err
	}
	root = supervisor(string(n.name), service("publishers", publishers), service("lanes", lanes), service("subscribers", supervisor("subscribers", subscribers...)),
		service("router", router), service("inquiry", router.Inquiry()), service("presence", router.Presence()),
		service("control", questions), service("socket", socket))
	return root, err
}
