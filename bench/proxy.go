package main

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy is a link: it carries TCP connections to another address, delays what it carries, and counts
// it.
type proxy struct {
	listener net.Listener
	to       string
	delay    time.Duration // each way
	bytes    atomic.Int64  // both ways
	opened   atomic.Int64  // when the first connection came, in nanoseconds since 1970; 0: none yet

	mu     sync.Mutex // guards conns and closed
	conns  []net.Conn
	closed bool
	wg     sync.WaitGroup
}

func newProxy(to string, delay time.Duration) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, to: to, delay: delay}
	p.wg.Go(p.serve)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// since is how long ago the first connection came.
func (p *proxy) since(at time.Time) time.Duration { return at.Sub(time.Unix(0, p.opened.Load())) }

func (p *proxy) serve() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.opened.CompareAndSwap(0, time.Now().UnixNano())
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		if !p.keep(near, far) {
			return
		}
		p.wg.Go(func() { p.carry(near, far) })
		p.wg.Go(func() { p.carry(far, near) })
	}
}

// keep notes connections for close, and closes them when it was called already.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
	if p.closed {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	return !p.closed
}

// carry carries what comes from one side to the other, each piece as late as all others. What is
// under way is not bounded: a link holds what its length holds.
func (p *proxy) carry(from, to net.Conn) {
	type piece struct {
		due  time.Time
		data []byte
	}
	var pipe pipe[piece]
	pipe.more = make(chan struct{}, 1)
	p.wg.Go(func() {
		defer to.Close()
		for {
			next, ok := pipe.take()
			if !ok {
				return
			}
			if wait := time.Until(next.due); wait > 0 {
				<-time.After(wait)
			}
			if _, err := to.Write(next.data); err != nil {
				_ = from.Close()
				return
			}
		}
	})
	defer pipe.end()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.bytes.Add(int64(n))
			pipe.put(piece{time.Now().Add(p.delay), append([]byte(nil), buf[:n]...)})
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		if cerr := c.Close(); !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

// pipe is an unbounded queue between two goroutines.
type pipe[T any] struct {
	mu    sync.Mutex // guards queue and ended
	queue []T
	ended bool
	more  chan struct{} // one slot
}

func (q *pipe[T]) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *pipe[T]) put(v T) {
	q.mu.Lock()
	q.queue = append(q.queue, v)
	q.mu.Unlock()
	q.wake()
}

func (q *pipe[T]) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.wake()
}

// take waits for the next value; ok is false after the last one.
func (q *pipe[T]) take() (v T, ok bool) {
	for {
		q.mu.Lock()
		if len(q.queue) > 0 {
			v, q.queue = q.queue[0], q.queue[1:]
			q.mu.Unlock()
			return v, true
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			return v, false
		}
		<-q.more
	}
}
