package ingress

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"steward/message"
	"steward/message/wire"
)

const (
	inFileName = "in file"
	// patience is how long somebody may have the file open, and write nothing, before it is
	// erased under him.
	patience = 10 * time.Second
	// mostErrors is the size in bytes at which the file of errors is put aside.
	mostErrors = 10 << 20
	// batchMessages is how many messages of arrays that follow each other share a commit.
	batchMessages = 1000
)

// InFile takes messages from a file to which they are appended. What has been dealt with is
// erased, an array of which only a part is there waits for its rest, and what is not accepted
// goes to <file>.error, with the reason before it. After a syntax error that is all there is.
//
// The file is erased when everything in it has been dealt with. On Linux that is done in a
// moment in which nobody else has it open, if there is one within ten seconds of silence.
// Elsewhere, and under a writer that keeps it open, a text that is appended in the very moment
// between the last look and the erasing is lost.
//
// How far it has been read, and before a commit the id of its first message, is noted in
// <file>.note. So a restart can see in the store what became of that, and nothing is accepted
// twice. Messages without ACK are sent once at most.
type InFile struct {
	opt   FileOptions
	root  *os.Root // its folder, during one look at it: what others make of it leads nowhere else
	again retry

	pos    mark
	known  fileState // as it was left after the last look
	quiet  time.Time // since when nothing has changed
	warned bool      // of a half array
}

// mark is a place in the file that is known by what stands before it: a file that was
// written anew is told from one that was appended to.
type mark struct {
	offset int64
	sum    hash.Hash // of all before offset
}

// fileState is what changes when somebody writes.
type fileState struct {
	size  int64
	mtime time.Time
}

// inFileNote is what is noted before a commit.
type inFileNote struct {
	From notedMark  `json:"from"` // what is before it has been dealt with
	To   notedMark  `json:"to"`   // the end of what is being accepted
	ID   message.ID `json:"id"`   // of the first message of that which the store keeps, or zero
}

type notedMark struct {
	Offset int64  `json:"offset"`
	Sum    string `json:"sha256"`
}

// NewInFile checks the options. Nothing is opened before Serve.
func NewInFile(opt FileOptions) (*InFile, error) {
	if err := opt.check(inFileName); err != nil {
		return nil, err
	}
	return &InFile{opt: opt, pos: start()}, nil
}

func start() mark { return mark{sum: sha256.New()} }

func (p mark) noted() notedMark {
	return notedMark{p.offset, hex.EncodeToString(p.sum.Sum(nil))}
}

// to returns the mark at an offset further on in r.
func (p mark) to(r io.ReaderAt, offset int64) (mark, error) {
	sum := sha256.New()
	state, err := p.sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err == nil {
		err = sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
	}
	if err == nil {
		_, err = io.Copy(sum, io.NewSectionReader(r, p.offset, offset-p.offset))
	}
	return mark{offset, sum}, err
}

// These are names in its folder.
func (f *InFile) name() string      { return filepath.Base(f.opt.Path) }
func (f *InFile) notePath() string  { return f.name() + ".note" }
func (f *InFile) errorPath() string { return f.name() + ".error" }

// Serve makes the file if there is none, and looks at it until ctx ends. The error is that
// of the file system; it can be served again.
func (f *InFile) Serve(ctx context.Context) error {
	made, err := os.OpenFile(f.opt.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = made.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", inFileName, err)
	}
	if info, err := os.Stat(f.opt.Path); err == nil && info.Mode().Perm()&0o022 != 0 {
		f.opt.Log.Warn("others can write to the file, and so send messages as this node", "path", f.opt.Path, "mode", info.Mode().Perm().String())
	}
	f.opt.Log.Info("file is read", "path", f.opt.Path)
	f.known = fileState{size: -1}
	resumed := false
	for ctx.Err() == nil {
		err := f.look(ctx, &resumed)
		var later laterError
		switch {
		case errors.As(err, &later):
			f.again.after(ctx, &f.opt, inFileName, later)
			resumed, f.known = false, fileState{size: -1}
			continue
		case errors.Is(err, fs.ErrNotExist): // who removes it makes it again
		case err != nil:
			return fmt.Errorf("%s: %w", inFileName, err)
		}
		pause(ctx, f.opt.Poll)
	}
	return nil
}

