package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// Publisher delivers one stream: the messages for one method of one node, in the order in
// which they were accepted.
//
// It keeps a window of messages in flight, several to a frame. An ack covers everything
// below its position, and moves the window on. When nothing was acknowledged for the ACK
// timeout of the first message in flight, that counts as one attempt for all of them; those
// whose attempts are used up are given up, and the rest is tried again from the first on:
// one message alone, until there is an answer. While there is no link to the broker, no
// attempt is made and none is counted.
//
// The store is the only memory that counts: a publisher that fails, or whose node is
// killed, begins again at the first message that is not settled there. A message may so
// reach the receiver twice, which takes it once.
type Publisher struct {
	r       *Router
	rt      *route
	subject string
	log     *slog.Logger

	epoch    uint64
	cursor   uint64 // the sequence number from which on nothing was sent since the last rewind
	inflight []flight
	bytes    int // on the wire, of what is in flight
	window   int // bytes that may be in flight now
	more     bool

	probing  bool // the receiver does not answer: only the first message is sent
	busy     bool // the receiver has no room
	offline  bool // the last publish found no link
	nobody   bool // the broker says that nobody listens
	rewound  uint64
	reason   string    // what the last answer that was no ack said
	deadline time.Time // the first due of all in flight; zero: not waiting for an ack
	resume   time.Time // before this nothing is sent; zero: at once

	settled  []kvstore.Settled // acknowledged, to be taken off the store
	batch    []kvstore.Settled // those of the commit under way
	settling <-chan error      // the commit under way, nil for none
	settleAt time.Time         // not before this, after a failure of the store
}

// flight is a message in flight: everything but its body, which stays on disk.
type flight struct {
	seq        uint64
	id         message.ID
	ackTimeout time.Duration
	retryWait  time.Duration
	due        time.Time // when this attempt has failed
	expires    time.Time // zero: never
	retries    int
	attempts   int
	size       int
	wantsReply bool
}

const (
	// minWindow is what is sent to a receiver of which nothing is known yet, in bytes. It
	// doubles with each full window that was acknowledged in time, so that a thin link is
	// not filled with what cannot arrive before its timeout.
	minWindow = 64 << 10
	// busyWait is how long a receiver without room is left alone.
	busyWait = time.Second
	// offlineWait is how long nothing is sent after the link did not take a frame.
	offlineWait = 100 * time.Millisecond
	// settleWait is how long a store that fails is left alone.
	settleWait = time.Second
)

func newPublisher(r *Router, rt *route) *Publisher {
	id := rt.stream
	return &Publisher{
		r: r, rt: rt,
		subject: message.Subject{Node: id.Peer, Method: id.Method, Kind: r.opts.Kind(id.Method)}.String(),
		log:     r.opts.Log.With(logattr.Process("publisher"), logattr.To(id.Peer), logattr.Method(id.Method)),
		window:  minWindow,
		more:    true,
	}
}

// Serve delivers until the stream is empty for long, or ctx ends.
func (p *Publisher) Serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		up, linkChanged := p.link()
		if p.offline && up && !time.Now().Before(p.resume) {
			p.restart("the link is back")
		}
		if err := p.expire(); err != nil {
			return err
		}
		if err := p.fill(); err != nil {
			return err
		}
		p.settle()

		wait := p.r.opts.Idle
		idle := len(p.inflight) == 0 && !p.more && p.settling == nil && len(p.settled) == 0
		if !idle {
			wait = time.Until(p.next())
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return p.stop()
		case <-p.rt.wake:
			p.more = true
		case <-p.rt.here:
			if p.probing || p.offline || p.nobody {
				p.restart("the receiver is back")
			}
		case a := <-p.rt.acks:
			if err := p.answer(a); err != nil {
				return err
			}
		case err := <-p.settling:
			p.settling = nil
			p.stored(err)
		case <-linkChanged:
		case now := <-timer.C:
			if idle {
				if p.r.retire(p.rt) {
					return nil
				}
				continue
			}
			if !p.deadline.IsZero() && !now.Before(p.deadline) {
				if err := p.timeout(); err != nil {
					return err
				}
			}
		}
	}
}

