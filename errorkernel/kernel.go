package errorkernel

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"steward/internal/logattr"
	"steward/message"
)

const (
	maxQueue      = 256             // lines waiting to be sent
	handOverBound = 2 * time.Second // for the lines left when the kernel is stopped
)

// Options are what a [Kernel] needs.
type Options struct {
	Node message.Node // named in each error message
	Log  *slog.Logger

	// Send hands one line of text over to the node, which makes it a REQErrorLog message
	// for central; it returns when that is on disk. It obeys ctx and is called by one
	// goroutine at a time. A failure of it is not to be reported back to the kernel.
	Send func(ctx context.Context, text string) error

	Policy Policy        // nil: DefaultPolicy
	Window time.Duration // within it the same failure is one event; 0: a minute
}

// Kernel is the error kernel of one node. Report may be called by many goroutines at
// once, at any time: before Serve runs events wait in a bounded queue, after it has ended
// they go to the local log only.
type Kernel struct {
	node   message.Node
	log    *slog.Logger
	send   func(ctx context.Context, text string) error
	policy Policy
	wake   chan struct{}                  // one slot: there is something to do for Serve
	counts [len(classNames)]atomic.Uint64 // events reported, by class

	mu       sync.Mutex // guards all below
	episodes episodes
	queue    []queued // for central, the oldest in front
	lost     int      // events that are in no line sent or queued
	stopped  bool
}

// queued is a line for central, and how many events it stands for.
type queued struct {
	text  string
	count int
}

// New returns a kernel that takes events at once. The error says which option is missing
// or out of range.
func New(o Options) (*Kernel, error) {
	if o.Policy == nil {
		o.Policy = DefaultPolicy
	}
	if o.Window == 0 {
		o.Window = time.Minute
	}
	switch {
	case o.Log == nil:
		return nil, errors.New("error kernel: no logger")
	case o.Send == nil:
		return nil, errors.New("error kernel: nothing to send with")
	case o.Window < 0:
		return nil, errors.New("error kernel: the window is negative")
	}
	if err := o.Node.Check(); err != nil {
		return nil, err
	}
	return &Kernel{
		node:     o.Node,
		log:      o.Log,
		send:     o.Send,
		policy:   o.Policy,
		wake:     make(chan struct{}, 1),
		episodes: newEpisodes(o.Window),
	}, nil
}

// Report decides about ev, logs it, and queues it for central. It does no I/O but the
// logging and waits for nothing.
func (k *Kernel) Report(ev Event) Action {
	action := k.policy(ev)
	if action == 0 {
		action = DefaultPolicy(ev)
	}
	local := ev.Stored || aboutErrorLog(ev)
	if int(ev.Class) < len(k.counts) {
		k.counts[ev.Class].Add(1)
	}
	ev, cause := bounded(ev)
	now := time.Now()

	k.mu.Lock()
	sums := k.sumUp(k.episodes.due(now))
	verdict, count := k.episodes.take(ev, cause, action, now)
	switch {
	case k.stopped || local || verdict == repeated:
	case verdict == first:
		k.enqueue(queued{line(k.node, ev, cause, 1, nil), 1})
	default:
		k.lost++
	}
	k.mu.Unlock()
	k.signal()

	k.logSums(sums)
	lvl := level(ev.Class, action)
	if verdict == repeated {
		lvl = slog.LevelDebug
	}
	k.logEvent(lvl, ev, cause, count, nil, action)
	return action
}

// Counts returns how many events of each class were reported so far, repetitions among them.
func (k *Kernel) Counts() map[Class]uint64 {
	counts := make(map[Class]uint64, len(k.counts))
	for c := Class(1); int(c) < len(k.counts); c++ {
		counts[c] = k.counts[c].Load()
	}
	return counts
}

// Serve sends what was reported until ctx ends. Then it hands over what is queued, once and
// in a short time, and returns nil. It may be called again after it has returned.
func (k *Kernel) Serve(ctx context.Context) error {
	k.mu.Lock()
	k.stopped = false
	k.mu.Unlock()

	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for ctx.Err() == nil {
		head, lost, wait := k.next()
		if head.count == 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
			case <-k.wake:
			case <-timer.C:
			}
			continue
		}
		err := k.send(ctx, addLost(head.text, lost))
		switch {
		case err == nil:
			failing = false
		case ctx.Err() != nil:
			k.putBack(head, lost)
		default:
			k.notSent(head, lost, err, failing)
			failing = true
		}
	}
	k.handOver(ctx)
	return nil
}

