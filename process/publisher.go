package process

import (
	"cmp"
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
// one message alone, until there is an answer. Those that come behind it meanwhile are in
// flight without being sent, so that their attempts count and their time runs, too. While there
// is no link to the broker, no attempt is made and none is counted.
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
	number   uint64 // of the receiver's start, as the last frame named it
	renamed  bool   // it was another one since something was acknowledged last
	cursor   uint64 // the sequence number from which on nothing was sent since the last rewind
	inflight []flight
	window   int           // bytes that may be in flight now
	packed   int           // per mille of its size to which the last frame was compressed
	busy     time.Duration // how long a receiver without room was left alone last; 0: it had room since
	more     bool          // the store may have messages from the cursor on
	behind   bool          // it may have some behind those in flight

	probing  bool      // the receiver does not answer: only the first message is sent
	held     bool      // nothing is sent before resume and without a link, then all in flight again
	rewound  uint64    // the gap that was answered by sending again
	reason   string    // what the last answer that was no ack said
	denied   bool      // the broker does not let frames of this stream through, which was reported
	passed   bool      // it has said nothing about those sent since it last refused one
	began    time.Time // when this publisher did
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
	// A receiver without room is left alone for firstBusy, and twice as long each time that it
	// takes nothing, up to lastBusy.
	firstBusy = 20 * time.Millisecond
	lastBusy  = time.Second
	// offlineWait is how long nothing is sent after the link did not take a frame.
	offlineWait = 100 * time.Millisecond
	// renewWait is how long nothing is sent after a new epoch was begun: a receiver that
	// never believes any must not keep both sides busy.
	renewWait = 100 * time.Millisecond
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
		packed:  1000,
		more:    true,
		behind:  true,
		began:   time.Now(),
	}
}

