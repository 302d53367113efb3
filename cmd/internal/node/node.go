// Package node builds one running node from its configuration. It is the only place that
// knows every package; it joins them and decides nothing else.
//
// [New] acquires what a node holds (folders, store, broker, link) and gives it all back
// when one of them fails; [Node.Run] serves until its context ends; [Node.Close] gives back
// what New acquired. Any number of nodes can live in one process.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"steward/client"
	"steward/cmd/internal/audit"
	"steward/cmd/internal/sdnotify"
	"steward/config"
	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
	"steward/methods"
	"steward/process"
	"steward/process/ingress"
	"steward/process/transport/broker"
	"steward/process/transport/loopback"
	"steward/process/transport/nameguard"
	"steward/process/transport/natstransport"
	"steward/security"
	"steward/security/acl"
)

// Options are what a node needs besides its configuration.
type Options struct {
	Config         *config.Config
	Registry       *methods.Registry
	Log            *slog.Logger
	Stdout, Stderr io.Writer // for REQToConsole
	Version        string
	// Codec, if not nil, is shared with other nodes of this process: a compressor has a third of a MB.
	Codec *wire.Codec
	// Manager is the service manager that is told how the node is, nil for none.
	Manager *sdnotify.Manager
}

// Node is one node.
type Node struct {
	opts Options
	cfg  *config.Config
	// live is what Reload has put in the place of cfg. Only settings in reloadable are read from it.
	live atomic.Pointer[config.Config]
	self message.Node
	log  *slog.Logger
	// start tells this start of the node from all others.
	start string

	teardown []step

	commands process.Commands
	door     ingress.Access
	audit    *audit.Log // nil for none
	store    *kvstore.Store
	files    *os.Root
	broker   *broker.Server
	users    *brokerUsers // nil without logins
	// certificate is the file with that of the broker if it is made here, else empty.
	certificate string
	// signatures is nil when there are none.
	signatures *process.Signatures
	// quota is nil when there is no limit.
	quota *process.Quota
	// key and fleetKeys are nil as long as there are no signatures.
	key       *security.Key
	fleetKeys *security.FleetFile
	link      *natstransport.Transport
	guard     *nameguard.Transport
	transport process.Transport
	kernel    *errorkernel.Kernel
	rules     *acl.File
	teller    *errorkernel.Teller
	router    *process.Router
	progress  process.Progress
	observer  observer // of progress
	// errorsSent counts error messages that were put on the way to central.
	errorsSent atomic.Int64
	root       *process.Supervisor
	ids        atomic.Int64 // of the processes
	operator   *operator
	metrics    *metrics
	commits    prometheus.Histogram // nil without metrics
	closeOnce  sync.Once
	closeErr   error
}

// step is one named step of the teardown.
type step struct {
	name string
	do   func() error
}

// New acquires a node's resources and builds its process tree. The node is not on the air
// before Run.
func New(opts Options) (_ *Node, err error) {
	switch {
	case opts.Config == nil, opts.Registry == nil, opts.Log == nil, opts.Stdout == nil, opts.Stderr == nil:
		return nil, errors.New("new node: an option is missing")
	}
	n := &Node{opts: opts, cfg: opts.Config, self: opts.Config.NodeName, start: rand.Text()}
	n.observer.self, n.progress.Observer = n.self, &n.observer
	n.log = opts.Log.With(logattr.Node(n.self))
	n.live.Store(n.cfg)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, build := range []func() error{n.openKernel, n.checkFolders, n.openRules, n.findUsers, n.openFolders, n.openAudit, n.openStore, n.openSignatures, n.openBroker, n.openTransport, n.openTree} {
		if err := build(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// onClose pushes a step of the teardown.
func (n *Node) onClose(name string, do func() error) {
	n.teardown = append(n.teardown, step{name, do})
}

// Close gives back what New acquired, in reverse order. Run must have returned. It may be
// called twice.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		for i := len(n.teardown) - 1; i >= 0; i-- {
			s := n.teardown[i]
			if err := s.do(); err != nil {
				n.closeErr = errors.Join(n.closeErr, fmt.Errorf("%s: %w", s.name, err))
			}
		}
	})
	return n.closeErr
}

func (n *Node) checkFolders() error { return CheckFolders(n.cfg) }

