package methods

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// socketPath returns a path under which the socket at name can be dialled until release is
// called: that one and no other, whatever becomes of the folders above it meanwhile.
func socketPath(root *os.Root, name string) (path string, release func(), err error) {
	f, err := root.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return "", nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode().Type() != fs.ModeSocket {
		err = notAFile(fi.Mode())
	}
	if err != nil {
		_ = f.Close() // it was only looked at
		return "", nil, err
	}
	release = func() { _ = f.Close() }
	path = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if _, err := os.Stat(path); err != nil { // there is no /proc here
		path = filepath.Join(root.Name(), filepath.FromSlash(name))
	}
	return path, release, nil
}
