package process

import (
	"fmt"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// answer deals with an ack, or with the notice that nobody listens.
func (p *Publisher) answer(a ackOrNothing) error {
	if a.ack == nil {
		// The attempt is counted when its time is up; until then the receiver may come.
		p.probing = true
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
	if err := p.advance(ack); err != nil || len(p.inflight) == 0 {
		return err
	}
	switch {
	case ack.Busy:
		p.reason = string(id.Peer) + " has no room for more"
		for i := range p.inflight {
			p.inflight[i].attempts = 0
		}
		p.hold(busyWait)
	case ack.Gap && p.rewound != ack.Next:
		p.rewound = ack.Next
		p.cursor, p.more = p.base(), true
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
			p.epoch = 0 // its acks mean nothing from now on
			p.hold(renewWait)
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
	n := 0
	now := time.Now()
	for n < len(p.inflight) && p.inflight[n].seq < ack.Next {
		f := &p.inflight[n]
		n++
		p.settled = append(p.settled, kvstore.Settled{Seq: f.seq, ID: f.id, Code: message.CodeDone, Attempts: f.attempts + 1,
			At: now, WantsReply: f.wantsReply})
		p.r.opts.Progress.step(Step{ID: f.id, What: StepDelivered, Peer: p.rt.stream.Peer, Method: p.rt.stream.Method})
	}
	if n == 0 && !progress {
		return nil
	}
	p.inflight = append(p.inflight[:0], p.inflight[n:]...)
	if p.probing {
		p.probing, p.window = false, minWindow
		p.cursor = ack.Next
	} else if ahead > p.window/2 {
		p.window = min(2*p.window, p.r.opts.WindowBytes)
	}
	p.cursor = max(p.cursor, ack.Next, p.base())
	p.more, p.rewound, p.reason = true, 0, ""
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