func (n *Node) openFolders() error {
	if conn, err := net.Dial("unix", n.SocketPath()); err == nil {
		return errors.Join(fmt.Errorf("another steward is running on %s; stop it, or give this one folders of its own", n.SocketPath()), conn.Close())
	}
	if err := ingress.MakeFolder(n.cfg.SocketFolder, n.door); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for _, dir := range []string{n.cfg.DatabaseFolder, n.cfg.SubscribersDataFolder} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	folder, err := filepath.Abs(n.cfg.SubscribersDataFolder)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	files, err := os.OpenRoot(folder)
	if err != nil {
		return fmt.Errorf("open data folder: %w", err)
	}
	n.files = files
	n.onClose("data folder", files.Close)
	return nil
}

// openAudit begins the audit log. When it cannot be written, messages are delivered all the same,
// and central is told.
func (n *Node) openAudit() error {
	if n.cfg.AuditLogSize == 0 {
		return nil
	}
	log, err := audit.New(audit.Options{
		Path: audit.Path(n.cfg.DatabaseFolder, n.self), Size: int64(n.cfg.AuditLogSize) << 20, Files: n.cfg.AuditLogFiles, Self: n.self,
		Report: func(err error) {
			if err == nil {
				n.log.Info("audit log is written again")
				return
			}
			n.kernel.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "audit log", Err: err})
		},
	})
	if err != nil {
		return err
	}
	n.audit = log
	n.onClose("audit log", log.Close)
	return nil
}

func (n *Node) openStore() error {
	opts := kvstore.Options{
		Path: n.storePath(), Self: n.self,
		MaxMessages: int64(n.cfg.RingBufferSize), MaxBytes: n.cfg.RingBufferBytes,
	}
	opts.OnUntold = n.teller.Wake
	if n.cfg.PromHostAndPort != "" {
		n.commits = newCommitMetrics()
		opts.OnCommit = func(took time.Duration) { n.commits.Observe(took.Seconds()) }
	}
	if n.audit != nil {
		opts.Leaving = n.audit.Left
	}
	store, err := kvstore.Open(opts)
	if errors.Is(err, kvstore.ErrInUse) {
		return fmt.Errorf("%w: another steward runs with this folder; stop it, or give this one its own -databaseFolder", err)
	}
	if err != nil {
		return err
	}
	n.store = store
	n.onClose("store", store.Close)
	return nil
}

func (n *Node) storePath() string {
	return filepath.Join(n.cfg.DatabaseFolder, string(n.self)+".db")
}

func (n *Node) openTransport() error {
	opts := linkOptions(n.cfg, n.key)
	opts.Log, opts.Report = n.log.With(logattr.Process("transport")), n.kernel
	if n.broker != nil {
		opts.InProcess = n.broker
		// What is for a broker outside is of no use here.
		opts.NkeySeedFile, opts.CredsFile, opts.Key = "", "", nil
		if login := n.broker.Login(); login != nil {
			opts.Key = login
		}
	}
	link, err := natstransport.Open(opts)
	if err != nil {
		return err
	}
	n.link = link
	n.onClose("link to the broker", func() error { return closeBounded(link) })
	host, err := os.Hostname()
	if err != nil {
		n.log.Warn("this host has no name that others could be told", logattr.Err(err))
	}
	guard := nameguard.Options{
		Inner: link, Opened: link.Opened, Self: n.self, Host: host, PID: os.Getpid(), Report: n.kernel, Log: n.log.With(logattr.Process("transport")),
	}
	if n.signatures != nil {
		guard.Claims = n.signatures
	}
	n.guard, err = nameguard.New(guard)
	if err != nil {
		return err
	}
	n.onClose("name guard", func() error { return closeBounded(n.guard) })
	local, err := loopback.New(loopback.Options{Inner: n.guard, Mine: n.mine})
	if err != nil {
		return err
	}
	n.onClose("loopback", func() error { return closeBounded(local) })
	n.transport = local
	return nil
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	x, y := stat(a), stat(b)
	return x != nil && y != nil && os.SameFile(x, y)
}

// closeTimeout bounds each step of the teardown that could hang.
const closeTimeout = 5 * time.Second

func closeBounded(c interface{ Close(context.Context) error }) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.Close(ctx)
}

// mine reports whether a subject is answered by this node only: its methods and its acks.
// Others listen on the subject of its presence.
func (n *Node) mine(subject string) bool {
	if s, err := message.ParseSubject(subject); err == nil {
		return s.Node == n.self
	}
	return process.IsAckSubject(n.self, subject)
}

