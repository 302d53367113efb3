package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/message/wire"
)

// What holds when Options do not say.
const (
	DefaultIdleTimeout  = 2 * time.Second // for the options' owner: in Options, 0 is never
	DefaultStallTimeout = 10 * time.Second
	DefaultMaxConns     = 1000
)

const (
	// stopPatience is how long a stop waits for arrays that are being accepted and answers
	// that are being written.
	stopPatience = 5 * time.Second
	// maxLeaving is how many connections beyond MaxConns may be there because those that gave
	// their places to them have not ended yet.
	maxLeaving = 16
	// shortestPause and longestPause bound the wait after the system could not accept a connection.
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

// Options are what a [Socket] needs.
type Options struct {
	// Path is the socket file. Its folder is created if there is none.
	Path string
	// Access says who may connect to the socket file; the zero value is its owner alone.
	Access Access
	// Addr is host:port to listen on with TCP, in place of Path. Without a host it is
	// loopback: that others than the users of this machine may send messages has to be said
	// in full, as in 0.0.0.0:4000.
	Addr string
	// Resolve checks one array; its error is the answer. It is called by many connections
	// at once.
	Resolve func([]wire.Draft) ([]message.Message, error)
	// Accept takes an array over and returns at once; the order of calls is the order of the
	// messages. What it returns is called once, and returns when the messages are on disk, with their ids
	// in the same order, or an error when none of them is accepted. Both are called by many
	// connections at once. The context does not end when the client goes, and outlives a stop by
	// five seconds.
	Accept func(context.Context, []message.Message) func() ([]message.ID, error)
	Limits wire.Limits

	// IdleTimeout is how long a connection stays after an answer when nothing comes any
	// more; 0 means for ever. A connection that never sent a message stays in any case.
	IdleTimeout time.Duration
	// StallTimeout is how long nothing may come in the middle of an array; 0 means 10 seconds.
	StallTimeout time.Duration
	// WriteTimeout is how long a client may leave its answers unread; 0 means 10 seconds.
	WriteTimeout time.Duration
	// LingerTimeout is how long, after an answer that ends the connection, the rest of what
	// the client writes is read and thrown away, so that it gets to read the answer; 0 means
	// 5 seconds.
	LingerTimeout time.Duration
	// MaxConns bounds the connections; 0 means 1,000. One more takes the place of that whose
	// next array has been waited for longest: who is slow keeps nobody out.
	MaxConns int
	// Report is told when there are more, nil: nobody is.
	Report errorkernel.Reporter
	Log    *slog.Logger
}

// Socket takes messages on a unix socket or a TCP port.
type Socket struct {
	opt   Options
	ready chan struct{}
	addr  net.Addr // set before ready is closed

	mu    sync.Mutex
	conns map[*conn]struct{} // guarded by mu
}

// NewSocket checks the options. Nothing is opened before Serve.
func NewSocket(opt Options) (*Socket, error) {
	switch {
	case opt.Resolve == nil || opt.Accept == nil || opt.Log == nil:
		return nil, errors.New("ingress socket: Resolve, Accept and Log are needed")
	case opt.IdleTimeout < 0 || opt.StallTimeout < 0 || opt.WriteTimeout < 0 || opt.LingerTimeout < 0 || opt.MaxConns < 0:
		return nil, errors.New("ingress socket: a limit is negative")
	}
	switch {
	case opt.Addr != "" && opt.Path != "":
		return nil, errors.New("ingress socket: give Path or Addr, not both")
	case opt.Addr != "":
		addr, err := onLoopback(opt.Addr)
		if err != nil {
			return nil, err
		}
		opt.Addr = addr
	default:
		if err := checkPath(opt.Path); err != nil {
			return nil, err
		}
	}
	setDefault(&opt.StallTimeout, DefaultStallTimeout)
	setDefault(&opt.WriteTimeout, 10*time.Second)
	setDefault(&opt.LingerTimeout, 5*time.Second)
	setDefault(&opt.MaxConns, DefaultMaxConns)
	return &Socket{opt: opt, ready: make(chan struct{}), conns: map[*conn]struct{}{}}, nil
}

func setDefault[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// Ready is closed when the socket takes connections.
func (s *Socket) Ready() <-chan struct{} { return s.ready }

// Addr is where the socket takes connections, once it is ready.
func (s *Socket) Addr() net.Addr { return s.addr }

// Serve opens the socket and serves it until ctx ends. It can be called once.
func (s *Socket) Serve(ctx context.Context) error {
	ln, err := s.listen()
	if err != nil {
		return err
	}
	s.addr = ln.Addr()
	close(s.ready)
	s.opt.Log.Info("socket open", "addr", ln.name)
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		s.opt.Log.Warn("everybody who reaches this address can send messages as this node", "addr", ln.name)
	}
	err = s.serve(ctx, ln)
	return errors.Join(err, ln.remove())
}

func (s *Socket) listen() (*listener, error) {
	if s.opt.Addr != "" {
		return listenTCP(s.opt.Addr)
	}
	return listen(s.opt.Path, s.opt.Access)
}

// name is how the socket is called in texts.
func (s *Socket) name() string {
	if s.opt.Addr != "" {
		return s.opt.Addr
	}
	return s.opt.Path
}

// serve closes ln in the end.
//
// There are two goroutines per connection, which reads arrays and answers them: each may block
// for as long as its client likes, which must hold up no other, and they are bounded by MaxConns. They are no supervised
// processes because there is nothing to restart: a connection that ended is the client's
// to open again. All of them have ended when serve returns.
func (s *Socket) serve(ctx context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	accepting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	var all sync.WaitGroup
	err := s.acceptConns(ctx, ln, func(c *conn) {
		all.Go(func() {
			defer s.drop(c)
			c.serve(accepting)
		})
		all.Go(c.answerAll)
	})
	_ = ln.Close()

	s.each((*conn).stop)
	patience := time.AfterFunc(stopPatience, func() {
		cancel()
		s.each(func(c *conn) { _ = c.net.Close() })
	})
	defer patience.Stop()
	all.Wait()
	return err
}

// acceptConns hands each new connection to start, until ctx ends or the listener breaks.
func (s *Socket) acceptConns(ctx context.Context, ln net.Listener, start func(*conn)) error {
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", s.name(), err)
		case err != nil:
			// Out of file descriptors, say: that passes when other connections end.
			level := slog.LevelDebug
			if pause == 0 {
				level = slog.LevelWarn
			}
			s.opt.Log.Log(ctx, level, "connection not accepted", "addr", s.name(), "err", err)
			pause = min(max(2*pause, shortestPause), longestPause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		pause = 0
		if c := newConn(nc, &s.opt); s.keep(c) {
			start(c)
		} else {
			s.opt.Log.Debug("connection refused", "addr", s.name(), "connections", s.opt.MaxConns)
			c.turnAway(errCrowded(s.opt.MaxConns))
			_ = nc.Close()
		}
	}
}

// keep takes a connection in, for which another one may have to go.
func (s *Socket) keep(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.conns); n >= s.opt.MaxConns {
		s.crowded()
		slowest := s.slowest()
		if slowest == nil || n >= s.opt.MaxConns+maxLeaving {
			return false
		}
		slowest.yield()
	}
	s.conns[c] = struct{}{}
	return true
}

// crowded tells that there are too many connections. The text is always the same, and so one line in a minute.
func (s *Socket) crowded() {
	if s.opt.Report != nil {
		s.opt.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "socket", Err: fmt.Errorf("%s: %w; the one that sends nothing for longest is cut off, else the new one",
			s.name(), errCrowded(s.opt.MaxConns))})
	}
}

// slowest returns the connection whose next array has been waited for longest, nil when all
// have something to work on. s.mu is held.
func (s *Socket) slowest() (slowest *conn) {
	var since time.Time
	for c := range s.conns {
		if at, waits := c.waitsSince(); waits && (slowest == nil || at.Before(since)) {
			slowest, since = c, at
		}
	}
	return slowest
}

func (s *Socket) drop(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Socket) each(do func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}
