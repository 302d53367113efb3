package main

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// link is the way of nodes to a broker, as bad as real ones are: it can be cut, it can hang
// while both ends believe that it is there, and it can break in the very moment in which an ack
// passes. Nodes connect to its address in place of the broker's.
type link struct {
	ln  net.Listener
	all sync.WaitGroup

	mu     sync.Mutex // guards what follows
	broker string
	conns  map[*linked]struct{}
	hung   [2]chan struct{} // by direction; nil: bytes pass. Closed when they pass again.
	trap   *trap            // nil: none
}

// The directions of a link.
const (
	toBroker = iota
	toNode
)

// linked is one connection of a node, and the one to the broker that belongs to it.
type linked struct {
	ends [2]net.Conn // by direction: where its bytes go
	deaf bool        // what goes to the broker is lost; guarded by link.mu
}

func (c *linked) close() {
	for _, end := range c.ends {
		_ = end.Close() // the other side may have been faster
	}
}

// trap waits for bytes on their way to the broker. These and what follows are lost: with the
// connection, or, if half, with what still comes from the broker going through.
type trap struct {
	text  []byte
	half  bool
	fired chan struct{}
}

func newLink(t testing.TB, broker string) *link {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{ln: ln, broker: broker, conns: map[*linked]struct{}{}}
	l.all.Go(l.serve)
	t.Cleanup(func() {
		_ = ln.Close() // nobody reads from it any more
		l.resume()
		l.cut()
		l.all.Wait()
	})
	return l
}

func (l *link) addr() string { return l.ln.Addr().String() }

func (l *link) serve() {
	for {
		node, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		where := l.broker
		l.mu.Unlock()
		broker, err := net.Dial("tcp", where)
		if err != nil { // it is away
			_ = node.Close()
			continue
		}
		c := &linked{ends: [2]net.Conn{toBroker: broker, toNode: node}}
		l.mu.Lock()
		l.conns[c] = struct{}{}
		l.mu.Unlock()
		l.all.Go(func() { l.pump(c, toBroker) })
		l.all.Go(func() { l.pump(c, toNode) })
	}
}

// pump carries the bytes of one direction until either end is gone.
func (l *link) pump(c *linked, direction int) {
	defer func() {
		c.close()
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.ends[1-direction].Read(buf)
		if n > 0 {
			pass, open := l.pass(c, direction, buf[:n])
			if _, err := c.ends[direction].Write(pass); err != nil || !open {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits while the link hangs, and says what of b goes through and whether the connection
// lives on after that.
func (l *link) pass(c *linked, direction int, b []byte) (_ []byte, open bool) {
	for {
		l.mu.Lock()
		hung := l.hung[direction]
		if hung == nil {
			break
		}
		l.mu.Unlock()
		<-hung
	}
	defer l.mu.Unlock()
	if direction == toNode {
		return b, true
	}
	if c.deaf {
		return nil, true
	}
	// A text that comes in two reads is not seen; the next one will be.
	if l.trap == nil {
		return b, true
	}
	at := bytes.Index(b, l.trap.text)
	if at < 0 {
		return b, true
	}
	c.deaf = l.trap.half
	close(l.trap.fired)
	l.trap = nil
	return b[:at], c.deaf
}

// lead ends all connections, and has those that are made from now on go elsewhere.
func (l *link) lead(broker string) {
	l.mu.Lock()
	l.broker = broker
	l.mu.Unlock()
	l.cut()
}

// cut ends all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.close()
	}
}

// set sets a trap for a text; fired is closed when it was seen.
func (l *link) set(text string, half bool) (fired <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trap = &trap{text: []byte(text), half: half, fired: make(chan struct{})}
	return l.trap.fired
}

// unset takes a trap away that did not fire.
func (l *link) unset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trap = nil
}

// hang stops the bytes of the given directions, with all connections open.
func (l *link) hang(directions ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range directions {
		if l.hung[d] == nil {
			l.hung[d] = make(chan struct{})
		}
	}
}

// resume lets bytes pass again, those that were held up first.
func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, hung := range l.hung {
		if hung != nil {
			close(hung)
			l.hung[d] = nil
		}
	}
}
