package process

import (
	"fmt"
	"math/rand/v2"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// answer deals with an ack, or with the notice that nobody listens, or that nothing is let through.
func (p *Publisher) answer(a ackOrNothing) error {
	if a.denied {
		p.deny()
		return nil
	}
	if a.unproven != nil { // perhaps somebody else's: it counts for nothing but a text
		p.reason = "its answer is not believed: " + a.unproven.Error()
		return nil
	}
	p.denied = false
	if a.ack == nil {
		// The attempt is counted when its time is up; until then the receiver may come.
		p.probing = true
		p.reason = fmt.Sprintf("nobody listens on %s: %s is not connected, or %s is switched off there", p.subject, p.rt.stream.Peer, p.rt.stream.Method)
		return nil
	}
	ack := a.ack
	id := p.rt.stream
	if ack.By != id.Peer || ack.Method != id.Method { // it has found out where the acks of another go to
		p.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "publisher", Subject: p.subject,
			From: ack.By, Method: id.Method, Err: fmt.Errorf("ack of %s for what is sent to %s", ack.By, id.Peer)})
		return nil
	}
	if ack.Code != "" { // of a frame that it could not read: it does not know from whom
		p.reason = ack.Text
		p.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "publisher", Subject: p.subject,
			From: id.Peer, Method: id.Method, Err: fmt.Errorf("%s refused a frame: %s", id.Peer, ack.Text)})
		return nil
	}
	if ack.To != p.r.opts.Self || ack.Epoch != p.epoch || ack.Epoch == 0 {
		return nil
	}
	if p.renumber(a) {
		return nil
	}
	if ack.Newer >= p.epoch {
		p.log.Warn("the receiver has seen a higher epoch of this stream; a new one begins", "epoch", p.epoch, "seen", ack.Newer)
		p.renew(ack.Newer)
		return nil
	}
	if ack.Next > p.cursor {
		if real, err := p.adopt(ack); err != nil || !real {
			return err
		}
	}
	before := len(p.inflight)
	err := p.advance(ack)
	if len(p.inflight) < before && !ack.Busy {
		p.busy = 0
	}
	if err != nil || len(p.inflight) == 0 {
		return err
	}
	switch {
	case ack.Busy:
		p.reason = string(id.Peer) + " has no room for more"
		for i := range p.inflight {
			p.inflight[i].attempts = 0
		}
		if p.busy = min(2*p.busy, lastBusy); len(p.inflight) < before || p.busy == 0 {
			p.busy = firstBusy
		}
		p.hold(p.busy)
	case ack.Gap && p.rewound != ack.Next:
		p.rewound = ack.Next
		p.cursor, p.more = p.base(), true
	}
	return nil
}

// deny deals with a broker that does not let a frame through. Its permissions may be mended at any moment,
// so it is tried again like what nobody listens to, one message at a time. It is reported once for as long as it lasts.
func (p *Publisher) deny() {
	p.probing, p.passed = true, false
	if p.denied {
		return
	}
	p.denied = true
	p.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.LinkFailed, Process: "publisher", Subject: p.subject,
		From: p.r.opts.Self, Method: p.rt.stream.Method, Err: fmt.Errorf("%s, and what is for it waits; by default nodes "+
			"may send to central only, and no commands: embeddedBrokerReach on central, or the permissions at another broker, say who may send what", p.why())})
}

// why is what is known of why there is no ack.
func (p *Publisher) why() string {
	if p.denied {
		return "the broker does not let this node send to " + string(p.rt.stream.Peer)
	}
	return p.reason
}

// renumber takes note of the number of the receiver's start that came with an ack. It reports
// whether there is no more to the ack: the frame was not taken, for it named another number.
func (p *Publisher) renumber(a ackOrNothing) bool {
	if !a.proof.signed || a.proof.yours == a.proof.mine {
		return false
	}
	if a.proof.yours == p.number { // else it is about an earlier frame, and known
		p.number = p.r.opts.Signatures.learn(p.rt.stream.Peer, p.number, a.proof.mine)
		switch {
		case a.ack.Next != 0:
		case len(p.inflight) == 0:
			p.r.reportRecorded(a.ack)
		case p.renamed:
			p.hold(renewWait)
		default:
			p.renamed = true
			p.restart("the receiver was started anew, or does not know this node yet")
		}
	}
	return a.ack.Next == 0
}

