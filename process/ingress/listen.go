package ingress

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// longestPath is what fits into a socket address on every system (104 bytes with the
	// NUL at its end on some), and tempName what the path is longer by while it is bound.
	longestPath = 100
	tempName    = len("/.s4294967295/s")
)

// checkPath says whether a socket can be made there at all.
func checkPath(path string) error {
	if path == "" {
		return errors.New("ingress socket: no path")
	}
	if n := max(len(path), len(filepath.Dir(path))+tempName-3); n > longestPath {
		return fmt.Errorf("ingress socket %s: the path has %d bytes, a unix socket allows about %d; use a shorter -socketFolder", path, len(path), longestPath)
	}
	return nil
}

// listener is a unix socket at a path of its own, or a TCP port.
type listener struct {
	net.Listener
	name string      // its path, or its address
	file os.FileInfo // nil for a TCP port
}

// listen makes the socket. Nobody but the owner can open it at any time: it is bound in a
// folder that others cannot enter, and moved to its place when its mode is right.
func listen(path string) (_ *listener, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open socket: %w", err)
		}
	}()
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	// Two nodes that start at once must not both find the place free.
	unlock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkFree(path); err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(folder, ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	bound := filepath.Join(temp, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	file, err := place(bound, path)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &listener{Listener: ln, name: path, file: file}, nil
}

func place(bound, path string) (os.FileInfo, error) {
	if err := os.Chmod(bound, 0o600); err != nil {
		return nil, err
	}
	file, err := os.Lstat(bound)
	if err != nil {
		return nil, err
	}
	return file, os.Rename(bound, path)
}

// checkFree returns nil when there is nothing at path, or only the socket of a node that
// has died.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket; remove it, or use -socketFolder", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("another steward is running on %s, use -socketFolder", path)
}

// remove takes the socket file away, if there is one and no other stands there by now.
func (l *listener) remove() error {
	if l.file == nil {
		return nil
	}
	info, err := os.Lstat(l.name)
	if err != nil || !os.SameFile(info, l.file) {
		return nil
	}
	if err := os.Remove(l.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}
