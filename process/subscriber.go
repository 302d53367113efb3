package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// Inbox is what delivery needs of the store on the receiving side. *kvstore.Store is one.
type Inbox interface {
	Take([]kvstore.Arrival) ([]kvstore.Taken, error)
	Lanes() ([]kvstore.Stream, error)
	ReadLane(id kvstore.Stream, after uint64, n, size int) ([]kvstore.Waiting, error)
	Begin(id kvstore.Stream, first uint64, mark kvstore.Mark) error
	Finish(id kvstore.Stream, mark uint64, finished []kvstore.Finished) error
	Due(m message.Method, now time.Time) (lanes []kvstore.Stream, next time.Time, err error)
}

// Acceptor takes over messages that the node itself has to send. *Router is one.
type Acceptor interface {
	Accept(context.Context, []message.Message) ([]message.ID, error)
	AcceptOwn(context.Context, []message.Message) ([]message.ID, error)
	AcceptNoting(ctx context.Context, part message.Message, lane kvstore.Stream, arrival uint64, mark kvstore.Mark) error
	Wake(kvstore.Stream)
}

// SubscriberOptions configure a subscriber. All but Signatures, Quota, Start, MaxParallel, Idle and Now are needed.
type SubscriberOptions struct {
	Spec Spec
	Env  *Env
	// Allowed returns what decides about messages as things stand. It is asked for with each frame that
	// arrives, and again before what was in it is run. The node itself is not asked about: it always may.
	Allowed   func() Allowed
	Store     Inbox
	Send      Acceptor
	Transport Transport
	Codec     *wire.Codec
	// Signatures proves who sends; nil: everything is taken for what it says to be.
	Signatures *Signatures
	// Quota bounds what each other node may have taken; nil: nothing does.
	Quota *Quota
	// Lanes runs the lanes, one per sender of whom something waits.
	Lanes    Starter
	Report   errorkernel.Reporter
	Progress *Progress
	Log      *slog.Logger
	// Start names this start of the node; see message.HeaderStart. It may be empty.
	Start string
	// MaxParallel bounds the runs of a method without order (default 64).
	MaxParallel int
	// Idle is how long a lane without work stays (default 1 minute).
	Idle time.Duration
	// Now is the clock on the wall, by which messages expire (default time.Now). It may jump.
	Now func() time.Time
}

// Subscriber receives the messages for one method. It checks each frame, puts it into the
// inbox, acknowledges what is on disk, and has a lane per sender run it. While one commit
// is under way, the frames that arrive gather and share the next.
type Subscriber struct {
	opts    SubscriberOptions
	log     *slog.Logger
	process string
	slots   chan struct{} // one for each run under way of a method without order

	frames  frames
	ready   chan struct{}
	planned chan struct{} // one slot: a message waits for a further run

	mu      sync.Mutex // guards lanes and unacked
	lanes   map[kvstore.Stream]*lane
	unacked chan unacked // to the process that runs messages without ACK, nil when there is none
}

// NewSubscriber checks the options and returns a subscriber.
func NewSubscriber(opts SubscriberOptions) (*Subscriber, error) {
	switch {
	case opts.Env == nil, opts.Allowed == nil, opts.Store == nil, opts.Send == nil, opts.Transport == nil, opts.Codec == nil,
		opts.Lanes == nil, opts.Report == nil, opts.Progress == nil, opts.Log == nil:
		return nil, errors.New("subscriber: an option is missing")
	case opts.Spec.Name == "":
		return nil, errors.New("subscriber: no method")
	}
	if opts.Spec.Parallel > 0 {
		opts.MaxParallel = opts.Spec.Parallel
	}
	orDefault(&opts.MaxParallel, 64)
	orDefault(&opts.Idle, time.Minute)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	name := "subscriber " + string(opts.Spec.Name)
	return &Subscriber{
		opts:    opts,
		process: name,
		log:     opts.Log.With(logattr.Process(name)),
		slots:   make(chan struct{}, opts.MaxParallel),
		frames:  newFrames(),
		ready:   make(chan struct{}),
		planned: make(chan struct{}, 1),
		lanes:   map[kvstore.Stream]*lane{},
	}, nil
}

// Ready is closed when the subscriptions are made and the lanes of the last run started.
func (s *Subscriber) Ready() <-chan struct{} { return s.ready }

// Serve subscribes and takes frames until ctx ends.
func (s *Subscriber) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lanes, err := s.opts.Store.Lanes()
	if err != nil {
		return fmt.Errorf("look for messages that wait for %s: %w", s.opts.Spec.Name, err)
	}
	for _, id := range lanes {
		if id.Method == s.opts.Spec.Name {
			s.wake(ctx, id)
		}
	}
	subject := message.Subject{Node: s.opts.Env.Self, Method: s.opts.Spec.Name, Kind: s.opts.Spec.Kind}
	for _, kind := range slices.Compact([]message.Kind{subject.Kind, subject.Kind.WithoutACK()}) {
		subject.Kind = kind
		sub, err := s.opts.Transport.Subscribe(subject.String(), func(d Delivery) { s.frames.put(ctx, d) })
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		defer sub.Close()
	}
	close(s.ready)
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.planned:
			s.runDue(ctx, due)
		case <-due.C:
			s.runDue(ctx, due)
		case <-s.frames.more:
			s.take(ctx, s.frames.get())
		}
	}
}

