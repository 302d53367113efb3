package kvstore

import (
	"time"

	"go.etcd.io/bbolt"
)

const (
	// residentFrom is the size of a file, in bytes, that may be mapped into memory as a whole.
	residentFrom = 16 << 20
	// residentEvery is how often what was looked at of a larger one is let go of: often enough
	// that not much can be read or written meanwhile.
	residentEvery = 50 * time.Millisecond
)

// trimResident bounds how much of the file counts as memory of this process: reading a long
// queue would otherwise map all of it. The first size bytes have to be mapped, and stay so
// during the call.
func (s *Store) trimResident(db *bbolt.DB, size int64) {
	now, last := time.Now().UnixNano(), s.lettingGo.Load()
	if size > residentFrom && now-last > int64(residentEvery) && s.lettingGo.CompareAndSwap(last, now) {
		letGo(db, size)
	}
}