// openKernel comes first: everything else may report to it at any moment. What is reported
// before the node runs waits there.
func (n *Node) openKernel() error {
	kernel, err := errorkernel.New(errorkernel.Options{Node: n.self, Log: n.log, Send: n.sendError})
	if err != nil {
		return err
	}
	n.kernel = kernel
	n.teller, err = errorkernel.NewTeller(errorkernel.TellerOptions{Node: n.self, Log: n.log, Stored: n.untold, Tell: n.tell})
	return err
}

// untold returns the bad ends that are stored.
func (n *Node) untold(most int) ([]errorkernel.Stored, uint64, error) {
	ends, lost, err := n.store.Untold(most)
	events := make([]errorkernel.Stored, len(ends))
	for i, e := range ends {
		events[i] = errorkernel.Stored(e)
	}
	return events, lost, err
}

// tellBytes bounds the lines of one error message.
const tellBytes = 64 << 10

// tell puts lines about bad ends on the way to central.
func (n *Node) tell(ctx context.Context, lines []string, keys [][]byte, lost uint64) error {
	var msgs []message.Message
	for size := tellBytes; len(lines) > 0; lines = lines[1:] {
		if size += len(lines[0]); size > tellBytes {
			size = len(lines[0])
			msgs = append(msgs, n.errorMessage())
		}
		m := &msgs[len(msgs)-1]
		m.Data = append(m.Data, lines[0])
	}
	err := n.router.Tell(ctx, msgs, keys, lost)
	if err == nil {
		n.errorsSent.Add(int64(len(msgs)))
	}
	return err
}

// errorMessage is one for central without a text.
func (n *Node) errorMessage() message.Message {
	cfg := n.live.Load()
	return message.Message{
		To: n.cfg.CentralNodeName, Method: message.MethodErrorLog, ReplyMethod: message.MethodNone,
		ACKTimeout: cfg.ErrorMessageTimeout, Retries: cfg.ErrorMessageRetries, MethodTimeout: cfg.DefaultMethodTimeout,
	}
}

// sendError puts one error line on the way to central.
func (n *Node) sendError(ctx context.Context, text string) error {
	m := n.errorMessage()
	m.Data = []string{text}
	_, err := n.router.AcceptOwn(ctx, []message.Message{m})
	if err == nil {
		n.errorsSent.Add(1)
	}
	return err
}

// MetricsAddr is where metrics, health and readiness are served, or empty as long as they
// are not.
func (n *Node) MetricsAddr() string {
	if n.metrics == nil {
		return ""
	}
	addr, _ := n.metrics.addr.Load().(string)
	return addr
}

// Name is the node's name.
func (n *Node) Name() message.Node { return n.self }

// SocketPath is the unix socket that takes messages.
func (n *Node) SocketPath() string { return filepath.Join(n.cfg.SocketFolder, client.MessageSocket) }

// BrokerURL is where clients reach the embedded broker, or empty when there is none.
func (n *Node) BrokerURL() string {
	if n.broker == nil {
		return ""
	}
	return n.broker.ClientURL()
}

// Ready is closed when the node takes messages and its subscriptions are made. It does not
// wait for a broker.
func (n *Node) Ready() <-chan struct{} { return n.root.Ready() }

// Link reports whether there is a link to the broker on which the name is this node's own,
// and a channel that is closed when that changes.
func (n *Node) Link() (up bool, changed <-chan struct{}) { return n.transport.State() }

// LinkTrouble says why there is no link, as far as that is known, and what to do about it; nil when there is one.
func (n *Node) LinkTrouble() error {
	if n.guard.Conflict() {
		return errors.New("another node has its name")
	}
	return n.link.Trouble()
}

// Watch returns the steps of a message, or of all when id is zero.
func (n *Node) Watch(id message.ID) (steps <-chan process.Step, stop func()) {
	return n.progress.Watch(id)
}

// Tree returns the process tree as it stands.
func (n *Node) Tree() process.Tree { return n.root.Tree() }

// Run serves until ctx ends, and then stops everything in order. A nil error is a clean stop.
func (n *Node) Run(ctx context.Context) error {
	n.log.Info("node starts", "version", n.opts.Version)
	if aside := n.store.SetAside(); aside != "" {
		n.kernel.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "store",
			Err: fmt.Errorf("the database was damaged and is set aside as %s; this node begins with an empty one", aside)})
	}
	err := n.root.Serve(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	n.log.Info("node stopped", logattr.Err(err))
	return err
}
