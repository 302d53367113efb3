package process

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"steward/errorkernel"
	"steward/kvstore"
	"steward/message"
)

// QuotaOptions configure a quota.
type QuotaOptions struct {
	// Messages and Bytes are how much of each other node is taken in a second; 0: no limit.
	Messages, Bytes int64
	Report          errorkernel.Reporter
}

// Quota bounds what every other node may have taken here, all its methods together: what it sends in the mean of ten
// seconds. A frame counts as one message at least, for even one that has come before costs a commit. What is more is not acknowledged, and its sender told to come later, so that it waits there and in its order. A
// nil one bounds nothing.
//
// Who has come to its bound gets no more until there is room for half of that: were each message taken as soon as there is
// room for it, a window of them would be sent for every one that is taken.
type Quota struct {
	opts QuotaOptions
	held atomic.Int64

	mu      sync.Mutex // guards what follows
	senders map[message.Node]*sender
}

// sender is what of one node is under way here, and may be.
type sender struct {
	messages, bytes *rate.Limiter
	promised        kvstore.Load // granted, and not settled yet
	over            bool         // it has come to its bound
}

const (
	// quotaSpan is the time over which a quota is a mean.
	quotaSpan = 10 // seconds
	// mostSenders bounds the nodes that are counted one by one. Without signatures anybody can make up names; then the
	// others are counted as one.
	mostSenders = 10_000
)

// NewQuota checks the options. It returns nil when there is no limit.
func NewQuota(opts QuotaOptions) (*Quota, error) {
	switch {
	case opts.Messages < 0, opts.Bytes < 0:
		return nil, errors.New("quota: a limit is negative")
	case opts.Messages == 0 && opts.Bytes == 0:
		return nil, nil
	case opts.Report == nil:
		return nil, errors.New("quota: an option is missing")
	}
	return &Quota{opts: opts, senders: map[message.Node]*sender{}}, nil
}

// Held returns how many frames were not taken as a whole since the start, because their sender had used up its quota.
func (q *Quota) Held() int64 {
	if q == nil {
		return 0
	}
	return q.held.Load()
}

// grant is what a sender may have taken now. It has to be settled.
type grant struct {
	kvstore.Load
	q *Quota
	s *sender
}

// ask grants a sender as much as it may have taken now of what it wants. A nil grant is one of everything.
func (q *Quota) ask(n message.Node, want kvstore.Load) *grant {
	if q == nil {
		return nil
	}
	now := time.Now()
	q.mu.Lock()
	s := q.sender(n, now)
	given := kvstore.Load{}
	if messages, bytes := s.left(s.messages, s.promised.Messages, now), s.left(s.bytes, s.promised.Bytes, now); messages > 0 && bytes > 0 {
		given = kvstore.Load{Messages: min(want.Messages, messages), Bytes: min(want.Bytes, bytes)}
	}
	s.promised.Messages += given.Messages
	s.promised.Bytes += given.Bytes
	s.over = given != want
	q.mu.Unlock()
	if given != want {
		q.held.Add(1)
		// Without the method: else central would not learn of too many error messages.
		q.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "quota", From: n, Err: fmt.Errorf(
			"%s sends more than is taken of a node here (senderMessagesPerSecond, senderBytesPerSecond); what is too much waits there", n)})
	}
	return &grant{given, q, s}
}

// most is what may be stored, as kvstore.Arrival has it.
func (g *grant) most() *kvstore.Load {
	if g == nil {
		return nil
	}
	return &g.Load
}

// nothing says that all has to wait.
func (g *grant) nothing() bool { return g != nil && g.Messages == 0 }

// settle says what was taken.
func (g *grant) settle(taken kvstore.Load) {
	if g == nil {
		return
	}
	now := time.Now()
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	g.s.promised.Messages -= g.Messages
	g.s.promised.Bytes -= g.Bytes
	spend(g.s.messages, taken.Messages, now)
	spend(g.s.bytes, taken.Bytes, now)
}

// left is how much of a limit is left, 0 for who has to wait.
func (s *sender) left(l *rate.Limiter, promised int64, now time.Time) int64 {
	if l == nil {
		return math.MaxInt64
	}
	left := int64(math.Floor(l.TokensAt(now))) - promised
	if s.over && left < int64(l.Burst()/2) {
		return 0
	}
	return left
}

// spend takes n off a limit, by which it may come to be below 0.
func spend(l *rate.Limiter, n int64, now time.Time) {
	for most := int64(math.MaxInt64); l != nil && n > 0; n -= most {
		most = min(int64(l.Burst()), n)
		l.ReserveN(now, int(most))
	}
}

// sender is called with mu held.
func (q *Quota) sender(n message.Node, now time.Time) *sender {
	s := q.senders[n]
	if s == nil && len(q.senders) >= mostSenders {
		q.forget(now)
		if len(q.senders) >= mostSenders {
			n = ""
			s = q.senders[n]
		}
	}
	if s == nil {
		s = &sender{messages: limiter(q.opts.Messages), bytes: limiter(q.opts.Bytes)}
		q.senders[n] = s
	}
	return s
}

// forget drops those of whom nothing was heard for so long that it makes no difference. It is called with mu held.
func (q *Quota) forget(now time.Time) {
	for n, s := range q.senders {
		if s.promised == (kvstore.Load{}) && full(s.messages, now) && full(s.bytes, now) {
			delete(q.senders, n)
		}
	}
}

func full(l *rate.Limiter, now time.Time) bool {
	return l == nil || l.TokensAt(now) >= float64(l.Burst())
}

func limiter(perSecond int64) *rate.Limiter {
	if perSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(quotaSpan*perSecond, math.MaxInt32)))
}
