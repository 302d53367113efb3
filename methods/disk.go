package methods

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"steward/message"
	"steward/process"
)

// disk changes files below a root, and knows what has to be synced for a change to last.
type disk struct {
	// before is nil except in tests, where it makes a step fail or the node die: it is
	// called ahead of each step that changes something.
	before func(root *os.Root, step, name string) error
}

func (d disk) step(root *os.Root, step, name string) error {
	if d.before == nil {
		return nil
	}
	return d.before(root, step, name)
}

// parents makes the folders above a file, durably.
func (d disk) parents(root *os.Root, name string) error { return d.folder(root, path.Dir(name)) }

// folder makes a folder and those above it, durably.
func (d disk) folder(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	switch fi, err := root.Stat(name); {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return errors.New("a part of the path is no folder")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := d.folder(root, path.Dir(name)); err != nil {
		return err
	}
	if err := d.step(root, "mkdir", name); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncFolder(root, path.Dir(name))
}

// syncFolder makes durable which names are in a folder.
func (d disk) syncFolder(root *os.Root, name string) error {
	if err := d.step(root, "sync folder", name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(f), f.Close())
}

// extend writes chunks behind the first size bytes of a file, cutting off what else is
// there; size is -1 for behind all that is there. When extend returns, all of it is on disk,
// or, after an error, nothing of it.
func (d disk) extend(root *os.Root, name string, size int64, chunks ...[]byte) error {
	if size >= 0 {
		if err := d.cut(root, name, size); err != nil {
			return err
		}
	}
	was, err := d.write(root, name, size, chunks)
	if err == nil && was == 0 {
		// The file may be new, or its name may not have been made durable when it was.
		err = d.syncFolder(root, path.Dir(name))
	}
	if err != nil && was >= 0 {
		if again := d.cut(root, name, was); again != nil {
			err = fmt.Errorf("%w; and it could not be taken back: %w", err, reason(again))
		}
	}
	return err
}

// write appends and syncs. It returns how long the file was before, -1 if nothing was
// written to it.
func (d disk) write(root *os.Root, name string, size int64, chunks [][]byte) (was int64, err error) {
	if err := d.step(root, "open", name); err != nil {
		return -1, err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|noWait, 0o600)
	if err != nil {
		return -1, reason(err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = reason(cerr)
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return -1, reason(err)
	}
	if !fi.Mode().IsRegular() {
		return -1, notAFile(fi.Mode())
	}
	if size >= 0 && fi.Size() != size {
		return -1, fmt.Errorf("it has %d bytes where %d were written before", fi.Size(), size)
	}
	all := slices.Concat(chunks...)
	if err := d.step(root, "write", name); err != nil {
		return fi.Size(), err
	}
	if n, err := f.Write(all); err != nil {
		return fi.Size(), fmt.Errorf("wrote %d of %d bytes: %w", n, len(all), reason(err))
	}
	if err := d.step(root, "sync", name); err != nil {
		return fi.Size(), err
	}
	return fi.Size(), reason(f.Sync())
}

// cut shortens a file to size, durably. It never makes one longer, and a missing one is
// fine.
func (d disk) cut(root *os.Root, name string, size int64) error {
	f, err := root.OpenFile(name, os.O_WRONLY|noWait, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() <= size {
		return err
	}
	if err := d.step(root, "truncate", name); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// rename gives a file another name in the same folder, durably.
func (d disk) rename(root *os.Root, from, to string) error {
	if err := d.step(root, "rename", to); err != nil {
		return err
	}
	if err := root.Rename(from, to); err != nil {
		return err
	}
	return d.syncFolder(root, path.Dir(to))
}

// openFile opens a regular file for reading. Nothing else holds it up, whatever has its name by now.
func openFile(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = notAFile(fi.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// remove removes a file; a missing one is fine.
func (d disk) remove(root *os.Root, name string) error {
	if err := d.step(root, "remove", name); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// kind says what is at a path, the target of a symbolic link included. It is an error that
// wraps fs.ErrNotExist if there is nothing, and another one if it is neither a file nor a
// socket.
func kind(root *os.Root, name string) (fi fs.FileInfo, socket bool, err error) {
	fi, err = root.Stat(name)
	if err != nil {
		return nil, false, err
	}
	if fi.Mode().IsRegular() {
		return fi, false, nil
	}
	// A socket has to be there itself and not through a link.
	if li, err := root.Lstat(name); err == nil && li.Mode()&fs.ModeSocket != 0 {
		return li, true, nil
	}
	return fi, false, notAFile(fi.Mode())
}

// hidden returns err if there may be something all the same behind an error of looking at
// a path, and nil if there is nothing that could ever be reached.
func hidden(err error) error {
	if passes(err) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func notAFile(m fs.FileMode) error {
	what := "a special file"
	switch {
	case m.IsDir():
		what = "a folder"
	case m&fs.ModeNamedPipe != 0:
		what = "a named pipe"
	case m&fs.ModeDevice != 0:
		what = "a device"
	case m&fs.ModeSocket != 0:
		what = "a socket behind a symbolic link"
	}
	return errors.New("there is " + what + " and no file")
}

// fileError says what was tried on which file, and wraps process.ErrTryLater when the
// reason may pass. The path is told once and in bounds, whatever the system's own error says.
func fileError(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	if passes(err) {
		return fmt.Errorf("%s %s: %w: %w", doing, message.Quote(name), reason(err), process.ErrTryLater)
	}
	return fmt.Errorf("%s %s: %w", doing, message.Quote(name), reason(err))
}

// reason takes the names of files out of an error of package os.
func reason(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// passes reports whether a failure may go away without anything being wrong with the
// message: the disk is full or does not answer, or too much is open.
func passes(err error) bool {
	for _, e := range []error{io.ErrShortWrite, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return diskFull(err)
}
