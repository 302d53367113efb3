package process

import (
	"context"
	"sync"
)

// framesWaiting bounds the frames between the transport and the inbox. When they are full the
// transport has to wait, and drops what it cannot hold.
const framesWaiting = 64

// frames are those that wait for a subscriber. It is no channel of so many, which would be most of what
// a node with nothing to do has in memory.
type frames struct {
	more chan struct{} // one slot: some wait
	room chan struct{} // one slot: there is room again

	mu      sync.Mutex
	waiting []Delivery // guarded by mu
}

func newFrames() frames {
	return frames{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put waits until there is room for d, or ctx ends.
func (f *frames) put(ctx context.Context, d Delivery) {
	for {
		f.mu.Lock()
		room := framesWaiting - len(f.waiting)
		if room > 0 {
			f.waiting = append(f.waiting, d)
		}
		f.mu.Unlock()
		if room > 1 {
			notify(f.room) // others may wait for it too
		}
		if room > 0 {
			notify(f.more)
			return
		}
		select {
		case <-f.room:
		case <-ctx.Done():
			return
		}
	}
}

// get takes all that wait.
func (f *frames) get() []Delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.waiting
	f.waiting = nil
	notify(f.room)
	return all
}
