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

// conn is one client: arrays come in, and for each one line goes out, in the same order.
//
// One goroutine reads and accepts (serve), the other one answers (answerAll): so the next array is read
// while the one before is on its way to the disk, and arrays that come close behind each other
// share a commit.
type conn struct {
	net    net.Conn
	opt    *Options
	origin string // of its messages

	// Owned by the goroutine that reads.
	dec      *wire.Decoder
	answered bool

	// out gathers answers that are there at the same time. It is owned by the goroutine that answers.
	out   *bufio.Writer
	queue chan answer // closed when nothing more will be answered

	mu       sync.Mutex // guards what follows, and setting a read deadline
	changed  *sync.Cond // an answer has gone out
	stopping bool
	crowded  bool      // it stops because others need its place
	since    time.Time // when the node began to wait for the next array
	waiting  int       // answers that have not gone out
	messages int       // messages in the arrays that they are about
}

// answer is what a client is told about an array: a line, or what says whether it was accepted.
type answer struct {
	line     []byte
	accepted func() ([]message.ID, error)
	messages int
}

const (
	// mostWaiting and mostMessages bound what of one client is on its way to the disk; one array
	// may have more.
	mostWaiting  = 64
	mostMessages = 8192
)

func newConn(nc net.Conn, opt *Options) *conn {
	c := &conn{net: nc, opt: opt, origin: originOf(nc), queue: make(chan answer, mostWaiting), since: time.Now()}
	c.changed = sync.NewCond(&c.mu)
	c.out = bufio.NewWriterSize(answerWriter{c}, answerBuffer)
	c.dec = wire.NewDecoder(patientReader{c}, opt.Limits)
	return c
}

// serve reads arrays until either side ends it, and closes the connection.
func (c *conn) serve(ctx context.Context) {
	var last error
	defer func() {
		// Nothing that a client sends may stop the node.
		if p := recover(); p != nil {
			last = c.panicked(p)
		}
		switch {
		case last != nil:
			c.answer(answer{line: failed(last)})
		case c.gaveWay():
			c.answer(answer{line: failed(errCrowded(c.opt.MaxConns))})
		}
		close(c.queue)
		c.drain()
		if last != nil {
			c.linger()
		}
		_ = c.net.Close()
	}()
	for !c.stopped() {
		drafts, err := c.dec.Next()
		if err == nil {
			c.accept(ctx, drafts)
		} else if end, refusal := c.fault(err); end {
			last = refusal
			return
		}
		c.answered = true
	}
}

// accept hands an array on. Its answer follows.
func (c *conn) accept(ctx context.Context, drafts []wire.Draft) {
	var messages []message.Message
	var err error
	if len(drafts) > 0 {
		messages, err = c.opt.Resolve(drafts)
	}
	switch {
	case err != nil:
		c.answer(answer{line: failed(err)})
	case len(messages) == 0:
		c.answer(answer{line: accepted(nil)})
	default:
		setOrigin(messages, c.origin)
		c.await(len(messages))
		c.answer(answer{accepted: c.opt.Accept(ctx, messages), messages: len(messages)})
	}
}

// await waits until there is room for an array.
func (c *conn) await(messages int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.messages > 0 && c.messages+messages > mostMessages {
		c.changed.Wait()
	}
}

// answer puts an answer behind those before it.
func (c *conn) answer(a answer) {
	c.mu.Lock()
	for c.waiting >= mostWaiting {
		c.changed.Wait()
	}
	c.waiting++
	c.messages += a.messages
	c.mu.Unlock()
	c.queue <- a
}

// drain waits until all answers have gone out.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting > 0 {
		c.changed.Wait()
	}
}

// answerAll writes answers until there are no more. An error in writing them shows to who reads from
// the connection: it is closed then.
func (c *conn) answerAll() {
	for a := range c.queue {
		line := c.lineOf(a)
		_, err := c.out.Write(line)
		c.mu.Lock()
		rest := c.waiting - 1
		c.mu.Unlock()
		if err == nil && rest == 0 {
			err = c.out.Flush()
		}
		if err != nil {
			_ = c.net.Close()
		}
		c.mu.Lock()
		c.waiting--
		c.messages -= a.messages
		c.since = time.Now()
		c.mu.Unlock()
		c.changed.Broadcast()
	}
}

// lineOf waits for what the answer is about. The answers before it do not wait for long.
func (c *conn) lineOf(a answer) (line []byte) {
	if a.accepted == nil {
		return a.line
	}
	defer func() {
		if p := recover(); p != nil {
			line = failed(c.panicked(p))
		}
	}()
	if c.out.Buffered() > 0 {
		flushed := make(chan struct{})
		timer := time.AfterFunc(prompt, func() { // nobody else uses c.out meanwhile
			defer close(flushed)
			_ = c.out.Flush()
		})
		defer func() {
			if !timer.Stop() {
				<-flushed
			}
		}()
	}
	ids, err := a.accepted()
	if err != nil {
		return failed(err)
	}
	return accepted(ids)
}

// panicked logs a fault of ours and returns what the client is told.
func (c *conn) panicked(p any) error {
	c.opt.Log.Error("connection panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
	return errors.New("internal error, see the log of the node")
}

// fault answers what was wrong with the stream. It reports whether that was its end, and what the
// client is told then; nil for nothing.
func (c *conn) fault(err error) (end bool, last error) {
	var refused *wire.RefusedError
	var syntax *wire.SyntaxError
	switch {
	case errors.As(err, &refused):
		c.answer(answer{line: failed(err)})
		return false, nil
	case errors.As(err, &syntax):
		c.opt.Log.Debug("connection closed after a syntax error", "err", err)
		return true, err
	case errors.Is(err, os.ErrDeadlineExceeded) && c.dec.Pending():
		return true, fmt.Errorf("nothing came for %v in the middle of a message (YAML ends with a line ---)", c.opt.StallTimeout)
	}
	return true, nil // the client has gone, or is idle, or the node stops
}

// linger uses up a connection on which the last answer was an error, before it is closed. A client
// that is still writing would get a broken pipe from one that is closed at once, and might never read
// the answer: so what it writes is thrown away for a while.
func (c *conn) linger() {
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	if c.deadline(c.opt.LingerTimeout) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c.net, mostDiscarded))
}

// turnAway answers a connection that is not served.
func (c *conn) turnAway(err error) {
	_, _ = c.out.Write(failed(err))
	_ = c.out.Flush()
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

func (c *conn) gaveWay() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crowded
}

// waitsSince says since when the node waits for the client's next array, and whether it does.
func (c *conn) waitsSince() (since time.Time, waits bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since, c.waiting == 0 && !c.stopping
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

// patientReader is the connection as the decoder reads it. Between two arrays the client gets its
// answers first: from then on it may be waited for as long as is right at this place of the stream.
type patientReader struct{ c *conn }

func (r patientReader) Read(p []byte) (int, error) {
	c := r.c
	patience := time.Duration(0)
	switch {
	case c.dec.Pending():
		patience = c.opt.StallTimeout
	case c.answered:
		c.drain()
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
