package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"steward/errorkernel"
)

// The errors of a [Supervisor] that a caller can tell apart.
var (
	// ErrStopped says that the supervisor is stopping or has stopped.
	ErrStopped = errors.New("the supervisor is stopping")
	// ErrExists says that a process of that name is there already.
	ErrExists = errors.New("it exists already")
	// ErrNoProcess says that there is no process of that name.
	ErrNoProcess = errors.New("no such process")
	// ErrStuck says that a process goes on after its grace period. It has been reported.
	ErrStuck = errors.New("still running after its grace period")
)

// defaultGrace is how long a stop may take when the child does not say.
const defaultGrace = 5 * time.Second

// SupervisorOptions are what a [Supervisor] needs.
type SupervisorOptions struct {
	Name     string  // begins the names of its processes in events and log lines
	Children []Child // started in this order, stopped in the reverse one

	Report errorkernel.Reporter
	Log    *slog.Logger

	// IDs numbers the children; the supervisors of a tree share it. A child keeps its number
	// when it is started again, or replaced by Start. nil: they have none.
	IDs *atomic.Int64

	// A child that fails more than MaxFailures times within Window fails the supervisor;
	// 0 means that it may fail for ever, ever more slowly.
	MaxFailures int
	Window      time.Duration // 0: a minute

	// The wait before the n-th restart in a row is drawn at random from 0 to
	// BackoffMin·2ⁿ⁻¹, but at most BackoffMax. A child that ran for a Window begins anew.
	BackoffMin time.Duration // 0: 100 ms
	BackoffMax time.Duration // 0: 30 s
}

// Supervisor runs processes: it starts them, starts them again when they fail, and stops
// them in order. It is a Service that can be served once. Its other methods may be called
// by many goroutines at any time.
//
// The children in its options are the static ones: they have an order and stay in the
// list when they have ended. [Supervisor.Start] adds dynamic ones: they have no order, are
// stopped all at once before the static ones, and leave the list when they have ended. A
// child costs one goroutine while it runs and none while it waits for a restart.
//
// A child whose Service has a method Ready() <-chan struct{} holds up the start of the
// static children after it until that channel is closed or the service has ended.
type Supervisor struct {
	o     SupervisorOptions
	ready chan struct{} // closed when all static children have been started
	fatal chan error    // one slot: what the supervisor fails with

	mu       sync.Mutex // guards all below
	phase    phase
	since    time.Time         // begin of the phase
	static   []*child          // in order
	children map[string]*child // all, by name
	run      func(c *child)    // one run of c; set by Serve
}

type phase uint8

const (
	phaseNew phase = iota
	phaseServing
	phaseStopping
	phaseStopped
)

// NewSupervisor checks the options; nothing is started before Serve.
func NewSupervisor(o SupervisorOptions) (*Supervisor, error) {
	fail := func(why string) (*Supervisor, error) {
		return nil, fmt.Errorf("supervisor %q: %s", o.Name, why)
	}
	if o.Window == 0 {
		o.Window = time.Minute
	}
	if o.BackoffMin == 0 {
		o.BackoffMin = 100 * time.Millisecond
	}
	if o.BackoffMax == 0 {
		o.BackoffMax = max(30*time.Second, o.BackoffMin)
	}
	switch {
	case o.Name == "":
		return fail("no name")
	case o.Report == nil:
		return fail("nothing to report to")
	case o.Log == nil:
		return fail("no logger")
	case o.MaxFailures < 0 || o.Window < 0:
		return fail("a negative limit of failures")
	case o.BackoffMin < 0 || o.BackoffMax < o.BackoffMin:
		return fail("the longest backoff is shorter than the shortest")
	}
	s := &Supervisor{
		o:        o,
		ready:    make(chan struct{}),
		fatal:    make(chan error, 1),
		since:    time.Now(),
		children: make(map[string]*child, len(o.Children)),
	}
	for _, spec := range o.Children {
		if err := spec.check(); err != nil {
			return nil, fmt.Errorf("supervisor %q: %w", o.Name, err)
		}
		if s.children[spec.Name] != nil {
			return nil, fmt.Errorf("supervisor %q: process %q: %w", o.Name, spec.Name, ErrExists)
		}
		c := newChild(spec, false)
		c.id = s.number()
		s.static = append(s.static, c)
		s.children[spec.Name] = c
	}
	return s, nil
}

