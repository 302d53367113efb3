package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
)

// QueueFilter says which messages of the ring buffer are meant. All that is set has to fit.
type QueueFilter struct {
	ID        message.ID
	To        message.Node
	Method    message.Method
	OlderThan time.Duration // since acceptance
}

// Cleared says how many messages were taken off a stream.
type Cleared struct {
	To       message.Node
	Method   message.Method
	Messages int
}

// Clear takes messages off the ring buffer and returns from which streams, sorted. They end
// as removed. So do messages with a schedule that wait on this node for a further run. One that was under way may arrive all the same; when its reply comes, that has
// the last word. After an error, or the end of ctx, what is returned is gone all the same.
func (r *Router) Clear(ctx context.Context, f QueueFilter, by string) ([]Cleared, error) {
	all, err := r.unschedule(f, by)
	if err != nil {
		return nil, err
	}
	queued, err := r.clearQueued(ctx, f, by)
	return append(all, queued...), err
}

func (r *Router) clearQueued(ctx context.Context, f QueueFilter, by string) ([]Cleared, error) {
	if !f.ID.IsZero() {
		life, err := r.opts.Store.Sent(f.ID)
		if errors.Is(err, kvstore.ErrNotFound) || err == nil && !f.fits(f.ID, life.Peer, life.Method, r.opts.Now()) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for message %s: %w", f.ID, err)
		}
		id := kvstore.Stream{Peer: life.Peer, Method: life.Method}
		n, err := r.remove(id, []kvstore.Settled{removal(life.Seq, life.ID, life.WantsReply, by)})
		return cleared(nil, id, n), err
	}
	streams, err := r.opts.Store.Streams()
	if err != nil {
		return nil, fmt.Errorf("look for waiting messages: %w", err)
	}
	var all []Cleared
	for _, info := range streams {
		if f.To != "" && f.To != info.Peer || f.Method != "" && f.Method != info.Method {
			continue
		}
		n, err := r.clearStream(ctx, info, f, by)
		if all = cleared(all, info.Stream, n); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (f *QueueFilter) fits(id message.ID, to message.Node, m message.Method, now time.Time) bool {
	return (f.To == "" || f.To == to) && (f.Method == "" || f.Method == m) && (f.OlderThan == 0 || now.Sub(id.Time()) > f.OlderThan)
}

// clearStream looks at what is on a stream now, a part at a time: what comes meanwhile stays.
func (r *Router) clearStream(ctx context.Context, info kvstore.StreamInfo, f QueueFilter, by string) (total int, err error) {
	now := r.opts.Now()
	for from := info.First; from < info.Next; {
		if err := ctx.Err(); err != nil {
			return total, fmt.Errorf("clear %s to %s: %w", info.Method, info.Peer, err)
		}
		_, queue, err := r.opts.Store.Read(info.Stream, from, r.opts.WindowMessages, r.opts.WindowBytes)
		if err != nil {
			return total, fmt.Errorf("read stream: %w", err)
		}
		if len(queue) == 0 {
			break
		}
		from = queue[len(queue)-1].Seq + 1
		var ends []kvstore.Settled
		for _, q := range queue {
			if q.Seq < info.Next && f.fits(q.ID, info.Peer, info.Method, now) {
				ends = append(ends, removal(q.Seq, q.ID, q.WantsReply, by))
			}
		}
		if len(ends) == 0 {
			continue
		}
		n, err := r.remove(info.Stream, ends)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

func removal(seq uint64, id message.ID, wantsReply bool, by string) kvstore.Settled {
	return kvstore.Settled{Seq: seq, ID: id, Code: message.CodeRemoved, Text: "removed by " + by, At: time.Now(), WantsReply: wantsReply}
}

// remove takes messages off a stream, and tells its publisher when that is on disk.
func (r *Router) remove(id kvstore.Stream, ends []kvstore.Settled) (int, error) {
	removed, err := r.opts.Store.Remove(id, ends)
	if err != nil {
		return 0, fmt.Errorf("remove %d messages: %w", len(ends), err)
	}
	r.mu.Lock()
	if rt := r.routes[id]; rt != nil {
		notify(rt.cleared)
	}
	r.mu.Unlock()
	if len(removed) > 0 {
		r.wakeNotices(id.Peer)
	}
	for _, m := range removed {
		r.opts.Log.Info("message removed from the queue", logattr.ID(m), logattr.To(id.Peer), logattr.Method(id.Method), "why", ends[0].Text)
		r.opts.Progress.step(Step{ID: m, What: StepRemoved, Peer: id.Peer, Method: id.Method, Text: ends[0].Text})
	}
	return len(removed), nil
}

func cleared(all []Cleared, id kvstore.Stream, n int) []Cleared {
	if n == 0 {
		return all
	}
	return append(all, Cleared{To: id.Peer, Method: id.Method, Messages: n})
}

// forget takes out of the window what an operator has taken off the stream. It counts as
// given up: the next frame begins behind it, or leaves it out.
func (p *Publisher) forget() error {
	if len(p.inflight) == 0 {
		p.more = true
		return nil
	}
	last := p.inflight[len(p.inflight)-1].seq
	there := make(map[uint64]bool, len(p.inflight))
	for from := p.base(); from <= last; {
		_, queue, err := p.r.opts.Store.Read(p.rt.stream, from, p.r.opts.WindowMessages, p.r.opts.FrameBytes)
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if len(queue) == 0 {
			break
		}
		for _, q := range queue {
			there[q.Seq] = true
		}
		from = queue[len(queue)-1].Seq + 1
	}
	keep := make([]flight, 0, len(p.inflight))
	past := uint64(0)
	for _, f := range p.inflight {
		if there[f.seq] {
			keep = append(keep, f)
		} else {
			past = f.seq + 1
		}
	}
	if past > 0 {
		p.retain(keep, past)
	}
	return nil
}
