package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/message/wire"
	"steward/methods"
)

// localNodes are nodes that run in this process, each in a folder of its own below dir.
type localNodes struct {
	s     streams
	dir   string
	codec *wire.Codec // of all of them; nil: each has its own

	mu    sync.Mutex // guards nodes
	nodes []*localNode
}

// localNode is one of them.
type localNode struct {
	*node.Node
	cfg  *config.Config
	stop func() error
}

// start runs a node, and returns when it takes messages. It may be called by many goroutines at once.
func (l *localNodes) start(ctx context.Context, name string, args ...string) (*localNode, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(l.dir, name)
	args = append([]string{
		"-nodeName=" + name, "-configFolder=" + filepath.Join(home, "etc"), "-socketFolder=" + filepath.Join(home, "tmp"),
		"-databaseFolder=" + filepath.Join(home, "lib"), "-subscribersDataFolder=" + filepath.Join(home, "var"),
		"-promHostAndPort=", "-logLevel=warn",
	}, args...)
	cfg, err := config.Load(args, nil, configMethods(registry))
	if err != nil {
		return nil, err
	}
	log := newLogger(l.s.err, cfg)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	n, err := node.New(node.Options{Config: cfg, Registry: registry, Log: log, Stdout: l.s.out, Stderr: l.s.err, Version: version(), Codec: l.codec})
	if err != nil {
		return nil, err
	}
	running := l.serve(n)
	running.cfg = cfg
	select {
	case <-n.Ready():
		return running, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s did not start: %w", name, ctx.Err())
	}
}

// serve runs a node until its stop is called.
func (l *localNodes) serve(n *node.Node) *localNode {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = n.Run(ctx) })
	running := &localNode{Node: n, stop: sync.OnceValue(func() error {
		cancel()
		wg.Wait()
		return errors.Join(err, n.Close())
	})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = append(l.nodes, running)
	return running
}

// connected waits until the node has a link to its broker.
func (n *localNode) connected(ctx context.Context) error {
	for {
		up, changed := n.Link()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s found no broker: %w", n.Name(), ctx.Err())
		}
	}
}

// close stops all nodes, the last one first, so many at a time.
func (l *localNodes) close(atATime int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for len(l.nodes) > 0 {
		last := l.nodes[max(0, len(l.nodes)-atATime):]
		l.nodes = l.nodes[:len(l.nodes)-len(last)]
		errs = append(errs, inParallel(len(last), len(last), func(i int) error { return last[i].stop() }))
	}
	return errors.Join(errs...)
}

// inParallel calls do with 0 to n-1, so many calls at a time, until one returns an error.
func inParallel(n, atATime int, do func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Bool
	errs := make([]error, min(n, atATime))
	for w := range errs {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !failed.Load(); i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					errs[w] = err
					failed.Store(true)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
