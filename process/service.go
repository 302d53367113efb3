package process

import (
	"context"
	"time"
)

// Service is the work of one process: Serve blocks until ctx ends or the work is over. A
// nil error means that the work is over; any other is a failure that the supervisor deals
// with.
type Service interface {
	Serve(ctx context.Context) error
}

// ServiceFunc makes a function a Service.
type ServiceFunc func(ctx context.Context) error

// Serve calls f.
func (f ServiceFunc) Serve(ctx context.Context) error { return f(ctx) }

// RestartRule says when an ended child is started again.
type RestartRule uint8

// The rules.
const (
	Permanent RestartRule = iota // always
	Transient                    // only after an error or a panic
	Temporary                    // never
)

// Child describes one process under a supervisor.
type Child struct {
	Name string
	// Make returns a new value for every start: no state survives a failure.
	Make    func() Service
	Restart RestartRule
	// Grace is how long a stop may take before the child is reported as stuck. 0 means five
	// seconds, and for a Supervisor as long as its own children may take.
	Grace time.Duration
}
