//go:build unix && !solaris && !aix

package ingress

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFolder keeps other nodes from opening a socket in folder until unlock is called. It
// locks the folder itself and leaves no file behind. Where the file system has no locks it
// does nothing.
func lockFolder(folder string) (unlock func(), err error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("another steward is just starting in %s", folder), dir.Close())
	}
	return func() { _ = dir.Close() }, nil // which unlocks it
}
