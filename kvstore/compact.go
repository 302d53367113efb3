package kvstore

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// bbolt never gives anything back: a file that a long queue has filled stays as large as it was.
// So the writer copies what is left into a new file, when little is left and nobody asks for
// anything, and puts that in the place of the old one.
//
// The copy is whole and on disk before it gets the name of the file, and until then the old file
// is not touched. So a crash at any step leaves one of the two, and both say the same.

const (
	compactSuffix = ".compact" // of the copy while it is made
	compactTx     = 1 << 20    // bytes copied in one transaction
)

// compaction says when the file is made smaller.
type compaction struct {
	free  int64         // at least so many bytes are free, and three quarters of the file
	most  int64         // of what is left, while others may have to wait for the copy
	idle  time.Duration // nobody has written for so long
	again time.Duration // after a failure
}

var defaultCompaction = compaction{free: 64 << 20, most: 64 << 20, idle: 5 * time.Second, again: time.Hour}

// next waits for an operation. Meanwhile it opens the file again when that has not worked yet, and
// makes it smaller when it waits for long.
func (s *Store) next() (*op, bool) {
	select {
	case o, ok := <-s.ops:
		return o, ok
	default:
	}
	for s.db == nil {
		wait := time.NewTimer(mendEvery)
		select {
		case o, ok := <-s.ops:
			wait.Stop()
			return o, ok
		case <-wait.C:
			_ = s.mend() // who reads is told
		}
	}
	if left, worth := s.worthCompacting(); worth && left <= s.compaction.most && !time.Now().Before(s.compactAfter) {
		idle := time.NewTimer(s.compaction.idle)
		defer idle.Stop()
		select {
		case o, ok := <-s.ops:
			return o, ok
		case <-idle.C:
			s.tryCompact(left)
		}
	}
	o, ok := <-s.ops
	return o, ok
}

// worthCompacting reports how many bytes of the file are in use, and whether these are so few
// that the rest should be given back.
func (s *Store) worthCompacting() (left int64, worth bool) {
	if s.db == nil {
		return 0, false
	}
	stats := s.db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
	if free < s.compaction.free {
		return 0, false
	}
	info, err := os.Stat(s.opts.Path)
	if err != nil {
		return 0, false
	}
	return info.Size() - free, free > info.Size()/4*3
}

// tryCompact is for the writer. A failure costs nothing but the time; it is tried again later.
func (s *Store) tryCompact(left int64) {
	s.compactAfter = time.Now().Add(s.compaction.again)
	// Twice what is left, so that the copy does not take the last room from others.
	if room, known := Room(s.opts.Path); !known || room <= 2*left {
		return
	}
	copied := s.opts.Path + compactSuffix
	if err := s.copyTo(copied); err != nil {
		_ = os.Remove(copied)
		return
	}
	s.swap(copied)
}

// copyTo makes a sound copy that is on disk.
func (s *Store) copyTo(path string) error {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dst, err := bbolt.Open(path, 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoSync: true, PageSize: s.db.Info().PageSize,
	})
	if err != nil {
		return err
	}
	err = s.step("copy")
	if err == nil {
		err = s.trimWhile(func() error {
			return guard(func() error { return bbolt.Compact(dst, s.db, compactTx) })
		})
	}
	if err == nil {
		err = s.step("sync copy")
	}
	if err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	// The size was changed by a truncate too, which fdatasync need not write down.
	return errors.Join(check(f), f.Sync(), f.Close())
}

// swap puts the copy in the place of the file. The old file is still open and locked when the
// copy gets its name, and nothing is answered before the name is on disk, which open sees to.
func (s *Store) swap(copied string) {
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	err := s.step("rename")
	if err == nil {
		err = os.Rename(copied, s.opts.Path)
	}
	if err != nil {
		_ = os.Remove(copied)
		return
	}
	if err = s.step("close"); err == nil {
		err = s.db.Close()
	}
	s.db, s.broken = nil, fmt.Errorf("the file is being made smaller: %w", errors.Join(ErrClosed, err))
	_ = s.openAgain() // mend tries again, and tells whoever asks
}

func (s *Store) step(name string) error {
	if s.beforeStep == nil {
		return nil
	}
	return s.beforeStep(name)
}
