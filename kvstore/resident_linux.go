package kvstore

import (
	"syscall"

	"go.etcd.io/bbolt"
)

// letGo tells the system that the first size bytes of the file need not stay mapped into
// memory. They are in the system's cache all the same, and come back when they are looked at;
// but they count as memory of this process until then. The caller makes sure that the file is
// mapped up to there and is not mapped anew meanwhile.
func letGo(db *bbolt.DB, size int64) {
	// It is a hint: where it does not work, nothing is lost.
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, db.Info().Data, uintptr(size), syscall.MADV_DONTNEED)
}
