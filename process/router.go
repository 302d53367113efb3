package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// Outbox is what delivery needs of the store on the sending side. *kvstore.Store is one.
type Outbox interface {
	Accept([]message.Message) ([]message.ID, error)
	Submit([]message.Message) ([]message.ID, <-chan error)
	AcceptOwn([]message.Message) ([]message.ID, error)
	AcceptStamped([]message.Message) ([]message.ID, error)
	Stamp(*message.Message)
	AcceptNoting(part message.Message, lane kvstore.Stream, arrival uint64, mark kvstore.Mark) ([]message.ID, error)
	Note(m *message.Message, code message.Code, why string) error
	Streams() ([]kvstore.StreamInfo, error)
	Read(id kvstore.Stream, from uint64, n, size int) (kvstore.StreamInfo, []kvstore.Queued, error)
	Settle(id kvstore.Stream, settled []kvstore.Settled) <-chan error
	Remove(id kvstore.Stream, settled []kvstore.Settled) ([]message.ID, error)
	Sent(message.ID) (kvstore.Life, error)
	Retry(ids []message.ID) (retried []kvstore.Retried, rest []message.ID, err error)
	Tell(msgs []message.Message, told [][]byte, lost uint64) ([]message.ID, error)
	Unschedule(id message.ID, fits func(kvstore.Scheduled) bool, why string) ([]kvstore.Scheduled, error)
	Awaited() ([]message.Node, error)
	AwaitedFrom(peer message.Node, after message.ID, n int) ([]message.ID, error)
	Known(by message.Node, ids []message.ID) ([]kvstore.Fate, error)
	EndAwaited(peer message.Node, fates []kvstore.Fate) (ended []message.ID, err error)
}

// Starter starts supervised processes. *Supervisor is one.
type Starter interface{ Start(Child) error }

// StartStopper starts supervised processes, and stops those that it has started. *Supervisor
// is one.
type StartStopper interface {
	Starter
	StopChild(ctx context.Context, name string) error
}

// RouterOptions configure a router. All but Signatures, Greet, the windows, the times and Now are needed.
type RouterOptions struct {
	Self      message.Node
	Store     Outbox
	Transport Transport
	Codec     *wire.Codec
	// Signatures proves who sends; nil: everything is taken for what it says to be.
	Signatures *Signatures
	// Publishers runs the publishers, one per stream.
	Publishers StartStopper
	// Kind returns the kind of a method, with ACK. Methods not known here go as commands.
	Kind     func(message.Method) message.Kind
	Report   errorkernel.Reporter
	Progress *Progress
	Log      *slog.Logger
	// Greet, if not nil, publishes data on subject now, if there is a link, and from now on at the
	// beginning of each, before State of the transport tells of it. Else presence is told when State does.
	Greet func(subject string, data []byte)

	// WindowMessages and WindowBytes bound what one publisher has in flight (default 4,096
	// messages, 4 MiB), FrameBytes one frame before compression (default 256 KiB).
	WindowMessages, WindowBytes, FrameBytes int
	// Idle is how long a publisher without work stays (default 1 minute).
	Idle time.Duration
	// AskEvery is how often receivers are asked about requests to which they have not replied,
	// besides when they say that they are there (default 10 minutes).
	AskEvery time.Duration
	// Now is the clock on the wall, by which messages expire (default time.Now). It may jump:
	// all waiting goes by another one.
	Now func() time.Time
}

// Router takes accepted messages and keeps one publisher for each stream in which
// something waits. It is a Service; Accept works as soon as it was made, what was accepted
// before it is served waits.
type Router struct {
	opts RouterOptions
	// token makes the ack subjects of this run different from those of any other.
	token string
	spoke chan struct{} // one slot: there is something in heard
	// answers are those to the questions of the inquiry.
	answers chan heardAnswer

	mu      sync.Mutex // guards all below
	serving bool
	count   uint64
	routes  map[kvstore.Stream]*route
	byToken map[string]*route
	peers   map[message.Node]*peer
	heard   map[message.Node]bool // peers that said that they are there, for the inquiry

	sending sync.Mutex  // held while a message without ACK is sent, so that they go in the order of their counts
	unacked unackedSent // guarded by sending
}