// Serve starts the children and keeps them running until ctx ends or a failure is more
// than it may deal with; then it stops them. It returns the failure, or an error that
// wraps ErrStuck and names the processes that go on, or nil.
func (s *Supervisor) Serve(ctx context.Context) error {
	s.mu.Lock()
	if s.phase != phaseNew {
		s.mu.Unlock()
		return fmt.Errorf("supervisor %q: served twice", s.o.Name)
	}
	// The children do not see the end of ctx: they are stopped one after the other.
	base := context.WithoutCancel(ctx)
	s.run = func(c *child) { s.runOnce(base, c) }
	s.enter(phaseServing)
	var waiting []*child
	for _, c := range s.children {
		if c.dynamic {
			waiting = append(waiting, c)
		}
	}
	static := slices.Clone(s.static)
	s.mu.Unlock()

	err := s.startAll(ctx, static, waiting)
	if err == nil && ctx.Err() == nil {
		close(s.ready)
		select {
		case <-ctx.Done():
		case err = <-s.fatal:
		}
	}
	return errors.Join(err, s.stopAll())
}

// Ready is closed when all static children have been started.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// enter begins a phase. s.mu is held.
func (s *Supervisor) enter(p phase) { s.phase, s.since = p, time.Now() }

func (s *Supervisor) startAll(ctx context.Context, static, waiting []*child) error {
	for _, c := range static {
		s.launch(c)
		if err := s.awaitReady(ctx, c); err != nil || ctx.Err() != nil {
			return err
		}
	}
	for _, c := range waiting {
		s.launch(c)
	}
	return nil
}

// number returns the next number for a child, or 0.
func (s *Supervisor) number() int64 {
	if s.o.IDs == nil {
		return 0
	}
	return s.o.IDs.Add(1)
}

func (s *Supervisor) launch(c *child) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.launched && !c.stopping {
		s.spawn(c)
	}
}

// spawn gives c its goroutine, which lives as long as the run. s.mu is held.
func (s *Supervisor) spawn(c *child) {
	c.launched = true
	go s.run(c)
}

// awaitReady waits until the static child after c may be started. The error is what the
// supervisor fails with.
func (s *Supervisor) awaitReady(ctx context.Context, c *child) error {
	wait := func(ready <-chan struct{}) (bool, error) {
		select {
		case <-ready:
			return true, nil
		case <-c.over:
		case <-c.done:
		case <-ctx.Done():
		case err := <-s.fatal:
			return false, err
		}
		return false, nil
	}
	ok, err := wait(c.made)
	if !ok {
		return err
	}
	s.mu.Lock()
	ready := readiness(c.service)
	s.mu.Unlock()
	if ready != nil {
		_, err = wait(ready)
	}
	return err
}

// readiness returns the channel that is closed when svc is ready, nil when it has none.
func readiness(svc Service) <-chan struct{} {
	if r, ok := svc.(interface{ Ready() <-chan struct{} }); ok {
		return r.Ready()
	}
	return nil
}

