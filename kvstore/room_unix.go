//go:build linux || darwin

package kvstore

import "syscall"

// hasRoom reports whether the disk of a file has so many bytes left.
func hasRoom(path string, bytes int64) bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return false
	}
	return int64(st.Bavail) >= bytes/int64(st.Bsize)+1
}
