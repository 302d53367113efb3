package process

import (
	"context"
	"fmt"
	"slices"
	"time"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

const (
	// settling is how long after a node has named the number of this start the last of what it sent before
	// may still come in.
	settling = 10 * time.Second
	// late is how long what a node has sent may be on its way, and how long it may take it to name the number of
	// this start when it was told.
	late = time.Minute
	// mostPending bounds the starts of one node that are waited for, and mostDoubts those of all.
	mostPending = 8
	mostDoubts  = 1 << 16
)

// started is a start of another node that has named the number of this one.
type started struct {
	number uint64
	at     time.Time
	// When it sent what named it, for the first time and the last, by its own clock, in milliseconds.
	first, last int64
}

// pending is a start of another node of which only came what does not name the number of this one: it was just told
// that, or has ended long ago and somebody sends what he has recorded.
type pending struct {
	number uint64
	sent   int64 // when it sent the oldest of it
	frames int
}

// doubt says when a pending start has had its time.
type doubt struct {
	peer   message.Node
	number uint64
	at     time.Time
}

// fresh says whether a frame, the proof of which is p, was written for this start of this node, and a
// frame without ACK, which has a count, came for the first time. When not, the sender is to be
// told the number of this start, and next, the count from which on its frames without ACK are
// taken. The error is for people: that somebody may have recorded it, or some before it. It is nil when that is what
// happens after each start; then it may show later, see Serve.
func (s *Signatures) fresh(p proof, f *wire.Frame) (ok bool, next uint64, err error) {
	if s == nil || !p.signed {
		return true, 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	peer := s.peer(f.From)
	named := p.yours == s.number
	if named && peer.number == 0 {
		peer.number = p.mine
	}
	if !s.opts.Require {
		return true, 0, nil
	}
	c, unacked := &counts{}, f.Epoch == 0
	if unacked {
		c = s.countsOf(kvstore.Stream{Peer: f.From, Method: f.Method})
	}
	if named && (!unacked || f.First > c.taken) {
		c.taken = f.First
		return true, 0, s.confirm(peer, p.mine, f)
	}
	err = s.refuse(stale, "it was written before the last start of %s, or has come before: somebody may have recorded it", s.opts.Self)
	if !named && !s.suspect(peer, p, f) {
		err = nil
	}
	return false, c.taken + 1, err
}

// suspect says whether a frame that does not name the number of this start is none of those that come after each start
// of one of the two nodes. It is called with mu held.
func (s *Signatures) suspect(peer *signer, p proof, f *wire.Frame) bool {
	switch {
	case p.mine == peer.by.number:
		// It may not know the count yet of what it sends without ACK.
		counting := f.Epoch == 0 && p.yours == 0
		return !counting && time.Since(peer.by.at) >= settling || peer.by.last-f.Sent > late.Milliseconds()
	case p.yours != 0 && !peer.fresh.IsZero() && time.Since(peer.fresh) >= settling:
		return true
	}
	i := slices.IndexFunc(peer.stale, func(of pending) bool { return of.number == p.mine })
	if i < 0 {
		if len(peer.stale) >= mostPending || len(s.doubts) >= mostDoubts {
			return true
		}
		i = len(peer.stale)
		peer.stale = append(peer.stale, pending{number: p.mine, sent: f.Sent})
		s.doubts = append(s.doubts, doubt{f.From, p.mine, time.Now().Add(late)})
		notify(s.doubted)
	}
	of := &peer.stale[i]
	of.frames++
	of.sent = min(of.sent, f.Sent)
	return false
}

// confirm notes that a start of another node has named the number of this one. The error says that something of it had
// come before and was too old to have been on its way. It is called with mu held.
func (s *Signatures) confirm(peer *signer, number uint64, f *wire.Frame) error {
	if peer.fresh.IsZero() {
		peer.fresh = time.Now()
	}
	if peer.by.number == number {
		peer.by.last = f.Sent
		return nil
	}
	peer.by = started{number: number, at: time.Now(), first: f.Sent, last: f.Sent}
	i := slices.IndexFunc(peer.stale, func(of pending) bool { return of.number == number })
	if i < 0 {
		return nil
	}
	of := peer.stale[i]
	peer.stale = slices.Delete(peer.stale, i, i+1)
	if f.Sent-of.sent <= late.Milliseconds() {
		return nil
	}
	return s.recorded(f.From, of)
}

// recorded is an error for people.
func (s *Signatures) recorded(peer message.Node, of pending) error {
	return fmt.Errorf("%d frames that say to be from %s were written before the last start of %s, and not by what runs as %s now: somebody may have recorded them",
		of.frames, peer, s.opts.Self, peer)
}

// Serve reports what was not written for this start of this node and was not followed by anything that is.
func (s *Signatures) Serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.doubted:
		case <-timer.C:
		}
		if wait, more := s.tellOverdue(); more {
			timer.Reset(wait)
		}
	}
}

// tellOverdue reports what has had its time, and returns how long the next one still has, if there is any.
func (s *Signatures) tellOverdue() (wait time.Duration, more bool) {
	var events []errorkernel.Event
	defer func() {
		for _, e := range events {
			if s.opts.Report != nil {
				s.opts.Report.Report(e)
			}
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	for now := time.Now(); len(s.doubts) > 0; s.doubts = s.doubts[1:] {
		d := s.doubts[0]
		if d.at.After(now) {
			return d.at.Sub(now), true
		}
		peer := s.peer(d.peer)
		i := slices.IndexFunc(peer.stale, func(of pending) bool { return of.number == d.number })
		if i < 0 {
			continue // it has named it since
		}
		of := peer.stale[i]
		peer.stale = slices.Delete(peer.stale, i, i+1)
		// Not of a start that has ended just before it could answer.
		if peer.by.first-of.sent > late.Milliseconds() || peer.by.first < of.sent {
			events = append(events, errorkernel.Event{Class: errorkernel.Unproven, Process: "signatures", From: d.peer, Err: s.recorded(d.peer, of)})
		}
	}
	s.doubts = nil
	return 0, false
}