// link is the state of the transport. The way to the own node needs no broker.
func (p *Publisher) link() (up bool, changed <-chan struct{}) {
	if p.rt.stream.Peer == p.r.opts.Self {
		return true, nil
	}
	return p.r.opts.Transport.State()
}

// stop waits for the commit under way, so that nothing is settled after the store's end.
func (p *Publisher) stop() error {
	if p.settling != nil {
		<-p.settling
	}
	return nil
}

// next is when something has to be done even if nothing happens.
func (p *Publisher) next() time.Time {
	now := time.Now()
	next := now.Add(p.r.opts.Idle)
	for _, t := range []time.Time{p.deadline, p.firstExpiry()} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, t := range []time.Time{p.resume, p.settleAt} {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	return next
}

func (p *Publisher) firstExpiry() time.Time {
	var first time.Time
	for i := range p.inflight {
		if e := p.inflight[i].expires; !e.IsZero() && (first.IsZero() || e.Before(first)) {
			first = e
		}
	}
	return first
}

// base is the lowest sequence number that is not settled.
func (p *Publisher) base() uint64 {
	if len(p.inflight) > 0 {
		return p.inflight[0].seq
	}
	return p.cursor
}

// restart sends again from the first message in flight.
func (p *Publisher) restart(why string) {
	p.log.Debug("send again", "why", why, "in_flight", len(p.inflight))
	p.cursor = p.base()
	p.probing, p.busy, p.offline, p.nobody = false, false, false, false
	p.rewound, p.bytes = 0, 0
	p.window = minWindow
	p.resume, p.deadline = time.Time{}, time.Time{}
	p.more = true
}

// fill sends what the window has room for.
func (p *Publisher) fill() error {
	for p.mayFill() {
		n := p.r.opts.WindowMessages - p.ahead()
		if p.probing {
			n = 1
		}
		info, queue, err := p.r.opts.Store.Read(p.rt.stream, p.cursor, n, min(p.r.opts.FrameBytes, p.window/2))
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if p.epoch = info.Epoch; len(queue) == 0 {
			p.more = false
			return nil
		}
		if p.cursor == 0 {
			p.cursor = queue[0].Seq
		}
		if err := p.send(queue); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) mayFill() bool {
	switch {
	case !p.more, p.offline, p.busy:
		return false
	case !p.resume.IsZero() && time.Now().Before(p.resume):
		return false
	case p.probing:
		return p.cursor == p.base()
	}
	return p.bytes <= p.window/2 && p.ahead() < p.r.opts.WindowMessages && len(p.settled) < 2*p.r.opts.WindowMessages
}

// ahead is how many messages in flight were sent since the last rewind.
func (p *Publisher) ahead() int {
	n := len(p.inflight)
	for n > 0 && p.inflight[n-1].seq >= p.cursor {
		n--
	}
	return n
}

// send sends messages that follow the cursor, in one frame, or in fewer to a frame when the
// link does not carry them.
func (p *Publisher) send(queue []kvstore.Queued) error {
	p.resume = time.Time{}
	for len(queue) > 0 {
		// What has expired while it waited is not sent. Its end has to be on disk before a
		// frame says that it is settled.
		now := time.Now()
		if q := queue[0]; q.TTL > 0 && now.Sub(q.ID.Time()) > q.TTL && !p.known(q.Seq) {
			p.track(queue[:1], 0)
			if err := p.expire(); err != nil {
				return err
			}
			p.cursor = q.Seq + 1
			queue = queue[1:]
			continue
		}
		err := p.sendFrame(queue)
		switch {
		case errors.Is(err, ErrTooLarge) && len(queue) > 1:
			queue = queue[:(len(queue)+1)/2] // the rest is read again
			continue
		case errors.Is(err, ErrTooLarge):
			p.track(queue, 0)
			p.cursor = queue[0].Seq + 1
			return p.giveUp(func(f *flight) bool { return f.seq == queue[0].Seq }, message.CodeInvalid,
				fmt.Sprintf("%d bytes: %v", len(queue[0].Message), err))
		case err != nil:
			// No link. The messages wait in the window without an attempt being counted.
			p.track(queue, 0)
			p.offline = true
			p.reason = err.Error()
			p.deadline = time.Time{}
			p.resume = now.Add(offlineWait)
			return nil
		}
		return nil
	}
	return nil
}

func (p *Publisher) sendFrame(queue []kvstore.Queued) error {
	last := queue[len(queue)-1].Seq
	f := wire.Frame{From: p.r.opts.Self, To: p.rt.stream.Peer, Method: p.rt.stream.Method, Epoch: p.epoch,
		Base: p.base(), First: p.cursor, End: last + 1, Sent: time.Now().UnixMilli(), Entries: make([]wire.Entry, len(queue))}
	if len(p.inflight) == 0 {
		// Nothing below the first message waits any more.
		f.Base, f.First = queue[0].Seq, queue[0].Seq
	}
	for i, q := range queue {
		f.Entries[i] = wire.Entry{Seq: q.Seq, Message: q.Message}
	}
	data, err := p.r.opts.Codec.EncodeFrame(&f)
	if err != nil {
		return err
	}
	if err := p.r.opts.Transport.Publish(p.subject, ackSubject(p.r.opts.Self, p.rt.token), data); err != nil {
		return err
	}
	p.track(queue, len(data))
	p.cursor = last + 1
	if p.deadline.IsZero() {
		p.extend(time.Now())
	}
	return nil
}

// extend gives everything in flight its full ACK timeout from now on.
func (p *Publisher) extend(now time.Time) {
	p.deadline = time.Time{}
	for i := range p.inflight {
		f := &p.inflight[i]
		f.due = now.Add(f.ackTimeout)
		p.await(f.due)
	}
}

func (p *Publisher) await(due time.Time) {
	if p.deadline.IsZero() || due.Before(p.deadline) {
		p.deadline = due
	}
}

// known reports whether a message is in flight already.
func (p *Publisher) known(seq uint64) bool {
	return len(p.inflight) > 0 && seq <= p.inflight[len(p.inflight)-1].seq
}

// track puts messages in flight; size is that of their frame.
func (p *Publisher) track(queue []kvstore.Queued, size int) {
	each := size / len(queue)
	now := time.Now()
	for _, q := range queue {
		if p.known(q.Seq) {
			continue
		}
		f := flight{seq: q.Seq, id: q.ID, ackTimeout: q.ACKTimeout, retryWait: q.RetryWait, retries: q.Retries,
			due: now.Add(q.ACKTimeout), size: each, wantsReply: q.WantsReply}
		if q.TTL > 0 {
			f.expires = q.ID.Time().Add(q.TTL)
		}
		p.inflight = append(p.inflight, f)
		if !p.deadline.IsZero() {
			p.await(f.due)
		}
	}
	p.bytes += size
}

// answer deals with an ack, or with the notice that nobody listens.
func (p *Publisher) answer(a ackOrNothing) error {
	if a.ack == nil {
		// The attempt is counted when its time is up; until then the receiver may come.
		p.nobody, p.probing = true, true
		p.reason = "nobody listens on " + p.subject
		return nil
	}
	ack := a.ack
	id := p.rt.stream
	if ack.By != id.Peer || ack.To != p.r.opts.Self || ack.Method != id.Method {
		return nil
	}
	if ack.Code != "" {
		p.reason = ack.Text
		p.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "publisher", Subject: p.subject,
			From: id.Peer, Method: id.Method, Err: fmt.Errorf("%s refused a frame: %s", id.Peer, ack.Text)})
		return nil
	}
	if ack.Epoch != p.epoch || ack.Epoch == 0 {
		return nil
	}
	if ack.Next > p.cursor {
		if renewed, err := p.adopt(ack); err != nil || renewed {
			return err
		}
	}
	p.nobody = false
	p.advance(ack)
	switch {
	case ack.Busy:
		p.reason = string(id.Peer) + " has no room for more"
		for i := range p.inflight {
			p.inflight[i].attempts = 0
		}
		p.busy = true
		p.cursor = p.base()
		p.bytes = 0
		p.deadline = time.Now().Add(busyWait)
	case ack.Gap && len(p.inflight) > 0 && p.rewound != ack.Next:
		p.rewound = ack.Next
		p.cursor = p.base()
		p.bytes = 0
		p.more = true
	}
	return nil
}