// Start adds a dynamic child. It is started at once, or, before Serve, after the static
// ones. When a dynamic child of the same name is about to end or runs still, and is not
// a Permanent one, the new one is started when that one has ended: who decides in its
// last moment to begin again does not have to know whether the end has been noticed. A
// child that was stopped and is still in the list is replaced, in its old place. The error
// wraps ErrExists or ErrStopped, or says what is wrong with spec.
func (s *Supervisor) Start(spec Child) error {
	if err := spec.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase >= phaseStopping {
		return fmt.Errorf("start process %s: %w", s.path(spec.Name), ErrStopped)
	}
	c := newChild(spec, true)
	old := s.children[spec.Name]
	if old != nil {
		c.id = old.id
	} else {
		c.id = s.number()
	}
	switch {
	case old == nil:
	case old.state == Stopped:
		c.dynamic = old.dynamic
		if i := slices.Index(s.static, old); i >= 0 {
			c.made, c.over = make(chan struct{}), make(chan struct{})
			s.static[i] = c
		}
	case old.next == nil && old.dynamic && (old.stopping || old.Restart != Permanent):
		old.next = c
		return nil
	default:
		return fmt.Errorf("start process %s: %w", s.path(spec.Name), ErrExists)
	}
	s.children[spec.Name] = c
	if s.phase == phaseServing {
		s.spawn(c)
	}
	return nil
}

// StopChild stops the child of that name and waits for its end. A dynamic one leaves the
// list, a static one stays in it as stopped. The error wraps ErrNoProcess, ErrStuck, or
// is that of ctx; then the child ends when it gets to it. A child cannot stop itself this
// way.
func (s *Supervisor) StopChild(ctx context.Context, name string) error {
	s.mu.Lock()
	c := s.children[name]
	if c == nil {
		s.mu.Unlock()
		return fmt.Errorf("stop process %s: %w", s.path(name), ErrNoProcess)
	}
	c.next = nil
	s.halt(c)
	s.mu.Unlock()
	return s.await(ctx, c, time.Now())
}

// stopAll stops the dynamic children all at once, then the static ones backwards, each
// when the one before it has ended or used up its grace period.
func (s *Supervisor) stopAll() error {
	s.mu.Lock()
	s.enter(phaseStopping)
	var dynamic []*child
	for _, c := range s.children {
		if c.dynamic {
			dynamic = append(dynamic, c)
		}
	}
	for _, c := range dynamic {
		s.halt(c)
	}
	halted := time.Now()
	static := slices.Clone(s.static)
	s.mu.Unlock()

	var errs []error
	for _, c := range dynamic {
		errs = append(errs, s.await(context.Background(), c, halted))
	}
	for _, c := range slices.Backward(static) {
		s.mu.Lock()
		s.halt(c)
		s.mu.Unlock()
		errs = append(errs, s.await(context.Background(), c, time.Now()))
	}
	s.mu.Lock()
	s.enter(phaseStopped)
	s.mu.Unlock()
	return errors.Join(errs...)
}

// await waits for the end of c, which was halted at that time. A child that takes longer
// than its grace period is reported and left alone.
func (s *Supervisor) await(ctx context.Context, c *child, halted time.Time) error {
	var late <-chan time.Time
	grace := s.grace(c)
	if grace > 0 {
		timer := time.NewTimer(time.Until(halted.Add(grace)))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return fmt.Errorf("stop process %s: %w", s.path(c.Name), ctx.Err())
	case <-late:
	}

	s.mu.Lock()
	err, known := c.stopErr, c.stuck
	if c.state != Stopped {
		err, c.stuck = ErrStuck, true
	}
	stuck := c.stuck && !known
	s.mu.Unlock()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("stop process %s: %w", s.path(c.Name), err)
	if stuck {
		s.o.Report.Report(errorkernel.Event{
			Class:   errorkernel.ProcessStuck,
			Process: s.path(c.Name),
			Err:     fmt.Errorf("%w of %v", ErrStuck, grace),
			At:      time.Now(),
		})
	}
	return err
}

// grace returns how long the stop of c may take; 0 is as long as it likes. A supervisor
// has no bound of its own, since each of its children has one.
func (s *Supervisor) grace(c *child) time.Duration {
	if c.Grace > 0 {
		return c.Grace
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := c.service.(*Supervisor); ok {
		return 0
	}
	return defaultGrace
}

// path is the name of a child in events and log lines.
func (s *Supervisor) path(name string) string { return s.o.Name + "/" + name }
