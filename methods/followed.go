package methods

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"steward/process"
)

// place is how far a file was read. The bytes before that tell whether it is still the same
// content, or was truncated and written anew, and find it again under another name.
type place struct {
	Inode  uint64 `json:",omitempty"`
	Offset int64
	Before []byte // the last bytes before Offset, at most placeBefore
}

const placeBefore = 256

// followed is an open file that is read as it grows. It belongs to its tail.
type followed struct {
	place
	file *os.File
	info fs.FileInfo // tells it from others
	// aside: it is not under the path of the tail any more, and may still be written to.
	aside bool
	// hole: it was truncated, and the zeros that a writer which does not append leaves in
	// front of its next line are no lines.
	hole bool

	size     int64     // at the last look; it is read no further
	modified time.Time // at the last look
	readSize int64     // when it was read to its end
	readAt   time.Time // modified, then
	changed  time.Time // when something new was seen
}

// errTruncated says that a file does not hold any more what was read from it.
var errTruncated = errors.New("truncated")

// follow opens a regular file.
func follow(path string) (*followed, error) {
	file, err := openShared(path)
	if err != nil {
		return nil, err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = notAFile(fi.Mode())
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &followed{place: place{Inode: inode(fi)}, file: file, info: fi, size: fi.Size(), modified: fi.ModTime(),
		readSize: -1, changed: time.Now()}, nil
}

// toEnd goes to the end of the file.
func (f *followed) toEnd() error {
	n := min(f.size, placeBefore)
	before := make([]byte, n)
	if _, err := f.file.ReadAt(before, f.size-n); err != nil {
		return err
	}
	f.Offset, f.Before = f.size, before
	return nil
}

// measure looks how long the file is.
func (f *followed) measure() error {
	fi, err := f.file.Stat()
	if err != nil {
		return err
	}
	if f.size, f.modified = fi.Size(), fi.ModTime(); f.news() {
		f.changed = time.Now()
	}
	return nil
}

// news reports whether the file has changed since it was read to its end.
func (f *followed) news() bool { return f.size != f.readSize || !f.modified.Equal(f.readAt) }

// old notes that it was read to its end.
func (f *followed) old() { f.readSize, f.readAt = f.size, f.modified }

// more returns what follows the place, up to the size that was measured, and no more than
// a part.
func (f *followed) more() ([]byte, error) {
	if f.size < f.Offset {
		return nil, errTruncated
	}
	n := len(f.Before)
	// In one read with what was read before, so that no truncation goes unnoticed in between.
	buf := make([]byte, n+int(min(f.size-f.Offset, process.MaxPart)))
	got, err := f.file.ReadAt(buf, f.Offset-int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if got < n || !bytes.Equal(buf[:n], f.Before) {
		return nil, errTruncated
	}
	return buf[n:got:got], nil
}

// lines returns the next whole lines and goes on behind them. A line that is longer than a
// part comes in pieces.
func (f *followed) lines() ([]byte, error) {
	for {
		b, err := f.more()
		if err != nil {
			return nil, err
		}
		if f.hole && len(b) > 0 {
			line := bytes.TrimLeft(b, "\x00")
			f.pass(b[:len(b)-len(line)])
			if f.hole = len(line) == 0; f.hole || len(line) < len(b) {
				continue
			}
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 || len(b) < process.MaxPart {
			b = b[:i+1]
		}
		f.pass(b)
		return b, nil
	}
}

// pass moves the place on behind b, which follows it.
func (f *followed) pass(b []byte) {
	f.Offset += int64(len(b))
	all := append(f.Before[:len(f.Before):len(f.Before)], b[max(0, len(b)-placeBefore):]...)
	f.Before = all[max(0, len(all)-placeBefore):]
}

// again starts at the beginning of a file that was truncated.
func (f *followed) again() error {
	f.place = place{Inode: f.Inode}
	f.hole, f.readSize = true, -1
	return f.measure()
}
