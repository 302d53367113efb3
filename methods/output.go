package methods

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"steward/process"
)

// keptStderr is how much of what a command writes to stderr is kept, in bytes.
const keptStderr = 64 << 10

// output takes the standard output of a command from the goroutine in which os/exec reads
// it to the one that runs the call. It says when it has ended, which a plain writer is not
// told, and can be waited for with a time limit.
type output struct {
	net.Conn          // the reading end
	in       net.Conn // the writing end
	err      error    // why it ended too early; set before in is closed
}

func newOutput() *output {
	o := new(output)
	o.Conn, o.in = net.Pipe()
	return o
}

// Read returns what has arrived, and os.ErrDeadlineExceeded when nothing does before the
// deadline that was set.
func (o *output) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if errors.Is(err, io.EOF) && o.err != nil {
		err = o.err
	}
	return n, err
}

// handOver is the writing end of an output.
type handOver struct{ o *output }

func (h handOver) Write(p []byte) (int, error) { return h.o.in.Write(p) }

// ReadFrom is called once by os/exec, through io.Copy.
func (h handOver) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(struct{ io.Writer }{h}, r)
	h.o.err = err
	_ = h.o.in.Close() // never fails
	return n, err
}

// head keeps the beginning of a command's stderr and counts all of it. Its fields are read
// after ended is closed.
type head struct {
	ended chan struct{}
	kept  []byte
	size  int64
}

func newHead() *head { return &head{ended: make(chan struct{})} }

func (h *head) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	h.kept = append(h.kept, p[:min(len(p), keptStderr-len(h.kept))]...)
	return len(p), nil
}

// ReadFrom is called once by os/exec, through io.Copy.
func (h *head) ReadFrom(r io.Reader) (int64, error) {
	defer close(h.ended)
	return io.Copy(struct{ io.Writer }{h}, r)
}

// untilLater is how long output waits for more of it before it is sent on, where it is
// sent on while it comes.
const untilLater = 200 * time.Millisecond

// timedReader is a reader that can be waited for with a time limit.
type timedReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// sender reads to the end and emits what it has read in parts, so that memory does not
// grow with it.
type sender struct {
	emit func(context.Context, []byte) error
	// within, when not 0, sends on what has come after that time at the latest, in parts
	// that end with a line if there is the end of a line in them.
	within time.Duration

	buf []byte
	due time.Time // when buf is to be sent on
}

// run sends on what r has. What is left at the end is returned, also with an error; it is
// no more than a part.
func (s *sender) run(ctx context.Context, r io.Reader) ([]byte, error) {
	timed, _ := r.(timedReader)
	for {
		if s.within > 0 {
			_ = timed.SetReadDeadline(s.due) // fails when all was written, which Read tells too
		}
		was := len(s.buf)
		s.grow()
		n, err := r.Read(s.buf[was:cap(s.buf)])
		s.buf = s.buf[:was+n]
		if was == 0 && n > 0 && s.within > 0 {
			s.due = time.Now().Add(s.within)
		}
		if len(s.buf) > process.MaxPart {
			if err := s.send(ctx, s.whole(process.MaxPart)); err != nil {
				return s.buf, err
			}
		}
		switch late := !s.due.IsZero() && !time.Now().Before(s.due); {
		case errors.Is(err, io.EOF):
			return s.buf, nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return s.buf, err
		case late && len(s.buf) > 0:
			if err := s.send(ctx, s.whole(len(s.buf))); err != nil {
				return s.buf, err
			}
		}
	}
}

// grow makes room in buf for one byte more than a part, in steps.
func (s *sender) grow() {
	const first = 4 << 10
	if len(s.buf) < cap(s.buf) {
		return
	}
	more := make([]byte, len(s.buf), max(first, min(4*cap(s.buf), process.MaxPart+1)))
	copy(more, s.buf)
	s.buf = more
}

// whole is how much of the first n bytes is to be sent on at once: up to the last end of a
// line, if lines matter.
func (s *sender) whole(n int) int {
	if s.within > 0 {
		if i := bytes.LastIndexByte(s.buf[:n], '\n'); i >= 0 {
			return i + 1
		}
	}
	return n
}

// send emits the first n bytes.
func (s *sender) send(ctx context.Context, n int) error {
	part := s.buf[:n:n]
	// The receiver of the part may keep it, so what follows gets memory of its own.
	rest := s.buf[n:]
	s.buf, s.due = nil, time.Time{}
	if len(rest) > 0 {
		s.buf = append(make([]byte, 0, max(len(rest), cap(part)/2)), rest...)
		if s.within > 0 {
			s.due = time.Now().Add(s.within)
		}
	}
	if err := s.emit(ctx, part); err != nil {
		return &emitError{err}
	}
	return nil
}

// emitError tells a part that could not be stored from output that could not be read.
type emitError struct{ err error }

func (e *emitError) Error() string { return "store a part of the output: " + e.err.Error() }
func (e *emitError) Unwrap() error { return e.err }
