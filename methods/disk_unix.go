//go:build unix

package methods

import (
	"io/fs"
	"os"
	"syscall"
)

// noWait keeps the opening of a named pipe from waiting for its other end.
const noWait = syscall.O_NONBLOCK

// syncDir syncs an open folder.
func syncDir(f *os.File) error { return f.Sync() }

// inode tells a file from another one that later has its name; 0 where that is not known.
func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Ino)
	}
	return 0
}

// diskFull reports what this system calls a full disk beside ENOSPC: nothing.
func diskFull(error) bool { return false }

// openShared opens a file for reading that others write, rename and remove.
func openShared(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|noWait, 0) }
