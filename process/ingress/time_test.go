package ingress_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"steward/message"
	"steward/process/ingress"
)

// pipes is a listener in memory: synctest's time moves with it.
type pipes struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// pipeClient keeps what it was answered, and when its connection ended.
type pipeClient struct {
	net.Conn
	start time.Time
	lines chan string
	ended chan time.Duration
}

func (p *pipes) dial() *pipeClient {
	near, far := net.Pipe()
	p.conns <- far
	c := &pipeClient{Conn: near, start: time.Now(), lines: make(chan string, 100), ended: make(chan time.Duration, 1)}
	go func() {
		for r := bufio.NewReader(near); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				c.ended <- time.Since(c.start)
				return
			}
			c.lines <- strings.TrimSpace(line)
		}
	}()
	return c
}

func (c *pipeClient) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Error(err)
	}
}

// bubble runs f with a socket that serves pipes, in false time.
func bubble(t *testing.T, opt ingress.Options, f func(t *testing.T, p *pipes, stop func() error)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := ingress.NewSocket(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p, done := newPipes(), make(chan error, 1)
		go func() { done <- s.ServeOn(ctx, p) }()
		stop := func() error { cancel(); err := <-done; done <- err; return err }
		f(t, p, stop)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// after lets d pass.
func after(d time.Duration) { <-time.After(d) }

func timed(s *store) ingress.Options {
	opt := options(s)
	opt.IdleTimeout = ingress.DefaultIdleTimeout
	return opt
}

func TestIdleConnectionIsClosedAfterItsAnswer(t *testing.T) {
	bubble(t, timed(&store{}), func(t *testing.T, p *pipes, _ func() error) {
		c := p.dial()
		after(time.Second)
		c.send(t, ping)
		if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
			t.Error(got)
		}
		if got := <-c.ended; got != 3*time.Second {
			t.Errorf("closed after %v", got)
		}
	})
}

func TestWhiteSpaceKeepsAConnectionOpen(t *testing.T) {
	bubble(t, timed(&store{}), func(t *testing.T, p *pipes, _ func() error) {
		c := p.dial()
		c.send(t, ping)
		for range 100 {
			after(1900 * time.Millisecond)
			c.send(t, "\n")
		}
		c.send(t, ping)
		for range 2 {
			if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
				t.Error(got)
			}
		}
		if got := <-c.ended; got != 192*time.Second {
			t.Errorf("closed after %v", got)
		}
	})
}

func TestConnectionThatNeverSentAMessageStays(t *testing.T) {
	bubble(t, timed(&store{}), func(t *testing.T, p *pipes, _ func() error) {
		c := p.dial()
		after(240 * time.Hour)
		c.send(t, " \n")
		after(240 * time.Hour)
		c.send(t, ping)
		if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
			t.Error(got)
		}
	})
}

func TestIdleTimeoutZeroIsNever(t *testing.T) {
	opt := timed(&store{})
	opt.IdleTimeout = 0
	bubble(t, opt, func(t *testing.T, p *pipes, stop func() error) {
		c := p.dial()
		c.send(t, ping)
		after(240 * time.Hour)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := <-c.ended; got != 240*time.Hour {
			t.Errorf("closed after %v", got)
		}
	})
}

func TestStalledArrayIsAnsweredAndClosed(t *testing.T) {
	for _, text := range []string{`[{"toNode":`, "toNode: ship1\n"} {
		s := &store{}
		bubble(t, timed(s), func(t *testing.T, p *pipes, _ func() error) {
			c := p.dial()
			c.send(t, ping)
			<-c.lines
			after(time.Second)
			c.send(t, text[:3])
			after(9 * time.Second)
			c.send(t, text[3:])
			if got := <-c.lines; !strings.HasPrefix(got, `{"error":"nothing came for 10s in the middle of a message`) {
				t.Error(got)
			}
			if got := time.Since(c.start); got != 20*time.Second {
				t.Errorf("answered after %v", got)
			}
			// The client keeps its side open: the rest is waited for no longer than this.
			if got := <-c.ended; got != 25*time.Second {
				t.Errorf("closed after %v", got)
			}
			if s.count() != 1 {
				t.Errorf("%d messages taken", s.count())
			}
		})
	}
}

func TestClientThatWritesWithoutEndIsCutOff(t *testing.T) {
	bubble(t, timed(&store{}), func(t *testing.T, p *pipes, _ func() error) {
		c := p.dial()
		var writer sync.WaitGroup
		defer writer.Wait()
		writer.Go(func() {
			for {
				if _, err := c.Write([]byte("\x00\x00\x00\x00")); err != nil {
					return
				}
				after(time.Millisecond)
			}
		})
		if got := <-c.lines; !strings.Contains(got, "syntax error") {
			t.Error(got)
		}
		if got := <-c.ended; got != 5*time.Second {
			t.Errorf("closed after %v", got)
		}
	})
}

func TestClientThatReadsNoAnswerIsCutOff(t *testing.T) {
	s := &store{}
	bubble(t, timed(s), func(t *testing.T, p *pipes, _ func() error) {
		near, far := net.Pipe()
		p.conns <- far
		start := time.Now()
		if _, err := io.WriteString(near, ping); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(near, ping); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the second array: %v", err)
		}
		if got := time.Since(start); got != 10*time.Second || s.count() != 1 {
			t.Errorf("closed after %v, %d messages taken", got, s.count())
		}
	})
}

