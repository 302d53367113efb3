package linkstate

import "testing"

func TestStateClosesTheChannelOncePerChange(t *testing.T) {
	var s State
	up, first := s.Get()
	if up {
		t.Error("up at first")
	}
	s.Set(false)
	if closed(first) {
		t.Error("closed without a change")
	}
	s.Set(true)
	if !closed(first) {
		t.Error("still open after the change")
	}
	up, second := s.Get()
	if !up {
		t.Error("down after Set(true)")
	}
	s.Set(true)
	if closed(second) {
		t.Error("closed without a change")
	}
	s.Set(false)
	if !closed(second) {
		t.Error("still open after the change")
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
