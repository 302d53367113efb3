package natstransport

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"steward/errorkernel"
)

// Probed is what came of trying one broker.
type Probed struct {
	Server string // without user and password
	Took   time.Duration
	Err    error // why it cannot be used, and what to do about that; nil when it can
	// TLS and Login say what it has for who comes. With a certificate to show Login is true, since nothing tells
	// whether the broker looks at that.
	TLS, Login bool
	// Denied are the subjects that it refuses, each with what to do about it.
	Denied []error
}

// Probe connects once to each broker in turn, as a Transport with these options would, asks whether it may listen and
// publish on these subjects, and leaves again. What it publishes is empty. The error is for options that
// cannot work.
func Probe(ctx context.Context, o Options, listen, publish []string) ([]Probed, error) {
	o.Log = slog.New(slog.DiscardHandler)
	servers, err := o.servers()
	if err != nil {
		return nil, err
	}
	var all []Probed
	for _, s := range servers {
		var denied refusals
		o.Report = &denied
		t := &Transport{opts: o, servers: servers, faults: faults{log: o.Log, reporter: &denied, advisor: advisor{Options: o, public: s.opts.Nkey}}}
		p := Probed{Server: s.name}
		began := time.Now()
		p.Err = t.probe(ctx, s, &p, listen, publish)
		p.Took = time.Since(began)
		if p.Err != nil {
			p.Err = fmt.Errorf("%w%s", p.Err, t.faults.advisor.advice(p.Err))
		}
		p.Denied = denied.errs
		all = append(all, p)
	}
	return all, nil
}

func (t *Transport) probe(ctx context.Context, s server, p *Probed, listen, publish []string) error {
	l, err := t.dial(ctx, s)
	if err != nil {
		return err
	}
	defer l.end() // after which all refusals have been told
	_, plain := l.nc.TLSConnectionState()
	p.TLS, p.Login = plain == nil, l.nc.AuthRequired() || t.opts.ClientCert != ""
	for _, subject := range listen {
		if _, err := l.nc.SubscribeSync(subject); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	for _, subject := range publish {
		if err := l.nc.Publish(subject, nil); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	flush, cancel := context.WithTimeout(ctx, t.opts.ConnectTimeout)
	defer cancel()
	if err := l.nc.FlushWithContext(flush); err != nil {
		if last := l.nc.LastError(); last != nil {
			err = last
		}
		return fmt.Errorf("round trip: %w", err)
	}
	return nil
}

// refusals collects what a broker refuses. Report is called by the library's goroutine.
type refusals struct {
	mu   sync.Mutex
	errs []error // guarded by mu
}

func (r *refusals) Report(e errorkernel.Event) errorkernel.Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, e.Err)
	return errorkernel.Continue
}