// Serve delivers until the stream is empty for long, or ctx ends.
func (p *Publisher) Serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		up, linkChanged := p.link()
		if p.held && up && !time.Now().Before(p.resume) {
			p.restart("the link is back, or the receiver may have room")
			p.probing = p.busy > firstBusy // one message alone, for as long as it takes nothing
		}
		if err := p.expire(); err != nil {
			return err
		}
		if err := p.fill(); err != nil {
			return err
		}
		if err := p.watch(); err != nil {
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
			err := p.stop()
			p.r.rested(p.rt)
			return err
		case <-p.rt.wake:
			p.more, p.behind = true, true
		case <-p.rt.cleared:
			if err := p.forget(); err != nil {
				return err
			}
		case <-p.rt.here:
			if len(p.inflight) > 0 {
				p.restart("the receiver is back")
			}
		case a := <-p.rt.acks:
			if err := p.answer(a); err != nil {
				return err
			}
		case asked := <-p.rt.asked:
			asked.answer <- p.outlook(asked.about)
		case err := <-p.settling:
			p.settling = nil
			p.stored(err)
		case <-linkChanged:
			if len(p.inflight) > 0 { // it may have been lost with the link
				p.hold(0)
			}
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
	var expiry time.Time
	if first := p.firstExpiry(); !first.IsZero() {
		expiry = now.Add(first.Sub(p.r.opts.Now()))
	}
	for _, t := range []time.Time{p.deadline, expiry} {
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
	p.probing, p.held = false, false
	p.rewound, p.window, p.packed, p.reason = 0, minWindow, 1000, ""
	p.resume, p.deadline = time.Time{}, time.Time{}
	p.more = true
}

// hold sends nothing for a while, and then everything in flight again. No attempt is
// counted for that.
func (p *Publisher) hold(d time.Duration) {
	p.held, p.deadline, p.resume = true, time.Time{}, time.Now().Add(d)
}

// fill sends what the window has room for.
func (p *Publisher) fill() error {
	for p.mayFill() {
		sent, _ := p.ahead()
		n := p.r.opts.WindowMessages - sent
		if p.probing {
			n = 1
		}
		info, queue, err := p.r.opts.Store.Read(p.rt.stream, p.cursor, n, min(p.r.opts.FrameBytes, p.window/2*1000/max(p.packed, 1)))
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if p.epoch = cmp.Or(p.rt.epoch, info.Epoch); len(queue) == 0 {
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
	case !p.more, p.held:
		return false
	case !p.resume.IsZero() && time.Now().Before(p.resume):
		return false
	case p.probing:
		return p.cursor == p.base()
	}
	n, bytes := p.ahead()
	return bytes <= p.window/2 && n < p.r.opts.WindowMessages && len(p.settled) < 2*p.r.opts.WindowMessages
}

// ahead is how many messages were sent since the last rewind, and their bytes on the wire.
func (p *Publisher) ahead() (n, bytes int) {
	for n < len(p.inflight) && p.inflight[n].seq < p.cursor {
		bytes += p.inflight[n].size
		n++
	}
	return n, bytes
}

// send sends messages that follow the cursor, in one frame, or in fewer to a frame when the
// link does not carry them.
func (p *Publisher) send(queue []kvstore.Queued) error {
	p.resume = time.Time{}
	for len(queue) > 0 {
		// What has expired while it waited is not sent. Its end has to be on disk before a
		// frame says that it is settled.
		now := p.r.opts.Now()
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
		case (errors.Is(err, ErrTooLarge) || errors.Is(err, message.ErrInvalid) || errors.Is(err, errTooMuch)) && len(queue) > 1:
			queue = queue[:(len(queue)+1)/2] // the rest is read again
			continue
		case errors.Is(err, ErrTooLarge) || errors.Is(err, message.ErrInvalid):
			p.track(queue, 0)
			p.cursor = queue[0].Seq + 1
			return p.giveUp(func(f *flight) (message.Code, string) {
				if f.seq != queue[0].Seq {
					return "", ""
				}
				return message.CodeInvalid, fmt.Sprintf("%d bytes: %v", len(queue[0].Message), err)
			})
		case err != nil:
			// No link. The messages wait in the window without an attempt being counted.
			p.track(queue, 0)
			p.reason = err.Error()
			p.hold(offlineWait)
			return nil
		}
		return nil
	}
	return nil
}

// errTooMuch is about a frame that could not be compressed as the one before.
var errTooMuch = errors.New("larger than the window")

func (p *Publisher) sendFrame(queue []kvstore.Queued) error {
	last := queue[len(queue)-1].Seq
	f := wire.Frame{From: p.r.opts.Self, To: p.rt.stream.Peer, Method: p.rt.stream.Method, Epoch: p.epoch,
		Base: p.base(), First: max(p.base(), p.cursor), End: last + 1, Sent: p.r.opts.Now().UnixMilli(), Entries: make([]wire.Entry, len(queue))}
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
	raw := 0
	for _, q := range queue {
		raw += len(q.Message)
	}
	p.packed = min(1000, 1000*len(data)/max(raw, 1))
	if len(data) > p.window/2+len(queue[0].Message) && len(queue) > 1 {
		return errTooMuch
	}
	reply := ackSubject(p.r.opts.Self, p.rt.token)
	if p.rt.stream.Peer != p.r.opts.Self {
		p.number = p.r.opts.Signatures.numberOf(p.rt.stream.Peer)
		data = p.r.opts.Signatures.sign(forFrame, p.subject, reply, p.number, data)
	}
	if err := p.r.opts.Transport.Publish(p.subject, reply, data); err != nil {
		return err
	}
	p.passed = true
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

// track puts messages in flight, or notes that they were sent again; size is that of
// their frame.
func (p *Publisher) track(queue []kvstore.Queued, size int) {
	each := size / len(queue)
	now := time.Now()
	i := 0
	for _, q := range queue {
		for i < len(p.inflight) && p.inflight[i].seq < q.Seq {
			i++
		}
		if i < len(p.inflight) {
			p.inflight[i].size = each
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
}

// timeout counts an attempt for everything in flight that is due, and tries again.
func (p *Publisher) timeout() error {
	p.deadline = time.Time{}
	if up, _ := p.link(); !up {
		p.hold(0)
	}
	if p.held {
		return nil
	}
	if p.passed {
		p.denied = false
	}
	why := cmp.Or(p.why(), "no answer from "+string(p.rt.stream.Peer))
	now := time.Now()
	due := func(f *flight) bool { return !now.Before(f.due) }
	for i := range p.inflight {
		if f := &p.inflight[i]; due(f) {
			f.attempts++
			p.log.Debug("no ack", logattr.ID(f.id), logattr.Attempt(f.attempts), "why", why)
			p.r.opts.Progress.step(Step{ID: f.id, What: StepWaiting, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method,
				Text: fmt.Sprintf("no ACK in attempt %d: %s", f.attempts, why)})
		}
	}
	err := p.giveUp(func(f *flight) (message.Code, string) {
		if !due(f) || f.retries <= 0 || f.attempts < f.retries {
			return "", ""
		}
		return message.CodeUnreachable, fmt.Sprintf("no ACK in %d attempts: %s", f.attempts, why)
	})
	if err != nil || len(p.inflight) == 0 {
		return err
	}
	again := now // when the next attempt begins
	if first := &p.inflight[0]; due(first) {
		p.resume = now.Add(first.retryWait)
	}
	if p.resume.After(again) {
		again = p.resume
	}
	for i := range p.inflight {
		f := &p.inflight[i]
		if due(f) {
			f.due = again.Add(f.ackTimeout)
		}
		p.await(f.due)
	}
	p.cursor = p.base()
	p.probing, p.more = true, true
	return nil
}

// expire gives up what is past its time to live. The attempt that this cuts off is one.
func (p *Publisher) expire() error {
	now := p.r.opts.Now()
	if first := p.firstExpiry(); first.IsZero() || now.Before(first) {
		return nil
	}
	return p.giveUp(func(f *flight) (message.Code, string) {
		if f.expires.IsZero() || now.Before(f.expires) {
			return "", ""
		}
		if f.seq < p.cursor && !p.held {
			f.attempts++
		}
		why := "not delivered in " + f.expires.Sub(f.id.Time()).String()
		if last := p.last(f); last != "" {
			why += "; last: " + last
		}
		return message.CodeExpired, why
	})
}

// last is what is known of why a message was not delivered.
func (p *Publisher) last(f *flight) string {
	up, _ := p.link()
	switch {
	case !up:
		return "there is no link to the broker"
	case p.why() == "" && f.attempts > 0:
		return "no answer from " + string(p.rt.stream.Peer)
	}
	return p.why()
}

// giveUp ends the messages in flight for which end has a code. It returns when that is on
// disk: before, no frame may say that they are settled, or a restart could take an ack of
// what comes behind them for theirs, and the receiver could forget that it refused them.
func (p *Publisher) giveUp(end func(*flight) (code message.Code, why string)) error {
	var ends []kvstore.Settled
	keep := make([]flight, 0, len(p.inflight))
	now := time.Now()
	for i := range p.inflight {
		f := &p.inflight[i]
		code, why := end(f)
		if code == "" {
			keep = append(keep, *f)
			continue
		}
		e := kvstore.Settled{Seq: f.seq, ID: f.id, Code: code, Text: why, Attempts: f.attempts, At: now, WantsReply: f.wantsReply}
		e.Untold = errorkernel.Pack(p.badEnd(&e))
		ends = append(ends, e)
	}
	if len(ends) == 0 {
		return nil
	}
	if err := <-p.r.opts.Store.Settle(p.rt.stream, ends); err != nil {
		return fmt.Errorf("give up %d messages: %w", len(ends), err)
	}
	p.retain(keep, ends[len(ends)-1].Seq+1)
	p.r.wakeNotices(p.rt.stream.Peer)
	for i := range ends {
		p.reportEnd(&ends[i])
	}
	return nil
}

// retain leaves keep in flight; past is the number behind the last message that is not kept.
// The ends of those are on disk.
func (p *Publisher) retain(keep []flight, past uint64) {
	if p.inflight, p.more, p.behind = keep, true, true; len(keep) == 0 {
		p.cursor = max(p.cursor, past)
		p.resume = time.Time{}
	}
	p.cursor = max(p.cursor, p.base())
	if !p.deadline.IsZero() {
		p.deadline = time.Time{}
		for i := range keep {
			p.await(keep[i].due)
		}
	}
}

// badEnd says what the error kernel has to know about a message that is given up.
func (p *Publisher) badEnd(e *kvstore.Settled) errorkernel.Event {
	return errorkernel.Event{Class: errorkernel.GivenUp, Process: "publisher", Subject: p.subject, ID: e.ID,
		From: p.r.opts.Self, Method: p.rt.stream.Method, Err: fmt.Errorf("%s: %s", e.Code, e.Text), At: e.At}
}

// reportEnd tells of a message that was given up. What central is to be told was stored with that.
func (p *Publisher) reportEnd(e *kvstore.Settled) {
	ev := p.badEnd(e)
	ev.Stored = true
	p.r.opts.Report.Report(ev)
	p.r.opts.Progress.step(Step{ID: e.ID, What: StepGivenUp, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method, Text: e.Text})
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
