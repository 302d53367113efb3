//go:build unix

package ingress

import (
	"errors"
	"os"
	"syscall"
)

// noWait keeps the opening of a named pipe from waiting for its other end.
const noWait = syscall.O_NONBLOCK

// syncFolder puts what was renamed in a folder on disk.
func syncFolder(root *os.Root, name string) error {
	dir, err := root.OpenFile(name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
