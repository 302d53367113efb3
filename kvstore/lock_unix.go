//go:build unix && !solaris && !aix

package kvstore

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// lock takes the lock that bbolt will take once more: both are of the same open file.
func lock(f *os.File, timeout time.Duration) error {
	end := time.NewTimer(timeout)
	defer end.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-end.C:
			return ErrInUse
		case <-again.C:
		}
	}
}