// route is what a stream keeps while its publisher comes and goes.
type route struct {
	stream kvstore.Stream
	token  string
	wake   chan struct{} // one slot: something was put on the stream
	here   chan struct{} // one slot: the peer says that it is there
	// cleared has one slot: messages were taken off the stream by an operator.
	cleared chan struct{}
	acks    chan ackOrNothing // answers to frames
	asked   chan question     // who wants to know how it stands
	// epoch is that of the stream when it is not that of the store, 0 otherwise. Only the
	// publisher under way uses it.
	epoch uint64
	// delivered and deliveredBytes count what was acknowledged.
	delivered, deliveredBytes atomic.Uint64
	// listens: it counts among the routes of its peer. Guarded by the router's mu.
	listens bool
}

// ackOrNothing is an ack, or why it is not believed, or that the broker did not let the frame through, or
// the link's notice that nobody listens (nil).
type ackOrNothing struct {
	denied   bool
	ack      *wire.Ack
	proof    proof
	unproven *unproven
}

// peer is a node to which something is under way, or from which a reply is awaited: its presence is
// listened for.
type peer struct {
	routes  int
	awaited bool
	sub     Subscription
}

// NewRouter checks the options and returns a router.
func NewRouter(opts RouterOptions) (*Router, error) {
	switch {
	case opts.Store == nil, opts.Transport == nil, opts.Codec == nil, opts.Publishers == nil,
		opts.Kind == nil, opts.Report == nil, opts.Progress == nil, opts.Log == nil:
		return nil, errors.New("router: an option is missing")
	}
	if err := opts.Self.Check(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	orDefault(&opts.WindowMessages, 4096)
	orDefault(&opts.WindowBytes, 4<<20)
	orDefault(&opts.FrameBytes, 256<<10)
	orDefault(&opts.Idle, time.Minute)
	orDefault(&opts.AskEvery, 10*time.Minute)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Router{
		opts:    opts,
		spoke:   make(chan struct{}, 1),
		answers: make(chan heardAnswer, answersWaiting),
		heard:   map[message.Node]bool{},
		token:   strings.ToLower(rand.Text()[:12]),
		routes:  map[kvstore.Stream]*route{},
		byToken: map[string]*route{},
		peers:   map[message.Node]*peer{},
	}, nil
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Serve listens for acks and starts a publisher for each stream that waits in the store.
func (r *Router) Serve(ctx context.Context) error {
	sub, err := r.opts.Transport.Subscribe(ackSubject(r.opts.Self, "*"), r.answer)
	if err != nil {
		return fmt.Errorf("subscribe to acks: %w", err)
	}
	defer sub.Close()
	waiting, err := r.opts.Store.Streams()
	if err != nil {
		return fmt.Errorf("look for waiting messages: %w", err)
	}
	r.mu.Lock()
	r.serving = true
	started := make([]kvstore.Stream, 0, len(r.routes))
	for id := range r.routes {
		started = append(started, id)
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.serving = false
		r.mu.Unlock()
	}()
	for _, info := range waiting {
		r.Wake(info.Stream)
	}
	for _, id := range started {
		r.Wake(id)
	}
	<-ctx.Done()
	return nil
}

// Accept takes messages over: when it returns without an error they are on disk, and will
// be delivered or reported. The order of msgs is the order of their streams. Messages that
// want no ACK are sent at once and not kept.
func (r *Router) Accept(_ context.Context, msgs []message.Message) ([]message.ID, error) {
	return r.accept(msgs, r.opts.Store.Accept)
}

// Submit is Accept for who has more to do meanwhile: it returns at once, and what it returns
// does when the messages are on disk, or are not accepted. It has to be called, once, in any
// goroutine. The order of calls of Submit is the order of the messages.
func (r *Router) Submit(_ context.Context, msgs []message.Message) (accepted func() ([]message.ID, error)) {
	var done <-chan error
	ids, finish, err := r.split(msgs, func(kept []message.Message) (ids []message.ID, err error) {
		ids, done = r.opts.Store.Submit(kept)
		return ids, nil
	})
	return func() ([]message.ID, error) {
		if done != nil {
			err = <-done
		}
		if err != nil {
			return nil, err
		}
		return finish(ids), nil
	}
}

// AcceptStamped is Accept for messages that have their ids from the store's Stamp.
func (r *Router) AcceptStamped(_ context.Context, msgs []message.Message) ([]message.ID, error) {
	return r.accept(msgs, r.opts.Store.AcceptStamped)
}

// AcceptOwn is Accept for replies and errors of the node itself, for which a part of the
// ring buffer is kept free.
func (r *Router) AcceptOwn(_ context.Context, msgs []message.Message) ([]message.ID, error) {
	return r.accept(msgs, r.opts.Store.AcceptOwn)
}

// Tell is AcceptOwn for messages about bad ends, which the store forgets in the same commit.
func (r *Router) Tell(_ context.Context, msgs []message.Message, told [][]byte, lost uint64) error {
	_, err := r.accept(msgs, func(msgs []message.Message) ([]message.ID, error) { return r.opts.Store.Tell(msgs, told, lost) })
	return err
}

// AcceptNoting is Accept for one message that wants an ACK, and notes in the same commit how
// far the run has come that made it.
func (r *Router) AcceptNoting(_ context.Context, part message.Message, lane kvstore.Stream, arrival uint64, mark kvstore.Mark) error {
	_, err := r.accept([]message.Message{part}, func(msgs []message.Message) ([]message.ID, error) {
		return r.opts.Store.AcceptNoting(msgs[0], lane, arrival, mark)
	})
	return err
}

func (r *Router) accept(msgs []message.Message, store func([]message.Message) ([]message.ID, error)) ([]message.ID, error) {
	ids, finish, err := r.split(msgs, store)
	if err != nil {
		return nil, err
	}
	return finish(ids), nil
}

// split hands to store those messages that want an ACK. What has to be done once they are on disk is
// finish, which returns the ids of all.
func (r *Router) split(msgs []message.Message, store func([]message.Message) ([]message.ID, error)) (ids []message.ID, finish func([]message.ID) []message.ID, err error) {
	kept := msgs
	if slices.ContainsFunc(msgs, func(m message.Message) bool { return m.ACKTimeout <= 0 }) {
		kept = slices.DeleteFunc(slices.Clone(msgs), func(m message.Message) bool { return m.ACKTimeout <= 0 })
	}
	if len(kept) > 0 {
		if ids, err = store(kept); err != nil {
			return nil, nil, err
		}
	}
	return ids, func(ids []message.ID) []message.ID {
		for i := range kept {
			r.opts.Progress.step(Step{ID: ids[i], What: StepAccepted, Peer: kept[i].To, Method: kept[i].Method})
		}
		r.wakeAll(kept)
		if len(kept) == len(msgs) {
			return ids
		}
		return r.sendRest(msgs, ids)
	}, nil
}

// sendRest sends those of msgs that want no ACK, and puts their ids among those of the others.
func (r *Router) sendRest(msgs []message.Message, ids []message.ID) []message.ID {
	all := make([]message.ID, len(msgs))
	for i := range msgs {
		m := &msgs[i]
		if m.ACKTimeout > 0 {
			all[i], ids = ids[0], ids[1:]
			continue
		}
		err := r.SendUnacked(m)
		all[i] = m.ID
		code, why := message.CodeDone, ""
		if err != nil {
			code, why = message.CodeUnreachable, err.Error()
			r.report(errorkernel.GivenUp, m, fmt.Errorf("%s: %w", code, err))
		}
		if err := r.opts.Store.Note(m, code, why); err != nil {
			r.report(errorkernel.StoreFailed, m, err)
		}
	}
	return all
}

func (r *Router) report(class errorkernel.Class, m *message.Message, err error) {
	r.opts.Report.Report(errorkernel.Event{Class: class, Process: "router", Err: err, ID: m.ID, From: m.From,
		Method: m.Method, Subject: string(m.To) + "." + string(m.Method)})
}

func (r *Router) wakeAll(msgs []message.Message) {
	var last kvstore.Stream
	for i := range msgs {
		if id := (kvstore.Stream{Peer: msgs[i].To, Method: msgs[i].Method}); id != last {
			r.Wake(id)
			last = id
		}
	}
}

// Wake tells the publisher of a stream that something was put on it, and starts it if
// there is none.
func (r *Router) Wake(id kvstore.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rt := r.routes[id]
	if rt == nil {
		r.count++
		rt = &route{
			stream:  id,
			token:   r.token + strconv.FormatUint(r.count, 36),
			wake:    make(chan struct{}, 1),
			here:    make(chan struct{}, 1),
			cleared: make(chan struct{}, 1),
			acks:    make(chan ackOrNothing, 64),
			asked:   make(chan question),
		}
		r.routes[id] = rt
		if r.serving {
			r.start(rt)
		}
		return
	}
	notify(rt.wake)
	if r.serving && r.byToken[rt.token] == nil {
		r.start(rt)
	}
}

// wakeNotices starts the publisher of what the store has put in the place of replies that were
// given up, if there is any.
func (r *Router) wakeNotices(peer message.Node) {
	id := kvstore.Stream{Peer: peer, Method: message.MethodNone}
	if info, _, err := r.opts.Store.Read(id, 0, 0, 0); err != nil || info.Count > 0 {
		r.Wake(id)
	}
}

// start is called with mu held.
func (r *Router) start(rt *route) {
	r.byToken[rt.token] = rt
	rt.listens = r.listen(rt.stream.Peer)
	err := r.opts.Publishers.Start(Child{
		Name:    PublisherName(rt.stream.Method, rt.stream.Peer),
		Make:    func() Service { return newPublisher(r, rt) },
		Restart: Transient,
		Grace:   10 * time.Second,
	})
	if err != nil { // the node is stopping
		r.drop(rt, false)
	}
}

// retire ends a publisher that has nothing to do, unless something has come in between.
func (r *Router) retire(rt *route) bool {
	awaited := r.awaits(rt.stream.Peer)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(rt.wake) > 0 {
		return false
	}
	r.drop(rt, awaited)
	return true
}

// awaits reports whether a reply from n is awaited. A store that does not say does so later, to the
// inquiry.
func (r *Router) awaits(n message.Node) bool {
	ids, err := r.opts.Store.AwaitedFrom(n, message.ID{}, 1)
	return err != nil || len(ids) > 0
}

// drop forgets a route. Its peer is listened for on when replies are awaited from it. Called with
// mu held.
func (r *Router) drop(rt *route, awaited bool) {
	delete(r.routes, rt.stream)
	delete(r.byToken, rt.token)
	if p := r.peers[rt.stream.Peer]; p != nil && rt.listens {
		p.routes--
		p.awaited = p.awaited || awaited
		r.unlisten(rt.stream.Peer, p)
	}
}

// unlisten ends to listen for a node that nothing is to be heard from. Called with mu held.
func (r *Router) unlisten(n message.Node, p *peer) {
	if p.routes == 0 && !p.awaited {
		delete(r.peers, n)
		p.sub.Close()
	}
}

// listen begins to listen for the presence of a node, before anything is sent to it: it
// may come back at any moment. It reports whether it does. Called with mu held.
func (r *Router) listen(n message.Node) bool {
	p := r.peer(n)
	if p != nil {
		p.routes++
	}
	return p != nil
}

// listenTo listens for the presence of those nodes from which a reply is awaited, and of no others
// but those to which something is under way.
func (r *Router) listenTo(nodes []message.Node) {
	awaited := make(map[message.Node]bool, len(nodes))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range nodes {
		awaited[n] = true
		_ = r.peer(n) // without it, it is asked later
	}
	for n, p := range r.peers {
		p.awaited = awaited[n]
		r.unlisten(n, p)
	}
}

// peer is the one of that name, whose presence is listened for, or nil. Called with mu held.
func (r *Router) peer(n message.Node) *peer {
	if n == r.opts.Self {
		return nil
	}
	p := r.peers[n]
	if p == nil {
		sub, err := r.opts.Transport.Subscribe(hereSubject(n), func(Delivery) { r.here(n) })
		if err != nil {
			// Without it the next attempt comes when the ACK timeout says so.
			r.opts.Log.Warn("presence is not heard", "node", n, "err", err)
			return nil
		}
		p = &peer{sub: sub}
		r.peers[n] = p
	}
	return p
}

func (r *Router) here(n message.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, rt := range r.routes {
		if id.Peer == n {
			notify(rt.here)
		}
	}
	if r.peers[n] != nil {
		r.heard[n] = true
		notify(r.spoke)
	}
}

// takeHeard returns the nodes that have said that they are there since it was last called.
func (r *Router) takeHeard() []message.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes := slices.Collect(maps.Keys(r.heard))
	clear(r.heard)
	return nodes
}

// answer takes what arrives on the ack subjects to the publisher that waits for it, or to the inquiry.
func (r *Router) answer(d Delivery) {
	token := d.Subject[strings.LastIndexByte(d.Subject, '.')+1:]
	if token == ProbeToken {
		return
	}
	if strings.Contains(token, answerMark) {
		r.hearAnswer(token, d)
		return
	}
	r.mu.Lock()
	rt := r.byToken[token]
	r.mu.Unlock()
	if rt == nil { // of an earlier run, or a publisher that has ended, or of a message without ACK
		r.answerUnacked(token, d)
		return
	}
	var a ackOrNothing
	if !d.NoResponders {
		if a = r.openAck(d); a.ack == nil && a.unproven == nil {
			return
		}
	}
	select {
	case rt.acks <- a:
	default: // acks are cumulative; the next one, or the next attempt, makes up for it
	}
}

// Denied takes note that the broker did not let this node send on subject, by its permissions. It reports
// whether that is a stream with a publisher, which makes it known. It never blocks.
func (r *Router) Denied(subject string) bool {
	s, err := message.ParseSubject(subject)
	if err != nil {
		return false
	}
	r.mu.Lock()
	rt := r.routes[kvstore.Stream{Peer: s.Node, Method: s.Method}]
	known := rt != nil && r.byToken[rt.token] != nil && s.Kind == r.opts.Kind(s.Method)
	r.mu.Unlock()
	if known {
		select {
		case rt.acks <- ackOrNothing{denied: true}:
		default: // the next attempt is not let through either
		}
	}
	return known
}

// openAck checks and decodes an ack. What makes no sense is reported, and nothing.
func (r *Router) openAck(d Delivery) (a ackOrNothing) {
	var err error
	a.proof, err = r.opts.Signatures.open(forAck, d, func() (by message.Node, err error) {
		if a.ack, err = r.opts.Codec.DecodeAck(d.Data); err == nil {
			by, err = a.ack.By, a.ack.By.Check()
		}
		return by, err
	})
	if err == nil {
		return a
	}
	_ = errors.As(err, &a.unproven)
	r.opts.Report.Report(errorkernel.Event{Class: refusedOr(err), Process: "router", Err: fmt.Errorf("ack: %w", err), Subject: d.Subject})
	a.ack = nil
	return a
}

// notify puts a token into a channel of one slot.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
