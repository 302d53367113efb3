package errorkernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"steward/internal/logattr"
	"steward/message"
)

// A bad end of a message must reach central even when the node is killed at the very moment
// after it. So it is not told by way of the kernel's memory: [Pack] makes it bytes, which the store keeps
// in the commit of the end, and a [Teller] takes it from there, in one commit with the error message.

// packed is an event on disk. Keys never change their meaning.
type packed struct {
	Class   Class          `json:"class"`
	Process string         `json:"process,omitempty"`
	Subject string         `json:"subject,omitempty"`
	ID      message.ID     `json:"id"`
	From    message.Node   `json:"from,omitempty"`
	Method  message.Method `json:"method,omitempty"`
	Cause   string         `json:"cause"`
	At      int64          `json:"at"` // milliseconds since 1970
}

// Pack makes ev bytes for a [Teller], or nil when it is about the delivery of error messages, which
// is never told. Who stores them sets ev.Stored when it reports ev.
func Pack(ev Event) []byte {
	if aboutErrorLog(ev) {
		return nil
	}
	ev, cause := bounded(ev)
	b, err := json.Marshal(packed{Class: ev.Class, Process: ev.Process, Subject: ev.Subject, ID: ev.ID, From: ev.From, Method: ev.Method,
		Cause: cause, At: ev.At.UnixMilli()})
	if err != nil {
		return nil // texts and numbers only: it never fails
	}
	return b
}

func (p *packed) event() Event {
	return Event{Class: p.Class, Process: p.Process, Subject: p.Subject, ID: p.ID, From: p.From, Method: p.Method, At: time.UnixMilli(p.At)}
}

// Stored is an event that was packed and stored.
type Stored struct {
	Key  []byte
	Text []byte
}

// TellerOptions are what a [Teller] needs. Only Window may be left out.
type TellerOptions struct {
	Node message.Node
	Log  *slog.Logger
	// Stored returns the oldest stored events, at most n, and how many there was no room to store.
	Stored func(n int) (events []Stored, lost uint64, err error)
	// Tell hands lines over to the node, which makes them error messages for central, and forgets
	// the events and the lost ones that they are about, in one commit.
	Tell   func(ctx context.Context, lines []string, keys [][]byte, lost uint64) error
	Window time.Duration // within it the same failure is one line; 0: a minute
}

// Teller tells central about stored events: at once about the first of its kind, and once in a
// window about its repetitions, with the ids of all. It is a process.Service; Wake may be
// called at any time.
type Teller struct {
	opts  TellerOptions
	wake  chan struct{}        // one slot
	kinds map[string]time.Time // until when a kind of failure is not told again; owned by Serve
}

const (
	maxTold   = 4096        // events looked at in one go
	maxKinds  = 1024        // different failures remembered at a time
	tellAfter = time.Second // after a look the next one comes no earlier
)

// NewTeller checks the options and returns a teller.
func NewTeller(o TellerOptions) (*Teller, error) {
	if o.Window == 0 {
		o.Window = time.Minute
	}
	if o.Log == nil || o.Stored == nil || o.Tell == nil || o.Window < 0 {
		return nil, errors.New("teller: an option is missing")
	}
	if err := o.Node.Check(); err != nil {
		return nil, fmt.Errorf("teller: %w", err)
	}
	return &Teller{opts: o, wake: make(chan struct{}, 1), kinds: map[string]time.Time{}}, nil
}

// Wake says that an event was stored.
func (t *Teller) Wake() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Serve tells until ctx ends. What is stored then is told by the next one.
func (t *Teller) Serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	var again time.Time // not before this
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
			if left := time.Until(again); left > 0 {
				timer.Reset(left)
				continue
			}
		case <-timer.C:
		}
		wait, err := t.tell(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failing = false
		default:
			lvl := slog.LevelWarn
			if failing {
				lvl = slog.LevelDebug
			}
			failing, wait = true, tellAfter
			t.opts.Log.Log(ctx, lvl, "bad ends are not told yet", logattr.Err(err))
		}
		timer.Stop()
		if wait > 0 {
			timer.Reset(wait)
			again = time.Now().Add(tellAfter)
		}
	}
}

// group is what is stored of one kind of failure.
type group struct {
	kind string
	last packed
	ids  []message.ID
	keys [][]byte
}

// tell hands over what is to be told now, and returns when to look again, 0 for when woken.
func (t *Teller) tell(ctx context.Context) (wait time.Duration, err error) {
	stored, lost, err := t.opts.Stored(maxTold)
	if err != nil || len(stored) == 0 && lost == 0 {
		return 0, err
	}
	now := time.Now()
	for kind, until := range t.kinds {
		if !until.After(now) {
			delete(t.kinds, kind)
		}
	}
	var groups []*group
	byKind := map[string]*group{}
	var lines []string
	var keys [][]byte
	for _, s := range stored {
		var p packed
		if err := json.Unmarshal(s.Text, &p); err != nil {
			lines, keys = append(lines, "an event that cannot be read: "+err.Error()), append(keys, s.Key)
			continue
		}
		kind := fmt.Sprintf("%d\x00%s\x00%s\x00%s\x00%s", p.Class, p.Process, p.Subject, p.From, p.Cause)
		g := byKind[kind]
		if g == nil || len(g.ids) == maxIDs {
			g = &group{kind: kind}
			groups, byKind[kind] = append(groups, g), g
		}
		g.last, g.ids, g.keys = p, append(g.ids, p.ID), append(g.keys, s.Key)
	}
	told := map[string]bool{}
	for _, g := range groups {
		until, known := t.kinds[g.kind]
		if known && len(g.ids) < maxIDs && !told[g.kind] && len(stored) < maxTold {
			if left := until.Sub(now); wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		ids := g.ids
		if len(ids) == 1 {
			ids = nil // the line names it
		}
		lines = append(lines, line(t.opts.Node, g.last.event(), g.last.Cause, len(g.ids), ids))
		keys = append(keys, g.keys...)
		told[g.kind] = true
	}
	if len(lines) == 0 && lost > 0 {
		lines = append(lines, fmt.Sprintf("%d more messages ended badly, see the log of %s", lost, t.opts.Node))
	} else if len(lines) > 0 {
		lines[len(lines)-1] = addLost(lines[len(lines)-1], int(lost))
	}
	if len(lines) == 0 {
		return max(wait, time.Millisecond), nil
	}
	if err := t.opts.Tell(ctx, lines, keys, lost); err != nil {
		return 0, err
	}
	for kind := range told {
		if _, known := t.kinds[kind]; known || len(t.kinds) < maxKinds {
			t.kinds[kind] = now.Add(t.opts.Window)
		}
	}
	return tellAfter, nil
}