// laterError is that of a store that takes nothing now.
type laterError struct{ error }

func (e laterError) Unwrap() error { return e.error }

// look reads what has been appended, and erases the file when there is nothing left to do.
func (f *InFile) look(ctx context.Context, resumed *bool) (err error) {
	// Anew each time: another one may have got its name.
	if f.root, err = os.OpenRoot(filepath.Dir(f.opt.Path)); err != nil {
		return err
	}
	defer f.root.Close()
	info, err := f.root.Lstat(f.name())
	if err != nil {
		return err
	}
	now := fileState{info.Size(), info.ModTime()}
	changed := now.size != f.known.size || !now.mtime.Equal(f.known.mtime)
	if changed {
		f.quiet, f.warned = time.Now(), false
	}
	if f.known = now; now.size == 0 {
		f.pos = start()
		if changed {
			*resumed = true
			return removeNote(f.root, f.notePath())
		}
		return nil
	}
	if !changed && now.size > f.pos.offset {
		f.warn(now.size)
		return nil // it waits for the rest of an array
	}
	file, err := openRegular(f.root, f.name(), os.O_RDWR)
	if err != nil {
		return err
	}
	defer file.Close()
	if changed {
		if err := f.find(file, now.size, resumed); err != nil {
			return err
		}
		if err := f.read(ctx, file, now.size); err != nil {
			return err
		}
	}
	if f.pos.offset == now.size && ctx.Err() == nil {
		return f.erase(file)
	}
	return nil
}

// find sets the place from which on the file has not been read.
func (f *InFile) find(file *os.File, size int64, resumed *bool) error {
	want := f.pos.noted()
	if !*resumed {
		var note inFileNote
		found, err := readNote(f.root, f.notePath(), &note)
		if err != nil {
			return err
		}
		want = start().noted()
		if found {
			done, err := f.opt.settled(note.ID)
			if err != nil {
				return err
			}
			if want = note.From; done {
				want = note.To
			}
		}
		*resumed = true
	}
	if f.pos = start(); want.Offset <= size {
		pos, err := f.pos.to(file, want.Offset)
		if err != nil {
			return err
		}
		if pos.noted() == want {
			f.pos = pos
			return nil
		}
	}
	f.opt.Log.Info("the file was written anew, and is read from its begin", "path", f.opt.Path)
	return nil
}

// errEnd is the end of the file for now: more may come.
var errEnd = errors.New("the end of the file for now")

// openEnded reads as r does, but its end is errEnd.
type openEnded struct{ r io.Reader }

func (o openEnded) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err == io.EOF {
		err = errEnd
	}
	return n, err
}

// piece is one array of the file.
type piece struct {
	end  int64
	msgs []message.Message
}

