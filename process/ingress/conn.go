package ingress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"steward/message"
	"steward/message/wire"
)

const (
	// mostDiscarded is how many bytes are thrown away after an answer that ends a connection.
	mostDiscarded = 64 << 20
	// answerBuffer is how many bytes of answers go out at once. A client that writes many
	// arrays before it reads the first answer fills the socket's buffer with them: a few
	// large pieces take far less of it than many small ones.
	answerBuffer = 4 << 10
	// prompt is how long an answer may wait for the next one.
	prompt = 2 * time.Millisecond
)

var errStopping = errors.New("the node is stopping")

func errCrowded(most int) error { return fmt.Errorf("too many connections: %d are open", most) }

// conn is one client: arrays come in, and for each one line goes out.
//
// It belongs to the goroutine that runs serve, except for stop and net.Close.
type conn struct {
	net net.Conn
	opt *Options
	dec *wire.Decoder
	// out gathers the answers to arrays that came in one go. They are flushed before the
	// next wait for the client.
	out      *bufio.Writer
	answered bool

	mu       sync.Mutex // between stop and the setting of a read deadline
	stopping bool
	crowded  bool // it stops because others need its place

	// since is when the node began to wait for the next array, in nanoseconds since 1970; 0
	// while there is one to work on.
	since atomic.Int64
}

func newConn(nc net.Conn, opt *Options) *conn {
	c := &conn{net: nc, opt: opt}
	c.since.Store(time.Now().UnixNano())
	c.out = bufio.NewWriterSize(answerWriter{c}, answerBuffer)
	c.dec = wire.NewDecoder(patientReader{c}, opt.Limits)
	return c
}

// serve talks to the client until either side ends it, and closes the connection.
func (c *conn) serve(ctx context.Context) {
	defer func() {
		// Nothing that a client sends may stop the node.
		if p := recover(); p != nil {
			c.opt.Log.Error("connection panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.refuse(errors.New("internal error, see the log of the node"))
		}
		_ = c.net.Close()
	}()
	for !c.stopped() {
		drafts, err := c.dec.Next()
		if err == nil {
			c.since.Store(0)
			var ids []message.ID
			if ids, err = c.accept(ctx, drafts); err == nil {
				c.answer(accepted(ids))
			} else {
				c.answer(failed(err))
			}
		} else if last := c.fault(err); last {
			return
		}
		c.answered = true
		c.since.Store(time.Now().UnixNano())
	}
	c.farewell()
}

// farewell ends a connection without a fault of the client.
func (c *conn) farewell() {
	c.mu.Lock()
	crowded := c.crowded
	c.mu.Unlock()
	if crowded {
		c.answer(failed(errCrowded(c.opt.MaxConns)))
	}
	_ = c.out.Flush()
}

func (c *conn) accept(ctx context.Context, drafts []wire.Draft) ([]message.ID, error) {
	if len(drafts) == 0 {
		return nil, nil
	}
	messages, err := c.opt.Resolve(drafts)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	if c.out.Buffered() > 0 {
		// Accept may take long, and nobody else uses c.out meanwhile.
		flushed := make(chan struct{})
		timer := time.AfterFunc(prompt, func() {
			defer close(flushed)
			_ = c.out.Flush()
		})
		defer func() {
			if !timer.Stop() {
				<-flushed
			}
		}()
	}
	return c.opt.Accept(ctx, messages)
}

// fault answers what was wrong with the stream, and reports whether that was its end.
func (c *conn) fault(err error) (last bool) {
	var refused *wire.RefusedError
	var syntax *wire.SyntaxError
	switch {
	case errors.As(err, &refused):
		c.answer(failed(err))
		return false
	case errors.As(err, &syntax):
		c.opt.Log.Debug("connection closed after a syntax error", "err", err)
		c.refuse(err)
	case errors.Is(err, os.ErrDeadlineExceeded) && c.dec.Pending():
		c.refuse(fmt.Errorf("nothing came for %v in the middle of an array (YAML ends with a line ---)", c.opt.StallTimeout))
	default: // the client has gone, or is idle, or the node stops, or needs the place
		c.farewell()
	}
	return true
}

// answer keeps one line for the client. An error in writing it shows at the next flush.
func (c *conn) answer(line []byte) { _, _ = c.out.Write(line) }

// refuse answers with an error and uses up the connection, which the caller closes. A client that is still writing
// would get a broken pipe from a connection that is closed at once, and might never read
// the answer: so what it writes is thrown away for a while.
func (c *conn) refuse(err error) {
	if !c.turnAway(err) {
		return
	}
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	if c.deadline(c.opt.LingerTimeout) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c.net, mostDiscarded))
}

// turnAway answers with an error and reports whether that could be written.
func (c *conn) turnAway(err error) bool {
	c.answer(failed(err))
	return c.out.Flush() == nil
}

// stop ends the wait for the client, now and later.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	_ = c.net.SetReadDeadline(time.Unix(1, 0))
}

// yield stops the connection for the sake of others.
func (c *conn) yield() {
	c.mu.Lock()
	c.crowded = true
	c.mu.Unlock()
	c.stop()
}

func (c *conn) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// deadline lets the next read wait for d, or for ever when d is 0.
func (c *conn) deadline(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return errStopping
	}
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	return c.net.SetReadDeadline(at)
}

// patientReader is the connection as the decoder reads it: the answers so far go out
// first, and then it waits as long as is right at this place of the stream.
type patientReader struct{ c *conn }

func (r patientReader) Read(p []byte) (int, error) {
	c := r.c
	if err := c.out.Flush(); err != nil {
		return 0, err
	}
	patience := time.Duration(0)
	switch {
	case c.dec.Pending():
		patience = c.opt.StallTimeout
	case c.answered:
		patience = c.opt.IdleTimeout
	}
	if err := c.deadline(patience); err != nil {
		return 0, err
	}
	n, err := c.net.Read(p)
	if err != nil && c.stopped() {
		err = errStopping
	}
	return n, err
}

// answerWriter is the connection as answers are written: a client that does not read them
// holds nobody for long.
type answerWriter struct{ c *conn }

func (w answerWriter) Write(p []byte) (int, error) {
	if err := w.c.net.SetWriteDeadline(time.Now().Add(w.c.opt.WriteTimeout)); err != nil {
		return 0, err
	}
	return w.c.net.Write(p)
}

// accepted is the answer to an array that is on disk.
func accepted(ids []message.ID) []byte {
	line := make([]byte, 0, 16+32*len(ids))
	line = append(line, `{"accepted":[`...)
	for i, id := range ids {
		if i > 0 {
			line = append(line, ',')
		}
		line = append(line, '"')
		line = append(line, id.String()...)
		line = append(line, '"')
	}
	return append(line, "]}\n"...)
}

// failed is the answer to an array that is not accepted.
func failed(err error) []byte {
	const most = 4 << 10
	text := err.Error()
	if len(text) > most {
		text = text[:most] + "…"
	}
	var b lineBuffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// Strings can always be encoded; bytes that are not UTF-8 are replaced.
	_ = enc.Encode(struct {
		Error string `json:"error"`
	}{text})
	return b
}

// lineBuffer is the least that json.Encoder can write to.
type lineBuffer []byte

func (b *lineBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
