package process

import (
	"fmt"
	"time"
)

// mostUnsent bounds the messages that are in flight without having been sent.
const mostUnsent = 256

// watch puts messages in flight that are not sent now, since the receiver does not answer, or there is no link.
func (p *Publisher) watch() error {
	for p.behind && (p.probing || p.held) && len(p.inflight) > 0 && len(p.inflight) < mostUnsent {
		known := len(p.inflight)
		_, queue, err := p.r.opts.Store.Read(p.rt.stream, p.inflight[known-1].seq+1, mostUnsent-known, p.r.opts.FrameBytes)
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if len(queue) == 0 {
			p.behind = false
			return nil
		}
		p.track(queue, 0)
		// Their attempts end with the second: each end makes for a new one, and there may be many that were
		// accepted at about the same time.
		attempt := time.Now()
		if p.resume.After(attempt) {
			attempt = p.resume
		}
		for i := known; i < len(p.inflight); i++ {
			f := &p.inflight[i]
			wait := attempt.Add(f.ackTimeout).Sub(p.began)
			f.due = p.began.Add((wait + time.Second - 1).Truncate(time.Second))
		}
		if !p.deadline.IsZero() {
			p.deadline = time.Time{}
			for i := range p.inflight {
				p.await(p.inflight[i].due)
			}
		}
	}
	return nil
}
