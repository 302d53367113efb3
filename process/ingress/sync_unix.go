//go:build unix

package ingress

import (
	"errors"
	"os"
)

// syncFolder puts what was renamed in a folder on disk.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
