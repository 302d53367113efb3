//go:build linux || darwin

package kvstore

import "syscall"

// Room returns how many bytes the disk of a file or folder has left for this user, if that is known.
func Room(path string) (bytes int64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}
