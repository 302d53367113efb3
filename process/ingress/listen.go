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

// Access is who may connect to a socket file.
type Access struct {
	Mode fs.FileMode // 0 means 0600
	// Owner and Group are the numbers of a user and a group, nil for those of this program.
	Owner, Group *int
}

// forOthers reports whether somebody besides the user of this program is to connect.
func (a Access) forOthers() bool {
	return a.Mode&0o022 != 0 || a.Owner != nil && *a.Owner != os.Geteuid()
}

// ids returns what os.Lchown takes.
func (a Access) ids() (owner, group int) {
	owner, group = -1, -1
	if a.Owner != nil {
		owner = *a.Owner
	}
	if a.Group != nil {
		group = *a.Group
	}
	return owner, group
}

// MakeFolder makes the folder of a socket, if there is none, so that who may connect may also
// enter it. One that is there is left as it is: it may be used for more. It is an error when it
// keeps out all whom access lets in.
func MakeFolder(folder string, access Access) error {
	if !access.forOthers() {
		return os.MkdirAll(folder, 0o700)
	}
	owner, group := access.ids()
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		// Its owner stays: he has to make and remove the socket.
		mode := 0o700 | access.Mode&0o022>>1 // who may write to a socket may connect
		if owner >= 0 {
			mode |= 0o011
		}
		return errors.Join(os.Chown(folder, -1, group), os.Chmod(folder, mode))
	}
	if err == nil && info.Mode().Perm()&0o011 == 0 {
		err = fmt.Errorf("%s has the mode %s: whom the settings of the socket let in cannot enter it; chmod g+x it and chgrp it to socketGroup, or use another -socketFolder",
			folder, info.Mode().Perm())
	}
	return err
}

// listen makes the socket. Nobody whom access does not let in can open it at any time: it is
// bound in a folder that others cannot enter, and moved to its place when its mode is right.
func listen(path string, access Access) (_ *listener, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open socket: %w", err)
		}
	}()
	folder := filepath.Dir(path)
	if err := MakeFolder(folder, access); err != nil {
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
	file, err := place(bound, path, access)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &listener{Listener: ln, name: path, file: file}, nil
}

func place(bound, path string, access Access) (os.FileInfo, error) {
	if owner, group := access.ids(); owner >= 0 || group >= 0 {
		if err := os.Lchown(bound, owner, group); err != nil {
			return nil, fmt.Errorf("give it to its owner and group: %w", err)
		}
	}
	mode := access.Mode
	setDefault(&mode, 0o600)
	if err := os.Chmod(bound, mode); err != nil {
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
