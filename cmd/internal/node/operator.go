package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
	"steward/process"
)

// operator carries out REQOpCommand, and owns who may use which method here. It begins with
// what the configuration says, and writes nothing back. It is safe for concurrent use.
type operator struct {
	n      *Node
	branch *process.Supervisor // of the subscribers
	make   func(process.Spec) (*process.Subscriber, error)
	turn   chan struct{} // one slot: held by who starts or stops a subscriber

	mu      sync.Mutex
	allowed map[message.Method][]message.Node // guarded by mu
}

func newOperator(n *Node) *operator {
	o := &operator{n: n, turn: make(chan struct{}, 1), allowed: map[message.Method][]message.Node{}}
	for method, nodes := range n.cfg.Subscribers {
		o.allowed[method] = listOf(nodes)
	}
	return o
}

func listOf(names []string) []message.Node {
	list := make([]message.Node, len(names))
	for i, name := range names {
		list[i] = message.Node(name)
	}
	return list
}

// list is who may use a method; a list is replaced and never changed.
func (o *operator) list(m message.Method) []message.Node {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.allowed[m]
}

// child is the subscriber of a method. started, if not nil, gets the first that is made.
func (o *operator) child(spec process.Spec, started chan<- *process.Subscriber) process.Child {
	return child(string(spec.Name), func() process.Service {
		s, err := o.make(spec)
		if err != nil {
			return process.ServiceFunc(func(context.Context) error { return err })
		}
		select {
		case started <- s:
		default:
		}
		return s
	})
}

// Tree is part of process.Operator, as are the methods below.
func (o *operator) Tree() process.Tree { return o.n.Tree() }

func (o *operator) StartSubscriber(ctx context.Context, m message.Method, allowed []message.Node) error {
	spec, err := o.spec(m)
	if err != nil {
		return err
	}
	if (m == message.MethodACLUpdate || m == message.MethodTrustUpdate) && len(allowed) > 0 {
		return fmt.Errorf("start subscriber of %s: who may use it is for startSub%s in the configuration alone", m, m)
	}
	if err := o.take(ctx); err != nil {
		return err
	}
	defer o.give()
	before := o.list(m)
	if len(allowed) == 0 {
		allowed = before
	}
	if len(allowed) == 0 {
		return fmt.Errorf("start subscriber of %s: nobody may use it here, so allowedNodes has to say who", m)
	}
	o.set(m, allowed)
	started := make(chan *process.Subscriber, 1)
	err = o.branch.Start(o.child(spec, started))
	switch {
	case errors.Is(err, process.ErrExists):
		o.n.log.Info("subscriber has another list", logattr.Method(m), "allowed", allowed)
		return nil // it runs, and asks the list each time
	case err != nil:
		o.set(m, before)
		return err
	}
	if err := listening(ctx, m, started); err != nil {
		return err
	}
	o.n.log.Info("subscriber started", logattr.Method(m), "allowed", allowed)
	o.n.router.Announce() // who waits for it need not wait for its timeout
	return nil
}

// listening waits until a subscriber that was started can be reached.
func listening(ctx context.Context, m message.Method, started <-chan *process.Subscriber) error {
	select {
	case s := <-started:
		select {
		case <-s.Ready():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("subscriber of %s is not ready yet: %w", m, ctx.Err())
		}
	case <-ctx.Done():
		return fmt.Errorf("subscriber of %s is not started yet: %w", m, ctx.Err())
	}
}

// replace puts lists of who may use a method in the place of others, all at once, and then starts and
// stops the subscribers that are on or off by that. The lists decide: a subscriber that does not come or
// go in time is told about, and is nothing to take them back for. After an error nothing has changed.
func (o *operator) replace(ctx context.Context, lists map[message.Method][]message.Node) error {
	if err := o.take(ctx); err != nil {
		return err
	}
	defer o.give()
	o.mu.Lock()
	maps.Copy(o.allowed, lists)
	o.mu.Unlock()
	announce := false
	for _, m := range slices.Sorted(maps.Keys(lists)) {
		started, err := o.follow(ctx, m, len(lists[m]) > 0)
		announce = announce || started
		if err != nil {
			o.n.log.Warn("subscriber does not follow its list yet", logattr.Method(m), logattr.Err(err))
		}
	}
	if announce {
		o.n.router.Announce() // who waits for it need not wait for its timeout
	}
	return nil
}

// follow starts or stops the subscriber of a method, unless it is so already.
func (o *operator) follow(ctx context.Context, m message.Method, on bool) (started bool, err error) {
	if !on {
		if err = o.branch.StopChild(ctx, string(m)); errors.Is(err, process.ErrNoProcess) {
			err = nil
		}
		return false, err
	}
	spec, err := o.spec(m)
	if err != nil {
		return false, err
	}
	subscriber := make(chan *process.Subscriber, 1)
	switch err = o.branch.Start(o.child(spec, subscriber)); {
	case errors.Is(err, process.ErrExists):
		return false, nil // it runs, and asks the list each time
	case err != nil:
		return false, err
	}
	return true, listening(ctx, m, subscriber)
}

func (o *operator) StopSubscriber(ctx context.Context, m message.Method) error {
	if _, err := o.spec(m); err != nil {
		return err
	}
	if m == message.MethodOpCommand {
		return fmt.Errorf("stop subscriber of %s: nothing could start it again but a restart of the node; startSub%s=RST keeps it off", m, m)
	}
	if err := o.take(ctx); err != nil {
		return err
	}
	defer o.give()
	err := o.branch.StopChild(ctx, string(m))
	if err == nil {
		o.n.log.Info("subscriber stopped", logattr.Method(m))
	}
	return err
}

func (o *operator) StartPublisher(_ context.Context, m message.Method, to message.Node) error {
	o.n.router.Wake(kvstore.Stream{Peer: to, Method: m})
	return nil
}

func (o *operator) StopPublisher(ctx context.Context, m message.Method, to message.Node) error {
	return o.n.router.Rest(ctx, kvstore.Stream{Peer: to, Method: m})
}

func (o *operator) ClearQueue(ctx context.Context, f process.QueueFilter, by string) ([]process.Cleared, error) {
	return o.n.router.Clear(ctx, f, by)
}

func (o *operator) spec(m message.Method) (process.Spec, error) {
	spec, ok := o.n.opts.Registry.Lookup(m)
	if !ok {
		return spec, fmt.Errorf("there is no method %s here%s", message.Quote(string(m)),
			wire.DidYouMean(string(m), o.n.opts.Registry.Names()))
	}
	return spec, nil
}

func (o *operator) set(m message.Method, allowed []message.Node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.allowed[m] = allowed
}

func (o *operator) take(ctx context.Context) error {
	select {
	case o.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another operation: %w", ctx.Err())
	}
}

func (o *operator) give() { <-o.turn }