// read hands in all whole arrays between the place and size.
func (f *InFile) read(ctx context.Context, file *os.File, size int64) error {
	base := f.pos.offset
	dec := wire.NewDecoder(openEnded{io.NewSectionReader(file, base, size-base)}, f.opt.Limits)
	var batch []piece
	waiting := 0
	flush := func() error {
		err := f.offer(ctx, file, batch)
		batch, waiting = nil, 0
		return err
	}
	for ctx.Err() == nil {
		drafts, err := dec.Next()
		end := base + dec.Offset()
		var syntax *wire.SyntaxError
		switch {
		case errors.Is(err, errEnd):
			if err := flush(); err != nil || dec.Pending() {
				return err
			}
			return f.advance(file, size) // over white space
		case errors.As(err, &syntax):
			end = size
		}
		var msgs []message.Message
		if err == nil {
			msgs, err = f.opt.Resolve(drafts)
		}
		if err == nil {
			batch = append(batch, piece{end, msgs})
			if waiting += len(msgs); waiting < batchMessages {
				continue
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if refused := (*wire.RefusedError)(nil); err != nil && syntax == nil && !errors.As(err, &refused) {
			return err // of the disk
		}
		if err != nil {
			if err := f.refuse(file, end, err); err != nil {
				return err
			}
		}
		if syntax != nil {
			return nil
		}
	}
	return nil
}

func (f *InFile) advance(file *os.File, offset int64) error {
	pos, err := f.pos.to(file, offset)
	if err == nil {
		f.pos = pos
	}
	return err
}

// offer hands in arrays in one commit, or when that is refused for good, one by one.
func (f *InFile) offer(ctx context.Context, file *os.File, batch []piece) error {
	if len(batch) == 0 {
		return nil
	}
	var msgs []message.Message
	for _, p := range batch {
		msgs = append(msgs, p.msgs...)
	}
	end := batch[len(batch)-1].end
	if len(msgs) == 0 {
		return f.advance(file, end)
	}
	to, err := f.pos.to(file, end)
	if err != nil {
		return err
	}
	setOrigin(msgs, inFileName)
	first := f.opt.stamp(msgs)
	if err := writeNote(f.root, f.notePath(), inFileNote{f.pos.noted(), to.noted(), first}); err != nil {
		return err
	}
	_, err = f.opt.Accept(ctx, msgs)
	switch {
	case err == nil:
		f.pos, f.again = to, retry{}
		f.opt.Log.Info("messages accepted", "path", f.opt.Path, "messages", len(msgs), "first_id", msgs[0].ID.String())
		return nil
	case !errors.Is(err, message.ErrInvalid):
		return laterError{err}
	}
	if err := removeNote(f.root, f.notePath()); err != nil {
		return err
	}
	if len(batch) == 1 {
		return f.refuse(file, end, err)
	}
	for i := range batch {
		if err := f.offer(ctx, file, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// refuse puts what stands before end aside, with the reason.
func (f *InFile) refuse(file *os.File, end int64, reason error) (err error) {
	f.opt.refused(inFileName, reason)
	if info, err := f.root.Lstat(f.errorPath()); err == nil && (info.Size() > mostErrors || !info.Mode().IsRegular()) {
		if err := f.root.Rename(f.errorPath(), f.errorPath()+".1"); err != nil {
			return err
		}
	}
	out, err := f.root.OpenFile(f.errorPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY|noWait, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := fmt.Fprintf(out, "# %s %s\n", time.Now().UTC().Format(time.RFC3339), reason); err != nil {
		return err
	}
	if _, err := io.Copy(out, io.NewSectionReader(file, f.pos.offset, end-f.pos.offset)); err != nil {
		return err
	}
	if _, err := io.WriteString(out, "\n"); err != nil {
		return err
	}
	// Its name, too: what stands in the file is erased after this.
	if err := errors.Join(out.Sync(), syncFolder(f.root, ".")); err != nil {
		return err
	}
	return f.advance(file, end)
}

// company is who else has a file open.
type company uint8

const (
	alone   company = iota // nobody
	crowded                // somebody
	unseen                 // that cannot be known
)

// erase empties the file, if it still ends where it was read to. The note goes after it, and
// when that does not happen any more it says nothing about a file that is empty.
func (f *InFile) erase(file *os.File) error {
	release, who, err := holdAlone(file)
	if err != nil {
		return err
	}
	defer release()
	wait := map[company]time.Duration{crowded: patience, unseen: f.opt.Settle}[who]
	if time.Since(f.quiet) < wait {
		return nil
	}
	info, err := file.Stat()
	if err != nil || info.Size() != f.pos.offset {
		return err
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	f.pos, f.known = start(), fileState{size: -1}
	return removeNote(f.root, f.notePath())
}

// warn says once that half an array has been waiting for long.
func (f *InFile) warn(size int64) {
	const long = time.Minute
	if f.warned || time.Since(f.quiet) < long {
		return
	}
	f.warned = true
	f.opt.Log.Warn("half an array waits for its rest (YAML ends with a line ---)", "path", f.opt.Path, "bytes", size-f.pos.offset)
}
