// Package audit owns the audit log of a node: one line of JSON for each message that has left
// its ring buffer, with how it left and all that is needed to send it again.
//
// A [Log] is written by one goroutine, the writer of the store, just before the commit that takes the
// messages off: a kill in between has a line written twice, and none is left out. The file is
// rotated by its size. What is written is in the hands of the operating system, which
// a power cut may keep from the disk; the messages themselves are in the store.
//
// Each line has the hash of the one before it, over rotation and restarts, so that [Verify] finds what
// was changed, taken out, put in or moved.
package audit

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// Options say where and how much is kept. All are needed.
type Options struct {
	Path string
	// Size is how large the file may get, in bytes, before it is rotated; Files how many there
	// are at most, that one included.
	Size  int64
	Files int
	Self  message.Node
	// Report is told when the log cannot be written, and when it can again (nil). It must not block.
	Report func(error)
}

// Log is the audit log of one node.
type Log struct {
	opts   Options
	file   *os.File // nil before the first line and after a failure
	size   int64
	buf    []byte // lines on their way
	failed bool
	// written is the chain up to what is in the file, and ahead up to what is in buf. Before the
	// first line began says that they are not known.
	began          bool
	written, ahead chain
}

// Line is one line of the log.
type Line struct {
	Time time.Time  `json:"time"`
	ID   message.ID `json:"id"`
	// End is "delivered", "sent" for a message without ACK, or why the message left otherwise, with Text for people.
	End      string    `json:"end"`
	Text     string    `json:"text,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
	Accepted time.Time `json:"accepted"`
	// InReplyTo and Bytes are for replies: what they answer, and the size of their body.
	InReplyTo *message.ID `json:"inReplyTo,omitempty"`
	Bytes     int         `json:"bytes,omitempty"`
	// Origin is how the message came in, empty for one that the node made itself.
	Origin string `json:"origin,omitempty"`
	// Message is the message, as the socket takes it.
	Message json.RawMessage `json:"message"`
}

// New checks the options and returns a log. The file is opened with the first line: a disk that
// is full is no reason not to start.
func New(o Options) (*Log, error) {
	if o.Path == "" || o.Size <= 0 || o.Files < 1 || o.Report == nil {
		return nil, errors.New("audit log: an option is missing")
	}
	if err := o.Self.Check(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &Log{opts: o}, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.opts.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	end, err := endOf(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := l.resume(end); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, end
	return nil
}

// resume finds where the chain goes on in a file that was opened and has size bytes.
func (l *Log) resume(size int64) error {
	path := l.opts.Path
	if size == 0 {
		if l.began {
			return nil // it was rotated, or nothing could be written to it
		}
		path = l.old(1)
	}
	c, _, err := tailOf(path)
	if err != nil {
		return fmt.Errorf("look where the log goes on: %w", err)
	}
	l.written, l.began = c, true
	return nil
}

// old is the name of a file that was set aside.
func (l *Log) old(i int) string {
	if i == 0 {
		return l.opts.Path
	}
	return l.opts.Path + "." + strconv.Itoa(i)
}

// endOf ends a line that was cut off, so that the next one begins at its own place.
func endOf(f *os.File) (int64, error) {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 || !fi.Mode().IsRegular() {
		return 0, err
	}
	r, err := os.Open(f.Name())
	if err != nil {
		return 0, err
	}
	var last [1]byte
	_, err = r.ReadAt(last[:], fi.Size()-1)
	if err := errors.Join(err, r.Close()); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return fi.Size(), nil
	}
	_, err = f.Write([]byte{'\n'})
	return fi.Size() + 1, err
}

// Left writes a line for each message. It never fails: what cannot be written is reported, and
// delivery goes on.
func (l *Log) Left(left []kvstore.Left) {
	switch err := l.add(left); {
	case err != nil:
		l.failed = true
		l.opts.Report(fmt.Errorf("audit log: %w", err))
	case l.failed:
		l.failed = false
		l.opts.Report(nil)
	}
	if cap(l.buf) > 4<<20 {
		l.buf = nil
	}
}

func (l *Log) add(left []kvstore.Left) error {
	if len(left) == 0 {
		return nil
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	l.buf, l.ahead = l.buf[:0], l.written
	var errs []error
	for i := range left {
		if err := l.line(&left[i]); err != nil {
			errs = append(errs, fmt.Errorf("message %s: %w", left[i].ID, err))
		}
	}
	return errors.Join(append(errs, l.write())...)
}

func (l *Log) line(left *kvstore.Left) error {
	m, err := wire.DecodeMessage(left.Message)
	if err != nil {
		return err
	}
	m.From, m.To, m.Method = l.opts.Self, left.Peer, left.Method
	end := string(left.Code)
	switch {
	case left.Code == message.CodeDone && m.ACKTimeout > 0:
		end = "delivered"
	case left.Code == message.CodeDone:
		end = "sent" // nobody says whether it has come
	}
	begin := len(l.buf)
	b := appendTime(append(l.buf, `{"time":`...), left.At)
	b = wire.AppendQuoted(append(b, `,"id":`...), m.ID.String())
	b = wire.AppendQuoted(append(b, `,"end":`...), end)
	if left.Text != "" {
		b = wire.AppendQuoted(append(b, `,"text":`...), left.Text)
	}
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(left.Attempts), 10)
	b = appendTime(append(b, `,"accepted":`...), m.Accepted)
	if m.IsReply() {
		b = wire.AppendQuoted(append(b, `,"inReplyTo":`...), m.InReplyTo.String())
		b = strconv.AppendInt(append(b, `,"bytes":`...), int64(len(m.Body)), 10)
	}
	if left.Origin != "" {
		b = wire.AppendQuoted(append(b, `,"origin":`...), left.Origin)
	}
	b = wire.AppendText(append(b, `,"message":`...), m)
	l.buf = appendLink(b, l.ahead.head.N+1, l.ahead.next)
	l.ahead.head = Head{l.ahead.head.N + 1, sha256.Sum256(l.buf[begin:])}
	l.ahead.next = l.ahead.head.Hash
	return nil
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05.000Z07:00"), '"')
}

func (l *Log) write() error {
	if len(l.buf) == 0 {
		return nil
	}
	if l.size > 0 && l.size+int64(len(l.buf)) > l.opts.Size {
		if err := l.rotate(); err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	n, err := l.file.Write(l.buf)
	l.size += int64(n)
	if err != nil {
		_ = l.file.Close() // the next line begins with a look at where this one ended
		l.file = nil
		return err
	}
	l.written = l.ahead
	return nil
}

// rotate names the file <path>.1, what was there <path>.2, and so on; the oldest goes.
func (l *Log) rotate() error {
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	if err != nil {
		return err
	}
	if l.opts.Files == 1 {
		if err := os.Remove(l.opts.Path); err != nil {
			return err
		}
		return l.open()
	}
	free := 1
	for ; free < l.opts.Files-1; free++ {
		if _, err := os.Lstat(l.old(free)); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	for i := free; i > 0; i-- {
		if err := os.Rename(l.old(i-1), l.old(i)); err != nil {
			return err
		}
	}
	return l.open()
}

// Close syncs and closes the file.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// Path is where the audit log of a node is in its database folder.
func Path(databaseFolder string, self message.Node) string {
	return filepath.Join(databaseFolder, string(self)+".audit.log")
}

// ErrReply says that a line is about a reply, which nobody but the node that ran its request can make.
var ErrReply = errors.New("it is a reply")

// Parse takes a line of an audit log apart, and reports whether it is one. The error says why its
// message cannot be sent again.
func Parse(text []byte) (line Line, ok bool, err error) {
	if json.Unmarshal(text, &line) != nil || line.ID.IsZero() || line.End == "" || len(line.Message) == 0 {
		return line, false, nil
	}
	if line.InReplyTo != nil {
		return line, true, fmt.Errorf("%w to message %s: send that one again", ErrReply, line.InReplyTo)
	}
	return line, true, nil
}
