package natstransport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// link is one connection to one broker, from the handshake to its end.
type link struct {
	server string
	nc     *nats.Conn
	cut    context.CancelFunc // closes the socket
	gone   chan struct{}      // closed when the connection has ended
	inbox  *inbox
	sorted chan struct{} // closed when the inbox is no longer read
	seen   *linkFaults
}

// end cuts the connection and returns when the library has called back for the last time.
func (l *link) end() {
	l.cut() // first, so that a stalled socket holds nobody up
	l.nc.Close()
	<-l.gone
	<-l.sorted
}

// dial makes a connection to s, and ends the attempt when ctx does.
func (t *Transport) dial(ctx context.Context, s server) (*link, error) {
	ctx, cut := context.WithCancel(ctx)
	l := &link{server: s.name, cut: cut, gone: make(chan struct{}), inbox: newInbox(), sorted: make(chan struct{}), seen: t.faults.link()}
	d := &dialer{ctx: ctx, connect: t.opts.ConnectTimeout, write: t.opts.WriteTimeout, inProcess: t.opts.InProcess, inbox: l.inbox}
	var once sync.Once

	o := s.opts
	o.CustomDialer = d
	o.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) { l.seen.async(sub, err) }
	o.ClosedCB = func(*nats.Conn) { once.Do(func() { close(l.gone) }) }
	nc, err := o.Connect()
	if err != nil {
		cut()
		if errors.Is(err, nats.ErrNoServers) && d.err != nil {
			err = d.err // the library swallows "connection refused"
		}
		return nil, err
	}
	l.nc = nc
	go t.sort(l)
	return l, nil
}

// dialer makes the socket of one attempt, and closes it when the attempt's context ends.
type dialer struct {
	ctx            context.Context
	connect, write time.Duration // timeouts
	inProcess      InProcess
	inbox          *inbox
	err            error // of the last Dial
}

// Dial is called by the library.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := d.dial(network, address)
	if d.err = err; err != nil {
		return nil, err
	}
	context.AfterFunc(d.ctx, func() { _ = conn.Close() }) // the library may have closed it before
	return patientConn{pacedConn{conn, d.ctx, d.inbox}, d.write}, nil
}

func (d *dialer) dial(network, address string) (net.Conn, error) {
	if d.inProcess != nil {
		conn, err := d.inProcess.InProcessConn()
		if err != nil {
			return nil, fmt.Errorf("connect in process: %w", err)
		}
		return conn, nil
	}
	nd := net.Dialer{Timeout: d.connect}
	return nd.DialContext(d.ctx, network, address)
}