// renew begins an epoch above that. Until the next run of the node it counts for this stream
// in place of the store's.
func (p *Publisher) renew(above uint64) {
	p.rt.epoch = (above>>32+1)<<32 | uint64(rand.Uint32()) | 1
	p.epoch = 0 // no ack means anything before the next frame
	p.hold(renewWait)
}

// adopt deals with an ack of more than this publisher has sent: one before it, in the same
// run of the node, did. It is taken as in flight. An ack of what was never accepted is not
// real: somebody else has written into this stream, and it goes on in an epoch of its own.
func (p *Publisher) adopt(ack *wire.Ack) (real bool, err error) {
	from := p.cursor
	if n := len(p.inflight); n > 0 {
		from = max(from, p.inflight[n-1].seq+1)
	}
	for {
		info, queue, err := p.r.opts.Store.Read(p.rt.stream, from, p.r.opts.WindowMessages, p.r.opts.WindowBytes)
		if err != nil {
			return false, fmt.Errorf("read stream: %w", err)
		}
		if ack.Next > info.Next {
			p.log.Warn("the receiver has seen messages of this stream that are not from here; a new epoch begins",
				"next", ack.Next, "known", info.Next)
			p.renew(p.epoch)
			return false, nil
		}
		n := 0
		for n < len(queue) && queue[n].Seq < ack.Next {
			n++
		}
		if n == 0 {
			return true, nil
		}
		p.track(queue[:n], 0)
		from = queue[n-1].Seq + 1
		if err := p.advance(ack); err != nil {
			return false, err
		}
	}
}

// advance takes what an ack covers out of the window.
func (p *Publisher) advance(ack *wire.Ack) error {
	_, ahead := p.ahead()
	progress, err := p.refuse(ack)
	if err != nil {
		return err
	}
	n, size := 0, 0
	now := time.Now()
	for n < len(p.inflight) && p.inflight[n].seq < ack.Next {
		f := &p.inflight[n]
		n++
		size += f.size
		p.settled = append(p.settled, kvstore.Settled{Seq: f.seq, ID: f.id, Code: message.CodeDone, Attempts: f.attempts + 1,
			At: now, WantsReply: f.wantsReply})
		p.r.opts.Progress.step(Step{ID: f.id, What: StepDelivered, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method})
	}
	if n == 0 && !progress {
		return nil
	}
	p.rt.delivered.Add(uint64(n))
	p.rt.deliveredBytes.Add(uint64(size))
	p.inflight = append(p.inflight[:0], p.inflight[n:]...)
	if p.probing {
		p.probing, p.window = false, minWindow
		p.cursor = ack.Next
	} else if ahead > p.window/2 {
		p.window = min(2*p.window, p.r.opts.WindowBytes)
	}
	p.cursor = max(p.cursor, ack.Next, p.base())
	p.more, p.renamed, p.rewound, p.reason = true, false, 0, ""
	p.extend(now)
	return nil
}

// refuse gives up what the receiver took off the stream without accepting it.
func (p *Publisher) refuse(ack *wire.Ack) (refused bool, err error) {
	if len(ack.Refused) == 0 {
		return false, nil
	}
	no := make(map[uint64]*wire.Refusal, len(ack.Refused))
	for i := range ack.Refused {
		if r := &ack.Refused[i]; r.Seq < ack.Next {
			no[r.Seq] = r
		}
	}
	before := len(p.inflight)
	err = p.giveUp(func(f *flight) (message.Code, string) {
		r := no[f.seq]
		if r == nil {
			return "", ""
		}
		f.attempts++
		return r.Code, r.Text
	})
	return len(p.inflight) < before, err
}
