// Package natstransport carries frames over NATS.
//
// A [Transport] keeps one connection to one of its brokers, for as long as it is open: when
// a connection ends, for whatever reason, it makes the next one, and puts all subscriptions
// in force there before it says that there is a link. Nothing but Close ends it: not a
// broker that refuses us, not an error line that is new to the library.
//
// Each connection is a new nats.Conn, made by the one goroutine that owns it. The library
// could reconnect by itself, but it holds its lock while it dials (a frame published
// then waits for seconds instead of failing), tells nobody why an attempt failed, and
// closes for good on errors it does not know. A fresh connection also keeps nothing of the
// old one, so that no frame is ever sent late.
//
// Frames that arrive faster than their handler takes them are dropped once 4,096 or 32 MiB
// wait, which is one log line per burst. Nothing is drained on Close.
package natstransport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"steward/process"
	"steward/process/transport/internal/linkstate"
	"steward/process/transport/internal/subjects"
)

// maxPayload is taken for the limit of brokers until one has told its own.
const maxPayload = 1 << 20

// Transport is a process.Transport over NATS.
type Transport struct {
	opts    Options
	servers []server
	stop    context.CancelFunc
	ended   chan struct{} // closed when run has returned

	state   linkstate.State
	opened  linkstate.State
	live    atomic.Pointer[nats.Conn] // the link that is open
	largest atomic.Int64              // bytes, as the last broker told
	calls   calls
	faults  faults

	mu     sync.Mutex // guards the fields below; held while the library is told about subscriptions, never by run while it connects or by handlers
	subs   map[*subscription]struct{}
	added  int   // counts subscriptions ever made
	link   *link // the connection for new subscriptions; possibly not reported up yet
	closed bool
}

