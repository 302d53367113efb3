package process

import (
	"slices"
	"strings"
	"time"
)

// State is what a supervised process is doing.
type State string

// The states.
const (
	Starting State = "starting" // not started yet, or not ready yet
	Running  State = "running"
	Backoff  State = "backoff"  // ended, and waits for its restart
	Stopping State = "stopping" // was told to stop
	Stopped  State = "stopped"
	Done     State = "done" // ended by itself, without an error, and is not to be started again
)

// Tree is a process and what it supervises, as it was at one moment.
type Tree struct {
	Name     string    `json:"name"`
	ID       int64     `json:"id,omitempty" doc:"by which stopProc knows it"` // see SupervisorOptions.IDs
	State    State     `json:"state" doc:"starting, running, backoff, stopping, stopped, or done for what has done its work"`
	Since    time.Time `json:"since" doc:"when the state began"`
	Restarts int       `json:"restarts,omitempty" doc:"since it was added"`
	Error    string    `json:"error,omitempty" doc:"its latest failure"`
	Children []Tree    `json:"children,omitempty" doc:"what it supervises, with the same keys"` // static ones in order, then dynamic ones by name
}

// Tree returns what the supervisor looks like now. A child whose Service has a method
// Tree() Tree is shown with its children.
func (s *Supervisor) Tree() Tree {
	s.mu.Lock()
	t := Tree{Name: s.o.Name, State: s.state(), Since: s.since}
	list := slices.Clone(s.static)
	for _, c := range s.children {
		if c.dynamic {
			list = append(list, c)
		}
	}
	slices.SortFunc(list[len(s.static):], func(a, b *child) int { return strings.Compare(a.Name, b.Name) })
	services := make([]Service, len(list))
	for i, c := range list {
		n := Tree{Name: c.Name, ID: c.id, State: c.shown(), Since: c.since, Restarts: c.restarts}
		if c.err != nil {
			n.Error = c.err.Error()
		}
		t.Children = append(t.Children, n)
		services[i] = c.service
	}
	s.mu.Unlock()

	for i, svc := range services {
		n := &t.Children[i]
		if ready := readiness(svc); n.State == Running && ready != nil {
			select {
			case <-ready:
			default:
				n.State = Starting
			}
		}
		if b, ok := svc.(interface{ Tree() Tree }); ok {
			n.Children = b.Tree().Children
		}
	}
	return t
}

// state is that of the supervisor itself. s.mu is held.
func (s *Supervisor) state() State {
	switch s.phase {
	case phaseServing:
		select {
		case <-s.ready:
			return Running
		default:
			return Starting
		}
	case phaseStopping:
		return Stopping
	case phaseStopped:
		return Stopped
	}
	return Starting
}