// adopt deals with an ack of more than was sent since the start. Either an earlier run sent
// it, then it is taken as in flight; or the store is older than what the receiver has seen
// of it, then its sequence numbers are worthless and a new epoch begins.
func (p *Publisher) adopt(ack *wire.Ack) (renewed bool, err error) {
	id := p.rt.stream
	from := p.cursor
	if n := len(p.inflight); n > 0 {
		from = max(from, p.inflight[n-1].seq+1)
	}
	for {
		info, queue, err := p.r.opts.Store.Read(id, from, p.r.opts.WindowMessages, p.r.opts.WindowBytes)
		if err != nil {
			return false, fmt.Errorf("read stream: %w", err)
		}
		if ack.Next > info.Next {
			p.log.Warn("the receiver has seen more of this stream than this store knows; a new epoch begins",
				"next", ack.Next, "known", info.Next)
			if err := p.r.opts.Store.RenewEpoch(id); err != nil {
				return false, fmt.Errorf("begin a new epoch: %w", err)
			}
			p.restart("new epoch")
			return true, nil
		}
		n := 0
		for n < len(queue) && queue[n].Seq < ack.Next {
			n++
		}
		if n == 0 {
			return false, nil
		}
		p.track(queue[:n], 0)
		from = queue[n-1].Seq + 1
		p.advance(ack)
	}
}

