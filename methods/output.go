package methods

import (
	"context"
	"errors"
	"io"

	"steward/process"
)

// keptStderr is how much of what a command writes to stderr is kept, in bytes.
const keptStderr = 64 << 10

// handOver passes the standard output of a command from the goroutine in which os/exec
// reads it to the one that runs the call, and says when it has ended, which a plain writer
// is not told.
type handOver struct{ *io.PipeWriter }

// ReadFrom is called once by os/exec, through io.Copy.
func (h handOver) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(h.PipeWriter, r)
	_ = h.CloseWithError(err) // nil means the end of the output
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

// inParts reads r to its end. Each time more than a part is there it emits a full one, so
// that memory does not grow with the output; what is left is returned, also with an error.
func inParts(ctx context.Context, r io.Reader, emit func(context.Context, []byte) error) ([]byte, error) {
	const first = 4 << 10
	buf := make([]byte, 0, first)
	for {
		if len(buf) == cap(buf) {
			more := make([]byte, len(buf), min(4*cap(buf), process.MaxPart+1))
			copy(more, buf)
			buf = more
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > process.MaxPart {
			// The receiver of the part may keep it, so the next one gets memory of its own.
			rest := append(make([]byte, 0, process.MaxPart+1), buf[process.MaxPart:]...)
			if err := emit(ctx, buf[:process.MaxPart:process.MaxPart]); err != nil {
				return rest, &emitError{err}
			}
			buf = rest
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// emitError tells a part that could not be stored from output that could not be read.
type emitError struct{ err error }

func (e *emitError) Error() string { return "store a part of the output: " + e.err.Error() }
func (e *emitError) Unwrap() error { return e.err }