// handOver sends what is left when the kernel is stopped.
func (k *Kernel) handOver(ctx context.Context) {
	k.mu.Lock()
	sums := k.sumUp(k.episodes.rest())
	queue, lost := k.queue, k.lost
	k.queue, k.lost, k.stopped = nil, 0, true
	k.mu.Unlock()
	k.logSums(sums)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverBound)
	defer cancel()
	unsent := 0
	for _, q := range queue {
		err := ctx.Err()
		if err == nil {
			err = k.send(ctx, addLost(q.text, lost))
		}
		if err != nil {
			k.log.Debug("error message not handed over", slog.String("text", q.text), logattr.Err(err))
			unsent++
			lost += q.count
			continue
		}
		lost = 0
	}
	if lost > 0 {
		k.log.Warn("error messages not handed over before the stop",
			slog.Int("count", unsent), slog.Int("lost", lost))
	}
}

// next takes the first line off the queue, with the number of events lost since the last
// one. Without a line (its count is 0), it says how long to wait for the next window to end.
func (k *Kernel) next() (head queued, lost int, wait time.Duration) {
	now := time.Now()
	k.mu.Lock()
	sums := k.sumUp(k.episodes.due(now))
	wait = k.episodes.window
	if ends, open := k.episodes.next(); open {
		wait = ends.Sub(now)
	}
	if len(k.queue) > 0 {
		head, lost = k.queue[0], k.lost
		k.queue[0] = queued{}
		k.queue = k.queue[1:]
		k.lost = 0
	}
	k.mu.Unlock()
	k.logSums(sums)
	return head, lost, wait
}

// putBack undoes next.
func (k *Kernel) putBack(head queued, lost int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = append([]queued{head}, k.queue...)
	k.lost += lost
}

// notSent drops a line that the node did not take. It is not tried again: what keeps the
// node from taking it is most likely what it is about. It is in the local log already.
func (k *Kernel) notSent(head queued, lost int, err error, again bool) {
	k.mu.Lock()
	k.lost += lost + head.count
	k.mu.Unlock()
	lvl := slog.LevelWarn
	if again {
		lvl = slog.LevelDebug
	}
	k.log.Log(context.Background(), lvl, "error message not handed over", slog.String("text", head.text), logattr.Err(err))
}

// enqueue adds a line; when the queue is full those in it stay, since they are nearer to
// the cause. k.mu is held.
func (k *Kernel) enqueue(q queued) {
	if len(k.queue) >= maxQueue {
		k.lost += q.count
		return
	}
	k.queue = append(k.queue, q)
}

// sumUp queues the sums of repeated failures, and returns them for the log. k.mu is held.
func (k *Kernel) sumUp(sums []episode) []episode {
	for _, s := range sums {
		if !k.stopped && !s.event.Stored && !aboutErrorLog(s.event) {
			k.enqueue(queued{line(k.node, s.event, s.cause, s.count, s.ids), s.count})
		}
	}
	return sums
}

func (k *Kernel) logSums(sums []episode) {
	for _, s := range sums {
		k.logEvent(level(s.event.Class, s.action), s.event, s.cause, s.count, s.ids, s.action)
	}
}

func (k *Kernel) logEvent(lvl slog.Level, ev Event, cause string, count int, ids []message.ID, action Action) {
	ctx := context.Background()
	if !k.log.Enabled(ctx, lvl) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("class", ev.Class.String()), slog.String("action", action.String()))
	if ev.Process != "" {
		attrs = append(attrs, logattr.Process(ev.Process))
	}
	if ev.Subject != "" {
		attrs = append(attrs, logattr.Subject(ev.Subject))
	}
	if ev.Method != "" {
		attrs = append(attrs, logattr.Method(ev.Method))
	}
	if !ev.ID.IsZero() {
		attrs = append(attrs, logattr.ID(ev.ID))
	}
	if ev.From != "" {
		attrs = append(attrs, logattr.From(ev.From))
	}
	if ev.Failures > 1 {
		attrs = append(attrs, slog.Int("failures", ev.Failures))
	}
	if count > 1 {
		attrs = append(attrs, slog.Int("count", count))
	}
	if len(ids) > 0 {
		attrs = append(attrs, slog.Any("msg_ids", ids))
	}
	attrs = append(attrs, slog.String(logattr.KeyErr, cause))
	if ev.Stack != "" {
		attrs = append(attrs, slog.String("stack", ev.Stack))
	}
	text := "failure reported"
	if ev.Class == WroteStderr {
		text = "command wrote on stderr"
	}
	k.log.LogAttrs(ctx, lvl, text, attrs...)
}

// signal wakes Serve.
func (k *Kernel) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// aboutErrorLog is the loop guard: it reports whether an event has to do with the delivery
// of error messages. Sending it as one more of them would feed the failure. A supervisor
// knows the name of the failed process only, and that of a publisher or subscriber holds
// its method.
func aboutErrorLog(ev Event) bool {
	const m = string(message.MethodErrorLog)
	return ev.Method == message.MethodErrorLog || strings.Contains(ev.Subject, m) || strings.Contains(ev.Process, m)
}
