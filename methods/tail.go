package methods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"steward/message"
)

// tail follows the file under a path, whatever becomes of it.
//
// The file is renamed and a new one made: the old one is read to its end before the new one
// from its beginning, and is looked at until nothing was written to it for a while. It is
// copied and truncated: what the copy has beyond what was read is read first. It is not
// there: it is read from its beginning when it appears.
//
// Lines are sent on with a note of the places that were reached, in one commit, so that
// after a crash none is missing and none comes twice.
type tail struct {
	path string
	emit func(ctx context.Context, body, note []byte) error
	log  *slog.Logger

	files   []*followed // in the order in which they are read
	seen    bool        // there was one
	trouble error       // what went wrong in the last look, nil for nothing
	told    string      // the trouble that was logged last
}

const (
	// asideFor is how long a file that was renamed is looked at after something was last
	// written to it.
	asideFor = time.Minute
	// mostAside bounds how many such files are open.
	mostAside = 8
)

// tailNote is what a restart has to know.
type tailNote struct {
	Files []place
}

func (t *tail) note() []byte {
	n := tailNote{Files: make([]place, len(t.files))}
	for i, f := range t.files {
		n.Files[i] = f.place
	}
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // numbers and bytes
	}
	return b
}

// begin starts at the end of the file, if there is one.
func (t *tail) begin(ctx context.Context) error {
	switch f, err := follow(t.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		t.files, t.seen = []*followed{f}, true
		if err := f.toEnd(); err != nil {
			return err
		}
	}
	return t.emit(ctx, nil, t.note())
}

// resume starts where a note says.
func (t *tail) resume(note []byte) error {
	var n tailNote
	if err := json.Unmarshal(note, &n); err != nil {
		return fmt.Errorf("read note: %w", err)
	}
	t.seen = len(n.Files) > 0 // no note is made when the last one is forgotten
	for _, p := range n.Files {
		f := t.find(p, true)
		if f == nil {
			t.log.Warn("the file that was read is gone: what was written to it meanwhile is not sent", "path", t.path)
			continue
		}
		f.aside = true // unless it is found under the path
		t.files = append(t.files, f)
	}
	return nil
}

// poll sends on what is new. An error is that of sending.
func (t *tail) poll(ctx context.Context) error {
	if t.look() { // it may be renamed before there is a line in it
		if err := t.emit(ctx, nil, t.note()); err != nil {
			return err
		}
	}
	// The newest file is measured first: lines that were written to an older one before those
	// that are read from the newer one are then seen, and come before them.
	for _, f := range slices.Backward(t.files) {
		if err := f.measure(); err != nil {
			t.fail(err)
		}
	}
	for _, f := range slices.Clone(t.files) {
		if err := t.read(ctx, f); err != nil {
			return err
		}
	}
	return t.forget(ctx)
}

// look sees which file is under the path, and reports whether it is a new one.
func (t *tail) look() (found bool) {
	if t.trouble == nil {
		t.told = ""
	}
	t.trouble = nil
	fi, err := os.Stat(t.path)
	if err == nil && !fi.Mode().IsRegular() {
		err = notAFile(fi.Mode())
	}
	i := slices.IndexFunc(t.files, func(f *followed) bool { return err == nil && os.SameFile(f.info, fi) })
	if err == nil && i < 0 {
		var f *followed
		if f, err = follow(t.path); err == nil {
			i, found, t.seen = len(t.files), true, true
			t.files = append(t.files, f)
		}
	}
	for j, f := range t.files {
		f.aside = j != i
	}
	if err != nil {
		t.fail(err)
		return false
	}
	f := t.files[i]
	t.files = append(slices.Delete(t.files, i, i+1), f)
	return found
}

// fail notes a failure that may pass.
func (t *tail) fail(err error) {
	t.trouble = err
	if text := err.Error(); text != t.told && !errors.Is(err, fs.ErrNotExist) {
		t.log.Warn("tail goes on trying", "path", t.path, "err", err)
		t.told = text
	}
}

