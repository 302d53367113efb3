// Package atomicfile writes whole files: at any moment there is the one from before, or the new
// one. What a call that returned nil has written is on disk. It keeps no state.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Target follows path through symbolic links to where the file is, or would be.
func Target(path string) (string, error) {
	for range 40 {
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or nothing there
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// Replace puts text in the place of the file at path, with its mode and owner. There need be none:
// then it makes one that only its owner can read.
func Replace(path string, text []byte) error { return write(path, text, os.Rename) }

// Create makes a file that only its owner can read, and replaces none: then the error wraps
// fs.ErrExist.
func Create(path string, text []byte) error { return write(path, text, link) }

func write(path string, text []byte, name func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f, text, path), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := name(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := syncFolder(dir); err != nil {
		return fmt.Errorf("%s is written, but may be lost with the power: %w", path, err)
	}
	return nil
}

// fill writes text to f and gives it mode and owner of the file it is to replace.
func fill(f *os.File, text []byte, old string) error {
	if info, err := os.Stat(old); err == nil {
		// A rename would not ask whether the file may be written.
		if info.Mode()&0o200 == 0 {
			return fmt.Errorf("%s is read-only", old)
		}
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		keepOwner(f, info)
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

// link gives a file a name that no other has.
func link(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if _, there := os.Lstat(to); errors.Is(err, fs.ErrExist) || there == nil {
		return &fs.PathError{Op: "create", Path: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to) // not every file system has links
}