func TestAnswerDoesNotWaitForTheNextArray(t *testing.T) {
	release := make(chan struct{})
	s := &store{before: func(_ context.Context, m []message.Message) error {
		if m[0].To == "slow" {
			<-release
		}
		return nil
	}}
	bubble(t, timed(s), func(t *testing.T, p *pipes, _ func() error) {
		release = make(chan struct{})
		c := p.dial()
		c.send(t, ping+`[{"toNode":"slow","method":"REQPing"}]`)
		if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
			t.Error(got)
		}
		after(time.Hour)
		close(release)
		if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
			t.Error(got)
		}
	})
}

func TestStopWaitsForWhatIsBeingAccepted(t *testing.T) {
	s := &store{before: func(ctx context.Context, _ []message.Message) error {
		select {
		case <-time.After(2 * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	bubble(t, timed(s), func(t *testing.T, p *pipes, stop func() error) {
		c := p.dial()
		c.send(t, ping+ping)
		after(time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
				t.Error(got)
			}
		}
		if got := <-c.ended; got != 4*time.Second || s.count() != 2 {
			t.Errorf("closed after %v, %d messages taken", got, s.count())
		}
	})
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	s := &store{before: func(ctx context.Context, _ []message.Message) error { <-ctx.Done(); return ctx.Err() }}
	bubble(t, timed(s), func(t *testing.T, p *pipes, stop func() error) {
		c := p.dial()
		c.send(t, ping)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := <-c.ended; got != 5*time.Second || s.count() != 0 {
			t.Errorf("closed after %v, %d messages taken", got, s.count())
		}
	})
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	s := &store{before: func(_ context.Context, m []message.Message) error {
		if m[0].To == "bug" {
			panic("a bug")
		}
		return nil
	}}
	bubble(t, timed(s), func(t *testing.T, p *pipes, _ func() error) {
		c, other := p.dial(), p.dial()
		c.send(t, `[{"toNode":"bug","method":"REQPing"}]`)
		if got := <-c.lines; got != `{"error":"internal error, see the log of the node"}` {
			t.Error(got)
		}
		<-c.ended
		other.send(t, ping)
		if got := <-other.lines; !strings.HasPrefix(got, `{"accepted":`) {
			t.Error(got)
		}
	})
}

func TestAcceptErrorsAreOutlived(t *testing.T) {
	bubble(t, timed(&store{}), func(t *testing.T, p *pipes, _ func() error) {
		start := time.Now()
		for range 20 {
			p.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		// 5 ms, doubled up to a second: 1.275 s and 11 times 1 s before the twentieth.
		if got := time.Since(start); got < 10*time.Second || got > 13*time.Second {
			t.Errorf("20 errors in %v", got)
		}
		c := p.dial()
		c.send(t, ping)
		if got := <-c.lines; !strings.HasPrefix(got, `{"accepted":`) {
			t.Error(got)
		}
		start = time.Now()
		p.errs <- syscall.ECONNABORTED
		p.dial()
		if got := time.Since(start); got != 5*time.Millisecond {
			t.Errorf("the first pause after a success is %v", got)
		}
	})
}

func TestBrokenListenerIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := ingress.NewSocket(timed(&store{}))
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		_ = p.Close()
		if err := s.ServeOn(t.Context(), p); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// slowDisk takes arrays over at once and says that they are on disk when it is told to.
func slowDisk(s *store, synced *chan struct{}) ingress.Options {
	opt := timed(s)
	opt.Accept = func(ctx context.Context, m []message.Message) func() ([]message.ID, error) {
		ids, err := s.accept(ctx, m)
		return func() ([]message.ID, error) { <-*synced; return ids, err }
	}
	return opt
}

func TestTheNextArrayIsTakenWhileOneIsOnItsWayToTheDisk(t *testing.T) {
	s, synced := &store{}, (chan struct{})(nil)
	bubble(t, slowDisk(s, &synced), func(t *testing.T, p *pipes, _ func() error) {
		synced = make(chan struct{})
		c := p.dial()
		c.send(t, ping+`[{"toNode":"ship1","method":"REQFoo"}]`+ping)
		synctest.Wait()
		if got := s.count(); got != 2 || len(c.lines) > 0 {
			t.Errorf("%d messages taken, %d answers", got, len(c.lines))
		}
		after(time.Hour) // nobody is idle who has not got an answer
		close(synced)
		for i, want := range []string{`{"accepted":`, `{"error":`, `{"accepted":`} {
			if got := <-c.lines; !strings.HasPrefix(got, want) {
				t.Errorf("answer %d: %s", i+1, got)
			}
		}
		if got := <-c.ended; got != time.Hour+2*time.Second {
			t.Errorf("closed after %v", got)
		}
	})
}

func TestWhatIsOnItsWayToTheDiskIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ array, most int }{"small arrays": {1, 65}, "large arrays": {1000, 8000}} {
		t.Run(name, func(t *testing.T) {
			s, synced := &store{}, (chan struct{})(nil)
			bubble(t, slowDisk(s, &synced), func(t *testing.T, p *pipes, _ func() error) {
				synced = make(chan struct{})
				client := p.dial()
				array := "[" + strings.Repeat(`{"toNode":"ship1","method":"REQPing"},`, c.array-1) + `{"toNode":"ship1","method":"REQPing"}]`
				var sent sync.WaitGroup
				sent.Go(func() { client.send(t, strings.Repeat(array, 200)) })
				synctest.Wait()
				if got := s.count(); got != c.most {
					t.Errorf("%d messages taken, want %d", got, c.most)
				}
				close(synced)
				for range 200 {
					<-client.lines
				}
				sent.Wait()
				if got := s.count(); got != 200*c.array {
					t.Errorf("%d messages taken", got)
				}
			})
		})
	}
}
