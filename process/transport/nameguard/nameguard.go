// Package nameguard lets a node on the air only while its name is its own.
//
// Two nodes with one name, a machine that was cloned for instance, would both get and run
// what is sent to that name, and each would take the acks of the other. A [Transport] wraps
// the link to the broker. Before it lets anything through it asks on <node>.NAME, on which
// nobody but the holder of the name listens, whether there is such a node. The broker says
// at once that nobody listens, or the holder answers: then this node stands aside. It has
// no subscription in force, publishes nothing, says that it has no link, and asks again
// now and then. A node that has its name answers others, and asks at each connect and once a
// minute whether another one has it too: two that were apart may meet, and of two that
// started in one moment neither may have heard the other. The one that has had the
// name for longer keeps it.
//
// Nobody is made to stand aside by anything but an answer to a question of its own, sent to
// a subject that it has just made up: who may publish to a node, but not listen for it,
// cannot silence it. With [Claims] no answer counts that is not signed with a key of the node.
//
// One goroutine owns what is known about the name; it ends with Close.
package nameguard

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/transport/internal/linkstate"
	"steward/process/transport/internal/subjects"
)

// Claims signs what is said about a name, and checks what others say. *process.Signatures is one.
type Claims interface {
	// SignClaim returns a claim with a signature; it may use up the one that it gets.
	SignClaim(subject, reply string, claim []byte) []byte
	// CheckClaim says why a claim is not to be believed.
	CheckClaim(subject, reply string, claim []byte) error
}

// Options say whose name is guarded. All but Opened, Host, PID and Claims are needed.
type Options struct {
	// Inner is the link. It is not closed by this package.
	Inner process.Transport
	// Opened says whether Inner takes frames for publishing, and when that changes. It may do so
	// before it is up. Nil: when it is up.
	Opened func() (open bool, changed <-chan struct{})
	Self   message.Node
	// Host and PID tell people, on the other side, where this node runs.
	Host string
	PID  int
	// Claims proves who claims the name; nil: everybody may.
	Claims Claims
	// Report gets the conflicts.
	Report errorkernel.Reporter
	Log    *slog.Logger
}

// Transport is a process.Transport that is up while there is a link and the name is held.
type Transport struct {
	opts  Options
	name  string // the subject of questions; that of an answer has one part more
	token string // of this start

	stop  context.CancelFunc
	done  <-chan struct{} // closed by stop
	ended chan struct{}   // closed when run has returned
	heard chan heard

	state linkstate.State
	held  atomic.Bool // lets Publish pass

	mu      sync.Mutex      // guards the fields below; held while inner is told about subscriptions, not by handlers
	subs    []*subscription // in order of creation
	added   int             // counts subscriptions ever made
	joined  bool            // the subscriptions are those of inner too
	open    bool            // inner has them, on a link that is open
	greet   *greeting
	asked   process.Subscription // to questions, while joined
	answers process.Subscription
	seen    time.Time // when another node with this name was heard of last
	aside   bool      // the name is another node's; changed by run alone
	closed  bool
}

var _ process.Transport = (*Transport)(nil)

// greeting is what is said first on each link.
type greeting struct {
	subject string
	data    []byte
}

// New wraps o.Inner and begins to ask for the name. It waits for nothing. End it with Close.
func New(o Options) (*Transport, error) {
	switch {
	case o.Inner == nil, o.Report == nil, o.Log == nil:
		return nil, errors.New("name guard: an option is missing")
	}
	if err := o.Self.Check(); err != nil {
		return nil, fmt.Errorf("name guard: %w", err)
	}
	if o.Opened == nil {
		o.Opened = o.Inner.State
	}
	ctx, stop := context.WithCancel(context.Background())
	t := &Transport{
		opts: o, name: nameSubject(o.Self), token: rand.Text(),
		stop: stop, done: ctx.Done(), ended: make(chan struct{}), heard: make(chan heard),
	}
	var err error
	if t.answers, err = o.Inner.Subscribe(t.name+".*", t.answered); err != nil {
		stop()
		return nil, fmt.Errorf("name guard: %w", err)
	}
	go t.run(ctx)
	return t, nil
}

// nameSubject is where the holder of a name is asked. Answers come to subjects below it, so
// that a node needs no permission beyond that for its own name.
func nameSubject(n message.Node) string { return string(n) + ".NAME" }

// Conflict reports whether another node has this node's name, or was heard to want it in
// the last few minutes.
func (t *Transport) Conflict() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.aside || t.recent()
}

// recent is called with mu held.
func (t *Transport) recent() bool { return !t.seen.IsZero() && time.Since(t.seen) < memory }

// subscription outlives the times aside; for each time on the air it has one of inner.
type subscription struct {
	transport *Transport
	pattern   string
	handle    func(process.Delivery)
	closed    atomic.Bool
	// turn has room for the one call under way, which may have begun when the node was on
	// the air before.
	turn  chan struct{}
	inner process.Subscription // guarded by Transport.mu; nil while aside
}

// Subscribe takes frames while the name is held.
func (t *Transport) Subscribe(pattern string, handle func(process.Delivery)) (process.Subscription, error) {
	if err := subjects.CheckPattern(pattern); err != nil {
		return nil, err
	}
	s := &subscription{transport: t, pattern: pattern, handle: handle, turn: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("subscribe %s: %w", pattern, net.ErrClosed)
	}
	if t.joined {
		inner, err := t.opts.Inner.Subscribe(pattern, s.deliver)
		if err != nil {
			return nil, err
		}
		s.inner = inner
	}
	t.subs = append(t.subs, s)
	t.added++
	return s, nil
}