// Open checks o and starts to connect. It does not wait for a broker and never fails for
// want of one, only for options that cannot work. End it with Close.
func Open(o Options) (*Transport, error) {
	servers, err := o.servers()
	if err != nil {
		return nil, fmt.Errorf("open NATS transport: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t := &Transport{
		opts: o, servers: servers, stop: stop,
		ended: make(chan struct{}),
		subs:  make(map[*subscription]struct{}),
	}
	t.faults = faults{log: o.Log, reporter: o.Report, advisor: advisor{Options: o, public: servers[0].opts.Nkey}}
	t.largest.Store(maxPayload)
	t.calls.idle = make(chan struct{})
	go t.run(ctx)
	return t, nil
}

// run owns the connection: it makes one, serves it until it ends, makes the next one.
func (t *Transport) run(ctx context.Context) {
	defer close(t.ended)
	wait := time.Duration(0)
	for pause(ctx, wait) {
		wait = t.opts.ReconnectWait
		if l := t.connect(ctx); l != nil {
			began := time.Now()
			t.serve(ctx, l)
			// A link that held is worth trying again at once; one that did not is no reason
			// to knock faster.
			wait = max(0, wait-time.Since(began))
		}
		if t.opts.ReconnectJitter > 0 {
			wait += rand.N(t.opts.ReconnectJitter)
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// connect tries every broker once, and returns nil when none would have us.
func (t *Transport) connect(ctx context.Context) *link {
	for _, i := range rand.Perm(len(t.servers)) {
		l, err := t.dial(ctx, t.servers[i])
		if err == nil {
			return l
		}
		if ctx.Err() != nil {
			return nil
		}
		t.faults.attempt(t.servers[i].name, err)
	}
	return nil
}

// serve reports l up once all subscriptions are in force on it, and returns when it has
// ended.
func (t *Transport) serve(ctx context.Context, l *link) {
	err := t.raise(ctx, l)
	if err == nil {
		select {
		case <-ctx.Done():
		case <-l.gone:
		}
	}
	t.live.Store(nil)
	t.opened.Set(false)
	t.state.Set(false)
	t.mu.Lock()
	t.link = nil
	t.mu.Unlock()
	l.end()
	switch {
	case ctx.Err() != nil:
		t.opts.Log.Info("connection to the broker closed", "server", l.server)
	case err != nil:
		t.faults.attempt(l.server, err)
	default:
		t.faults.lost(l.server, l.nc.LastError())
	}
}

func (t *Transport) raise(ctx context.Context, l *link) error {
	t.mu.Lock()
	t.link = l
	for s := range t.subs {
		t.join(l, s)
	}
	added := t.added
	t.largest.Store(l.nc.MaxPayload())
	t.live.Store(l.nc)
	t.opened.Set(true)
	t.mu.Unlock()
	for {
		flush, cancel := context.WithTimeout(ctx, t.opts.ConnectTimeout)
		err := l.nc.FlushWithContext(flush)
		cancel()
		if err != nil {
			if last := l.nc.LastError(); last != nil {
				err = last // why the connection ended, rather than that it did
			}
			return fmt.Errorf("subscribe: %w", err)
		}
		t.mu.Lock()
		if t.added == added { // none has come in between
			t.faults.up(l.server) // before others see the link
			t.state.Set(true)
			t.mu.Unlock()
			return nil
		}
		added = t.added
		t.mu.Unlock()
	}
}

// Publish hands data to the link. It may wait for up to Options.WriteTimeout on a link that
// has stalled.
func (t *Transport) Publish(subject, reply string, data []byte) error {
	if err := subjects.Check(subject); err != nil {
		return err
	}
	if reply != "" {
		if err := subjects.Check(reply); err != nil {
			return fmt.Errorf("reply: %w", err)
		}
	}
	nc := t.live.Load()
	if nc == nil {
		return process.ErrOffline
	}
	var err error
	if reply == "" {
		err = nc.Publish(subject, data)
	} else {
		err = nc.PublishRequest(subject, reply, data)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("frame of %d bytes: %w (%d)", len(data), process.ErrTooLarge, nc.MaxPayload())
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, net.ErrClosed):
		return process.ErrOffline
	}
	return fmt.Errorf("publish %s: %w", subject, err)
}

// OnDenied has f told of each frame that the broker does not let this node publish, by the subject; f reports
// whether it makes that known itself, and must not block. Without it, it is reported as what else a broker refuses.
func (t *Transport) OnDenied(f func(subject string) (known bool)) { t.faults.denied.Store(&f) }

// Flush is a round trip to the broker.
func (t *Transport) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	nc := t.live.Load()
	if nc == nil {
		return process.ErrOffline
	}
	if _, ok := ctx.Deadline(); !ok { // the library insists on one
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 24*time.Hour)
		defer cancel()
	}
	err := nc.FlushWithContext(ctx)
	if errors.Is(err, nats.ErrConnectionClosed) {
		return process.ErrOffline
	}
	return err
}

// State reports whether there is a link.
func (t *Transport) State() (up bool, changed <-chan struct{}) { return t.state.Get() }

// Trouble says why there is no link, with what to do about it, as the last attempt or the end of the last link has
// shown. It is nil when there is one, and before the first attempt has failed.
func (t *Transport) Trouble() error {
	t.faults.mu.Lock()
	defer t.faults.mu.Unlock()
	return t.faults.last
}

// Opened reports whether there is a link on which the broker was told of all subscriptions, and
// does not wait for its word that it has taken note, as State does: a round trip earlier. A
// broker deals with what comes on a connection in order, so whoever gets what is published here finds the
// subscriptions in force.
func (t *Transport) Opened() (open bool, changed <-chan struct{}) { return t.opened.Get() }

// MaxPayload is the limit of the broker we are or were last connected to, in bytes; before
// the first link it is 1 MiB.
func (t *Transport) MaxPayload() int {
	if nc := t.live.Load(); nc != nil {
		return int(nc.MaxPayload())
	}
	return int(t.largest.Load())
}

// Close ends the connection and all subscriptions at once; what should still leave has to
// be flushed before. It waits for handler calls under way and for the transport's own
// goroutine. When ctx ends before that, which a handler that blocks brings about, it
// returns an error; all but that call is over then. It may be called twice, and not by a
// handler, which would wait for itself.
func (t *Transport) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	idle := t.calls.close()
	t.stop()
	for what, done := range map[string]<-chan struct{}{"connection": t.ended, "handler": idle} {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("close NATS transport: %s still busy: %w", what, ctx.Err())
		}
	}
	return nil
}