// advance takes what an ack covers out of the window.
func (p *Publisher) advance(ack *wire.Ack) {
	n := 0
	now := time.Now()
	for n < len(p.inflight) && p.inflight[n].seq < ack.Next {
		n++
	}
	if n == 0 {
		return
	}
	refused := map[uint64]*wire.Refusal{}
	for i := range ack.Refused {
		refused[ack.Refused[i].Seq] = &ack.Refused[i]
	}
	wasFull := p.bytes > p.window/2
	for i := range p.inflight[:n] {
		f := &p.inflight[i]
		p.bytes = max(0, p.bytes-f.size)
		s := kvstore.Settled{Seq: f.seq, ID: f.id, Code: message.CodeDone, Attempts: f.attempts + 1, At: now, WantsReply: f.wantsReply}
		step := Step{ID: f.id, What: StepDelivered, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method}
		if no := refused[f.seq]; no != nil {
			s.Code, s.Text = no.Code, no.Text
			step.What, step.Text = StepGivenUp, no.Text
			p.reportEnd(f, no.Code, no.Text)
		}
		p.settled = append(p.settled, s)
		p.r.opts.Progress.step(step)
	}
	p.inflight = append(p.inflight[:0], p.inflight[n:]...)
	p.cursor = max(p.cursor, ack.Next)
	if p.probing {
		p.probing, p.window = false, minWindow
		p.cursor, p.bytes = ack.Next, 0
	} else if wasFull {
		p.window = min(2*p.window, p.r.opts.WindowBytes)
	}
	p.more, p.rewound, p.reason = true, 0, ""
	p.extend(now)
}