// received is a frame on its way into the inbox.
type received struct {
	reply string
	proof proof
	lane  *lane // reserved for it, or nil
	grant *grant
	// refused counts those of its messages that are.
	refused int
	kvstore.Arrival
}

// load is what there is to take of it.
func (r *received) load() kvstore.Load {
	all := kvstore.Load{Messages: int64(max(1, len(r.Items)))}
	for i := range r.Items {
		if r.Items[i].Refuse == "" {
			all.Bytes += int64(len(r.Items[i].Message))
		}
	}
	return all
}

// take puts frames into the inbox and acknowledges them.
func (s *Subscriber) take(ctx context.Context, batch []Delivery) {
	var frames []received
	for _, d := range batch {
		if f, ok := s.check(ctx, d); ok {
			frames = append(frames, f)
		}
	}
	if len(frames) == 0 {
		return
	}
	arrivals := make([]kvstore.Arrival, len(frames))
	for i := range frames {
		arrivals[i] = frames[i].Arrival
	}
	taken, err := s.opts.Store.Take(arrivals)
	if err != nil {
		// Not acknowledged, so it will be sent again.
		s.opts.Report.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: s.process, Method: s.opts.Spec.Name,
			From: frames[0].Stream.Peer, Err: fmt.Errorf("take %d frames: %w", len(frames), err)})
	}
	for i := range frames {
		f := &frames[i]
		if err != nil {
			f.grant.settle(kvstore.Load{})
			f.lane.release(0)
			continue
		}
		f.grant.settle(kvstore.Load{Messages: int64(max(1, len(taken[i].Stored)+f.refused)), Bytes: taken[i].Bytes})
		s.ack(f, &taken[i])
		for _, id := range taken[i].Stored {
			s.opts.Progress.step(Step{ID: id, What: StepReceived, Peer: f.Stream.Peer, Method: f.Stream.Method})
		}
		f.lane.release(taken[i].Begun)
		if len(taken[i].Stored) > 0 {
			s.wake(ctx, f.Stream)
		}
	}
}

func (s *Subscriber) ack(f *received, t *kvstore.Taken) {
	a := wire.Ack{By: s.opts.Env.Self, To: f.Stream.Peer, Method: f.Stream.Method, Epoch: f.Epoch, Next: t.Next, Gap: t.Gap, Busy: t.Busy, Newer: t.Newer}
	for _, r := range t.Refused {
		a.Refused = append(a.Refused, wire.Refusal{Seq: r.Seq, Code: message.Code(r.Code), Text: r.Text})
	}
	s.answer(f.reply, f.proof, &a)
}

// answer sends an ack. It is signed when the frame was: who signs can read that.
func (s *Subscriber) answer(subject string, p proof, a *wire.Ack) {
	if !mayAnswer(a.To, subject) {
		return
	}
	data, err := s.opts.Codec.EncodeAck(a)
	if err == nil {
		if p.signed {
			data = s.opts.Signatures.sign(forAck, subject, "", p.yours, data)
		}
		err = s.opts.Transport.Publish(subject, "", data)
	}
	if err != nil { // the sender will ask again
		s.log.Debug("ack not sent", logattr.To(a.To), logattr.Err(err))
	}
}

