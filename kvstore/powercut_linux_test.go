package kvstore_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	"steward/kvstore"
)

// unwritten asks the kernel how many pages of a file have not been written to the disk.
func unwritten(path string) (pages uint64, err error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Close(fd) }()
	const cachestat = 451 // since Linux 6.5
	all := [2]uint64{}    // from 0 to the end
	var st struct{ cached, dirty, writeback, evicted, recently uint64 }
	if _, _, e := syscall.Syscall6(cachestat, uintptr(fd), uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&st)), 0, 0, 0); e != 0 {
		return 0, e
	}
	return st.dirty + st.writeback, nil
}

// The recorder believes that bbolt syncs ahead of the meta page and at the end of a commit. Here
// the kernel is asked whether that is so; an older one does not know, and says nothing.
func TestFileIsSyncedWhereTheRecorderSaysSo(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "steward.db")
		s := open(t, options(path))
		var data, meta, end uint64
		var err error
		s.DB(func(db *bbolt.DB) {
			db.NoSync = noSync
			kvstore.OnWrite(db, func(_ []byte, off int64) {
				if n, e := unwritten(path); e != nil {
					err = e
				} else if off < 2*int64(db.Info().PageSize) {
					meta += n
				} else {
					data += n
				}
			})
		})
		s.SetCommit(func(tx *bbolt.Tx) error {
			defer func() {
				n, e := unwritten(path)
				if e != nil {
					err = e
				}
				end += n
			}()
			return tx.Commit()
		})
		for range 5 {
			accept(t, s, msgs("ship1", 100)...)
		}
		if e := s.Close(); e != nil {
			t.Fatal(e)
		}
		if err != nil {
			t.Logf("the kernel was not asked: %v", err)
			return
		}
		t.Logf("not synced %v: %d pages unwritten ahead of data, %d ahead of meta, %d at the end", noSync, data, meta, end)
		if !noSync && meta+end != 0 {
			t.Errorf("%d and %d pages were not on disk", meta, end)
		}
	}
}
