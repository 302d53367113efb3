package kvstore

import (
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// residentFrom is the size of a file, in bytes, that may be mapped into memory as a whole.
	residentFrom = 16 << 20
	// residentEvery is how often what was looked at of a larger one is let go of: often enough
	// that not much can be read or written meanwhile.
	residentEvery = 50 * time.Millisecond
	// copyEvery is the same while the file is copied, which looks at all of it and does nothing else.
	copyEvery = 10 * time.Millisecond
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

// trimWhile lets go of the file again and again while do copies it. Nobody may map it anew meanwhile.
func (s *Store) trimWhile(do func() error) error {
	var size int64
	if err := s.db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil }); err != nil {
		return err
	}
	db := s.db
	var mu sync.Mutex // held while the file is let go of
	over := false     // guarded by mu
	var trim func()
	trim = func() {
		mu.Lock()
		defer mu.Unlock()
		if !over && size > residentFrom {
			letGo(db, size)
			time.AfterFunc(copyEvery, trim)
		}
	}
	trim()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	return do()
}