// check opens a frame and decides about each of its messages. It answers frames that make
// no sense, and passes on those without ACK.
func (s *Subscriber) check(ctx context.Context, d Delivery) (received, bool) {
	f, p, err := s.open(d)
	if err != nil {
		s.refuse(d, f, p, err)
		return received{}, false
	}
	if !s.fresh(d, f, p) {
		return received{}, false
	}
	allowed := func(message.Node, *message.Message) error { return nil }
	if !d.Local {
		allowed = s.opts.Allowed()
	}
	var denials []string // why, each reason once
	r := received{reply: d.Reply, proof: p, Arrival: kvstore.Arrival{Stream: kvstore.Stream{Peer: f.From, Method: f.Method},
		Epoch: f.Epoch, Base: f.Base, First: f.First, End: f.End, Items: make([]kvstore.Item, 0, len(f.Entries))}}
	var sound []*message.Message
	now := s.opts.Now()
	for _, e := range f.Entries {
		it := kvstore.Item{Seq: e.Seq, Message: e.Message}
		m, err := wire.DecodeMessage(e.Message)
		if err == nil {
			m.From, m.To, m.Method = f.From, s.opts.Env.Self, f.Method
		}
		if err != nil {
			it.Refuse, it.Text = message.CodeInvalid, err.Error()
		} else if why := allowed(f.From, m); why != nil {
			it.Refuse, it.Text = message.CodeDenied, s.denied(f.From, why).Error()
			if !slices.Contains(denials, why.Error()) {
				denials = append(denials, why.Error())
			}
		} else {
			s.rename(m)
			it.ID = m.ID
			it.Accepted = now.Add(-max(0, time.UnixMilli(f.Sent).Sub(m.Accepted)))
			m.Accepted = it.Accepted
			if m.Expired(now) {
				it.Refuse, it.Text = message.CodeExpired, "arrived after its ttl"
			} else if m.Schedule != nil && m.Schedule.Check() != nil {
				it.Refuse, it.Text = message.CodeInvalid, m.Schedule.Check().Error()
			} else if !m.IsReply() && len(m.Data) < s.opts.Spec.MinArgs {
				it.Refuse, it.Text = message.CodeInvalid, fmt.Sprintf("%s wants at least %d arguments in data", f.Method, s.opts.Spec.MinArgs)
			}
		}
		if it.Refuse == "" {
			sound = append(sound, m)
		}
		r.Items = append(r.Items, it)
	}
	for _, why := range denials {
		s.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: s.process, Subject: d.Subject, From: f.From,
			Err: fmt.Errorf("%s: %s may not use %s here: %s", message.CodeDenied, f.From, s.opts.Spec.Name, why)})
	}
	r.refused = len(r.Items) - len(sound)
	if !d.Local {
		r.grant = s.opts.Quota.ask(f.From, r.load())
		r.Most = r.grant.most()
	}
	switch nothing := r.grant.nothing(); {
	case f.Epoch == 0:
		if !nothing { // else they are dropped
			s.passUnacked(ctx, f.From, sound)
			r.grant.settle(r.load())
		}
		return received{}, false
	case nothing:
		// What of it is here already is said when there is room: nothing is written for who has to wait.
		s.ack(&r, &kvstore.Taken{Next: f.Base, Busy: true})
		return received{}, false
	}
	s.reserve(&r, sound)
	return r, true
}

// belongs says whether a frame says the same as the subject that it came on: a broker's
// permissions are about subjects.
func (s *Subscriber) belongs(f *wire.Frame, d Delivery) error {
	switch {
	case f.To != s.opts.Env.Self || f.Method != s.opts.Spec.Name:
		return fmt.Errorf("%w frame: it is for %s on %s, and came on %s", message.ErrInvalid, f.Method, f.To, d.Subject)
	case d.Local != (f.From == s.opts.Env.Self):
		return fmt.Errorf("%w frame: it came over the broker and claims to be from this node itself; is there another node with the name %s?",
			message.ErrInvalid, s.opts.Env.Self)
	}
	return nil
}

// reserve marks the beginning of a run in the commit that accepts its messages, if the lane
// has nothing else to do: that saves a commit on the way of a single command.
func (s *Subscriber) reserve(r *received, msgs []*message.Message) {
	if len(msgs) == 0 || s.opts.Spec.Crash == Repeat || s.opts.Spec.Crash == Resume || !s.opts.Spec.Ordered {
		return
	}
	s.mu.Lock()
	l := s.lane(r.Stream)
	s.mu.Unlock()
	if !l.reserve() {
		return
	}
	begin := &kvstore.Begin{}
	if s.opts.Spec.Crash == Exact {
		calls := make([]*Call, len(msgs))
		for i, m := range msgs {
			calls[i] = s.call(m, 1)
		}
		undo, err := s.mark(calls)
		if err != nil { // the lane will see for itself
			l.release(0)
			return
		}
		begin.All, begin.Undo = true, undo
	}
	r.lane, r.Begin = l, begin
}

// call is one run of m.
func (s *Subscriber) call(m *message.Message, attempt int) *Call {
	return &Call{Env: s.opts.Env, Message: m, Attempt: attempt,
		Log: s.log.With(logattr.Msg(m), logattr.From(m.From), logattr.Attempt(attempt))}
}

// lane returns the lane of a sender, made but not started when it is new. It is called
// with mu held.
func (s *Subscriber) lane(id kvstore.Stream) *lane {
	l := s.lanes[id]
	if l == nil {
		l = &lane{s: s, id: id, wake: make(chan struct{}, 1)}
		s.lanes[id] = l
	}
	return l
}

// wake tells a lane that something has arrived, and starts it if it is not running.
func (s *Subscriber) wake(ctx context.Context, id kvstore.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lane(id)
	notify(l.wake)
	if l.running {
		return
	}
	err := s.start(ctx, "lane "+string(id.Method)+" from "+string(id.Peer), l.serve)
	l.running = err == nil // else the node is stopping
}

// start starts a process that ends with this subscriber: the next one begins anew with
// what is on disk. ctx is that of Serve.
func (s *Subscriber) start(ctx context.Context, name string, serve func(context.Context) error) error {
	return s.opts.Lanes.Start(Child{Name: name, Restart: Transient, Grace: laneGrace, Make: func() Service {
		return ServiceFunc(func(own context.Context) error {
			own, cancel := context.WithCancel(own)
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			return serve(own)
		})
	}})
}

// retire ends a lane that has nothing to do, unless something has come in between.
func (s *Subscriber) retire(l *lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.wake) > 0 || !l.reserve() {
		return false
	}
	l.running = false
	delete(s.lanes, l.id)
	return true
}