func (s *subscription) deliver(d process.Delivery) {
	select {
	case s.turn <- struct{}{}:
	case <-s.transport.done:
		return
	}
	defer func() { <-s.turn }()
	if !s.closed.Load() {
		s.handle(d)
	}
}

// Close ends the subscription without waiting for a call under way.
func (s *subscription) Close() {
	t := s.transport
	s.closed.Store(true)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = slices.DeleteFunc(t.subs, func(other *subscription) bool { return other == s })
	if s.inner != nil {
		s.inner.Close()
	}
}

// join puts all subscriptions in force, that to questions first, and returns how many there
// have ever been.
func (t *Transport) join() (added int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, net.ErrClosed
	}
	t.joined = true
	if t.asked, err = t.opts.Inner.Subscribe(t.name, t.question); err != nil {
		return 0, err
	}
	for _, s := range t.subs {
		if s.inner, err = t.opts.Inner.Subscribe(s.pattern, s.deliver); err != nil {
			return 0, err
		}
	}
	t.begin()
	return t.added, nil
}

// begin lets frames out, the greeting first. The link is open and was told of all subscriptions. It
// is called with mu held.
func (t *Transport) begin() {
	t.open = !t.closed
	t.held.Store(t.open)
	t.sayHello()
}

// sayHello is called with mu held.
func (t *Transport) sayHello() {
	if t.greet == nil || !t.open {
		return
	}
	if err := t.opts.Inner.Publish(t.greet.subject, "", t.greet.data); err != nil { // no link: said on the next one
		t.opts.Log.Debug("greeting not sent", logattr.Subject(t.greet.subject), logattr.Err(err))
	}
}

// Greet publishes data on subject now, if the node is on the air, and from now on first of all each
// time that it gets there. It does not wait for the link to be up: that takes a round trip, and
// whoever gets it finds all subscriptions in force.
func (t *Transport) Greet(subject string, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.greet = &greeting{subject, data}
	t.sayHello()
}

// leave takes the node off the air.
func (t *Transport) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held.Store(false)
	t.state.Set(false)
	t.joined, t.open = false, false
	if t.asked != nil {
		t.asked.Close()
		t.asked = nil
	}
	for _, s := range t.subs {
		if s.inner != nil {
			s.inner.Close()
			s.inner = nil
		}
	}
}

// up says that there is a link, unless the transport was closed meanwhile or there are more
// subscriptions than those known to be in force. It returns how many there are.
func (t *Transport) up(added int) (now int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.added != added {
		return t.added, t.closed
	}
	t.state.Set(true)
	return added, true
}

// Publish passes on what may be sent under the name.
func (t *Transport) Publish(subject, reply string, data []byte) error {
	if !t.held.Load() {
		return process.ErrOffline
	}
	return t.opts.Inner.Publish(subject, reply, data)
}

// Flush is that of the link, as long as the name is held.
func (t *Transport) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !t.held.Load() {
		return process.ErrOffline
	}
	return t.opts.Inner.Flush(ctx)
}

// State reports whether there is a link and the name is held.
func (t *Transport) State() (up bool, changed <-chan struct{}) { return t.state.Get() }

// MaxPayload is that of the link.
func (t *Transport) MaxPayload() int { return t.opts.Inner.MaxPayload() }

// Close takes the node off the air and waits for the transport's own goroutine, or until
// ctx ends. It does not wait for handler calls under way, and does not close the link. It
// may be called twice, and not by a handler.
func (t *Transport) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.leave()
	t.answers.Close()
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close name guard: the link is still busy: %w", ctx.Err())
	}
}

// heard is what came in about the name.
type heard struct {
	to    string      // the last part of the subject it came to; empty: it is a question
	reply string      // where a question wants its answer
	claim *wire.Claim // nil: nobody listens
}

// question takes what arrives on the subject of the name, our own questions among it.
func (t *Transport) question(d process.Delivery) {
	if claim := t.claim(d); claim != nil {
		t.hear(heard{reply: d.Reply, claim: claim})
	}
}

func (t *Transport) answered(d process.Delivery) {
	h := heard{to: d.Subject[strings.LastIndexByte(d.Subject, '.')+1:]}
	if !d.NoResponders {
		if h.claim = t.claim(d); h.claim == nil {
			return
		}
	}
	t.hear(h)
}

// claim returns what somebody else says about the name; nil when it makes no sense or is not
// to be believed, or is from here.
func (t *Transport) claim(d process.Delivery) *wire.Claim {
	claim, err := wire.DecodeClaim(d.Data)
	if err != nil {
		t.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "transport", Err: fmt.Errorf("a claim to the name of this node, %s, is not understood: %w",
			t.opts.Self, err)})
		return nil
	}
	if claim.Token == t.token {
		return nil
	}
	if t.opts.Claims != nil {
		if err := t.opts.Claims.CheckClaim(d.Subject, d.Reply, d.Data); err != nil {
			t.opts.Report.Report(errorkernel.Event{Class: errorkernel.Unproven, Process: "transport", Err: fmt.Errorf("a claim to the name of this node, %s, by process id %d on host %s, is not believed: %w",
				t.opts.Self, claim.PID, cmp.Or(claim.Host, "?"), err)})
			return nil
		}
	}
	return claim
}

func (t *Transport) hear(h heard) {
	select {
	case t.heard <- h:
	case <-t.done:
	}
}
