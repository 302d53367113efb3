//go:build !linux

package methods

import (
	"os"
	"path/filepath"
)

// socketPath returns the path of a socket. That is outside of the root's care: who may change the
// folders above it between the last look and the dialling can lead it elsewhere.
func socketPath(root *os.Root, name string) (path string, release func(), err error) {
	return filepath.Join(root.Name(), filepath.FromSlash(name)), func() {}, nil
}
