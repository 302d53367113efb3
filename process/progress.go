package process

import (
	"sync"
	"time"

	"steward/message"
)

// Step is one step of a message on its way, as seen by one node.
type Step struct {
	ID   message.ID
	What StepKind
	// Peer is the other node; Text says more, for people.
	Peer   message.Node
	Method message.Method
	Text   string
	// Result is how a run ended, for StepEnded and StepAnswered; not to be changed.
	Result *message.Result
	At     time.Time // for watchers only
}

// Observer is told of every step, at once and by many goroutines at a time: it has to be
// quick, and must not call back.
type Observer interface{ Observe(Step) }

// StepKind names a step.
type StepKind string

// The steps.
const (
	StepAccepted  StepKind = "accepted"  // on disk at the sender
	StepDelivered StepKind = "delivered" // acknowledged by the receiver
	StepWaiting   StepKind = "waiting"   // an attempt got no ACK
	StepGivenUp   StepKind = "given up"
	StepRemoved   StepKind = "removed"  // taken off the queue by an operator
	StepReceived  StepKind = "received" // on disk at the receiver
	StepStarted   StepKind = "started"  // its method runs
	StepEnded     StepKind = "ended"    // its method has run
	// StepAnswered: at the sender of the request, the reply's method has run. With Result.More
	// another reply follows.
	StepAnswered StepKind = "answered"
)

// Progress tells whoever watches a message of its steps, within this process only: what
// has to outlive it is in the store. The zero value is ready; it is safe for concurrent use.
type Progress struct {
	// Observer, if set, is set before the first step and not changed any more.
	Observer Observer

	mu       sync.Mutex
	watchers map[message.ID][]chan Step // an id that is zero watches all
	runs     map[*Run]struct{}          // guarded by mu
}

// Watch returns the steps of one message, or of all when id is zero, from now on. A
// watcher that does not keep up loses steps. stop ends it and may be called twice.
func (p *Progress) Watch(id message.ID) (steps <-chan Step, stop func()) {
	ch := make(chan Step, 256)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watchers == nil {
		p.watchers = map[message.ID][]chan Step{}
	}
	p.watchers[id] = append(p.watchers[id], ch)
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		list := p.watchers[id]
		for i, c := range list {
			if c == ch {
				list[i] = list[len(list)-1]
				p.watchers[id] = list[:len(list)-1]
				break
			}
		}
		if len(p.watchers[id]) == 0 {
			delete(p.watchers, id)
		}
	}
}

// step tells the observer and the watchers of s.
func (p *Progress) step(s Step) {
	if p.Observer != nil {
		p.Observer.Observe(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.watchers) == 0 {
		return
	}
	s.At = time.Now()
	for _, list := range [][]chan Step{p.watchers[s.ID], p.watchers[message.ID{}]} {
		for _, ch := range list {
			select {
			case ch <- s:
			default:
			}
		}
	}
}
