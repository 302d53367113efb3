//go:build !linux && !darwin

package kvstore

// Room returns how many bytes the disk of a file or folder has left for this user, if that is known. Where it is
// not, and a file that is open cannot be replaced, the file of a store keeps its size.
func Room(string) (bytes int64, known bool) { return 0, false }
