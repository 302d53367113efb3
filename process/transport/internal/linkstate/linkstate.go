// Package linkstate keeps whether a link is up, and tells those who wait for a change.
package linkstate

import "sync"

// State is down at first. The zero value is ready; all methods may be called by many
// goroutines at once.
type State struct {
	mu      sync.Mutex // guards the fields below
	up      bool
	changed chan struct{}
}

// Set says whether the link is up now.
func (s *State) Set(up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up == up {
		return
	}
	s.up = up
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Get returns whether the link is up, and a channel that is closed when that changes.
func (s *State) Get() (up bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.up, s.changed
}