// timeout counts an attempt for everything in flight that is due, and tries again.
func (p *Publisher) timeout() error {
	p.deadline = time.Time{}
	if len(p.inflight) == 0 {
		return nil
	}
	if p.busy {
		p.restart("the receiver may have room again")
		return nil
	}
	if up, _ := p.link(); !up {
		p.offline = true
		return nil
	}
	why := p.reason
	if why == "" {
		why = "no answer from " + string(p.rt.stream.Peer)
	}
	now := time.Now()
	for i := range p.inflight {
		f := &p.inflight[i]
		if now.Before(f.due) {
			continue
		}
		f.attempts++
		f.due = now.Add(f.retryWait + f.ackTimeout)
		p.r.opts.Progress.step(Step{ID: f.id, What: StepWaiting, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method,
			Text: fmt.Sprintf("no ACK in attempt %d: %s", f.attempts, why)})
	}
	first := &p.inflight[0]
	p.log.Debug("no ack", logattr.ID(first.id), logattr.Attempt(first.attempts), "why", why)
	p.resume = now.Add(first.retryWait)
	usedUp := func(f *flight) bool { return f.retries > 0 && f.attempts >= f.retries }
	err := p.giveUp(usedUp, message.CodeUnreachable, why)
	for i := range p.inflight {
		p.await(p.inflight[i].due)
	}
	p.cursor, p.bytes = p.base(), 0
	p.probing, p.more = true, true
	return err
}

// expire gives up what is past its time to live.
func (p *Publisher) expire() error {
	now := time.Now()
	if first := p.firstExpiry(); first.IsZero() || now.Before(first) {
		return nil
	}
	return p.giveUp(func(f *flight) bool { return !f.expires.IsZero() && !now.Before(f.expires) },
		message.CodeExpired, "not delivered within its ttl")
}

// giveUp ends the messages in flight that which picks. It returns when that is on disk:
// before, no frame may say that they are settled, or a restart could take an ack of what
// comes behind them for theirs.
func (p *Publisher) giveUp(which func(*flight) bool, code message.Code, why string) error {
	var ends []kvstore.Settled
	keep := make([]flight, 0, len(p.inflight))
	now := time.Now()
	for i := range p.inflight {
		f := p.inflight[i]
		if !which(&f) {
			keep = append(keep, f)
			continue
		}
		text := why
		if code == message.CodeUnreachable {
			text = fmt.Sprintf("no ACK in %d attempts: %s", f.attempts, why)
		}
		ends = append(ends, kvstore.Settled{Seq: f.seq, ID: f.id, Code: code, Text: text, Attempts: f.attempts, At: now, WantsReply: f.wantsReply})
	}
	if len(ends) == 0 {
		return nil
	}
	if err := <-p.r.opts.Store.Settle(p.rt.stream, ends); err != nil {
		return fmt.Errorf("give up %d messages: %w", len(ends), err)
	}
	if len(keep) == 0 {
		p.cursor = max(p.cursor, ends[len(ends)-1].Seq+1)
		p.deadline, p.resume = time.Time{}, time.Time{}
	}
	p.inflight, p.more = keep, true
	for _, e := range ends {
		p.reportEnd(&flight{id: e.ID}, e.Code, e.Text)
		p.r.opts.Progress.step(Step{ID: e.ID, What: StepGivenUp, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method, Text: e.Text})
	}
	return nil
}

func (p *Publisher) reportEnd(f *flight, code message.Code, why string) {
	p.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.GivenUp, Process: "publisher", Subject: p.subject, ID: f.id,
		From: p.r.opts.Self, Method: p.rt.stream.Method, Err: fmt.Errorf("%s: %s", code, why)})
}

// settle hands what was acknowledged to the store, one commit at a time. The window does
// not wait for it: after a crash the receiver acknowledges again what it has.
func (p *Publisher) settle() {
	if p.settling == nil && len(p.settled) > 0 && !time.Now().Before(p.settleAt) {
		p.batch, p.settled = p.settled, nil
		p.settling = p.r.opts.Store.Settle(p.rt.stream, p.batch)
	}
}

// stored deals with the end of that commit.
func (p *Publisher) stored(err error) {
	if err != nil {
		p.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "publisher", Subject: p.subject,
			From: p.r.opts.Self, Method: p.rt.stream.Method, Err: fmt.Errorf("settle %d messages: %w", len(p.batch), err)})
		p.settled = append(p.batch, p.settled...)
		p.settleAt = time.Now().Add(settleWait)
	}
	p.batch = nil
}