// read sends on the new lines of a file.
func (t *tail) read(ctx context.Context, f *followed) error {
	if !f.news() {
		return nil
	}
	for {
		lines, err := f.lines()
		if errors.Is(err, errTruncated) && !f.aside {
			if err := t.rest(ctx, f); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, errTruncated) {
			t.remove(f) // what was rotated is written anew: it has become something else
			return nil
		}
		if err != nil {
			t.fail(err)
			return nil
		}
		if len(lines) == 0 {
			f.old()
			return nil
		}
		if err := t.emit(ctx, lines, t.note()); err != nil {
			return err
		}
	}
}

// rest deals with a file that was truncated: what it held beyond what was read may be in a
// copy.
func (t *tail) rest(ctx context.Context, f *followed) error {
	c := t.find(f.place, false)
	if err := f.again(); err != nil {
		t.fail(err)
	}
	if c == nil {
		t.log.Info("the file was truncated, and no copy of it found", "path", t.path)
		return t.emit(ctx, nil, t.note()) // it may be rotated before there is a line in it
	}
	c.aside = true
	t.files = slices.Insert(t.files, slices.Index(t.files, f), c)
	if err := t.read(ctx, c); err != nil {
		return err
	}
	if err := t.drop(ctx, c); err != nil {
		return err
	}
	return t.emit(ctx, nil, t.note())
}

// find opens the file that goes on behind a place: the one that was read, whatever its name
// is now, or a copy of it. Those that are followed already are left out. It is nil if there is none.
func (t *tail) find(p place, itself bool) *followed {
	dir, base := filepath.Split(t.path)
	if dir == "" {
		dir = "."
	}
	stem, _, _ := strings.Cut(base, ".")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.log.Warn("look for the file that was read", "path", t.path, "err", err)
	}
	names := []string{base}
	for _, e := range entries {
		if e.Name() != base && strings.HasPrefix(e.Name(), stem) {
			names = append(names, e.Name())
		}
	}
	var best *followed
	for _, name := range names {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !fi.Mode().IsRegular() || fi.Size() < p.Offset {
			continue
		}
		same := p.Inode != 0 && inode(fi) == p.Inode
		if same && !itself || !same && (len(p.Before) == 0 || !strings.HasPrefix(name, base)) {
			continue
		}
		if slices.ContainsFunc(t.files, func(f *followed) bool { return os.SameFile(f.info, fi) }) {
			continue
		}
		f, err := follow(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		f.Offset, f.Before = p.Offset, p.Before
		_, err = f.more()
		if err == nil && (best == nil || same || f.modified.After(best.modified)) {
			f, best = best, f
		}
		if f != nil {
			_ = f.file.Close()
		}
		if same && err == nil {
			break // no copy is as good as the file itself
		}
	}
	return best
}

// forget ends with files that were put aside and that nobody writes to any more.
func (t *tail) forget(ctx context.Context) error {
	aside := 0
	for _, f := range slices.Backward(slices.Clone(t.files)) {
		if !f.aside {
			continue
		}
		if aside++; aside > mostAside || time.Since(f.changed) > asideFor {
			if err := t.drop(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop ends with a file.
func (t *tail) drop(ctx context.Context, f *followed) error {
	if err := t.flush(ctx, f); err != nil {
		return err
	}
	t.remove(f)
	return nil
}

func (t *tail) remove(f *followed) {
	t.files = slices.DeleteFunc(t.files, func(other *followed) bool { return other == f })
	_ = f.file.Close() // it was only read
}

// flush sends on what is behind the last whole line, as a line.
func (t *tail) flush(ctx context.Context, f *followed) error {
	if f.news() { // it could not be read to its end
		return nil
	}
	b, err := f.more()
	if err != nil || len(b) == 0 {
		return nil
	}
	f.pass(b)
	return t.emit(ctx, append(b, '\n'), t.note())
}

// end sends on what there is. The error is about a file that could not be read to its end, or never was there.
func (t *tail) end(ctx context.Context) error {
	if err := t.poll(ctx); err != nil {
		return err
	}
	for _, f := range t.files {
		if err := t.flush(ctx, f); err != nil {
			return err
		}
	}
	if t.trouble != nil && !errors.Is(t.trouble, fs.ErrNotExist) {
		return fmt.Errorf("tail %w", fileError("read", t.path, t.trouble))
	}
	if !t.seen {
		return fmt.Errorf("tail %s: the file was never there", message.Quote(t.path))
	}
	return nil
}

func (t *tail) close() {
	for _, f := range t.files {
		_ = f.file.Close()
	}
}
