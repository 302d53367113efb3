package kvstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"steward/message"
)

// damage marks an error that says that the file itself is broken.
type damage struct{ cause error }

func (d *damage) Error() string { return d.cause.Error() }
func (d *damage) Unwrap() error { return d.cause }

func isDamage(err error) bool {
	var d *damage
	return errors.As(err, &d)
}

// open opens the file and reads what the writer keeps in memory. It does not change a file
// that it cannot use.
func (s *Store) open() (err error) {
	defer func() {
		// bbolt panics on what makes no sense to it.
		if r := recover(); r != nil {
			err = damaged("%v", r)
		}
		if err != nil && s.db != nil {
			err = errors.Join(err, s.db.Close())
			s.db = nil
		}
	}()
	s.sizes = sizes{} // of a file that was set aside
	db, err := bbolt.Open(s.opts.Path, 0o600, &bbolt.Options{
		Timeout:        s.opts.LockTimeout,
		FreelistType:   bbolt.FreelistMapType,
		NoFreelistSync: true,
		OpenFile:       s.openFile,
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrVersionMismatch), errors.Is(err, bbolterrors.ErrChecksum):
		return damaged("%w", err)
	case err != nil:
		return err
	}
	s.db = db
	// The name may be new, also when a run that was killed before it came here gave it.
	if err := syncDir(filepath.Dir(s.opts.Path)); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	s.doubtful = 0
	return nil
}

// openFile opens, locks and checks the file before bbolt looks at it.
func (s *Store) openFile(path string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	err = lock(f, s.opts.LockTimeout)
	if err == nil && !hasName(f, path) {
		err = ErrInUse // the one that had the lock put another file in its place
	}
	if err == nil && s.doubtful != 0 {
		if err = takeBack(f, s.doubtful); err != nil {
			err = fmt.Errorf("take back a commit that did not come to its end: %w", err)
		}
	}
	if err == nil {
		err = check(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hasName reports whether the file is the one of that name.
func hasName(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(have, named)
}

// prepare makes the buckets of a new file and checks the header of an old one.
func (s *Store) prepare() error {
	fresh := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			if k, _ := tx.Cursor().First(); k != nil {
				return damaged("it has no bucket %s", bucketMeta)
			}
			fresh = true
			return nil
		}
		if v := meta.Get(keySchema); len(v) != 8 {
			return damaged("it has no schema version")
		} else if n := binary.BigEndian.Uint64(v); n > schema {
			return fmt.Errorf("schema %d, known here is %d: %w", n, schema, ErrVersion)
		}
		if owner := message.Node(meta.Get(keyNode)); owner != s.opts.Self {
			return fmt.Errorf("the file belongs to node %q, this is %q: use another -databaseFolder", owner, s.opts.Self)
		}
		for _, name := range allBuckets {
			if tx.Bucket(name) == nil {
				return damaged("it has no bucket %s", name)
			}
		}
		return s.load(tx)
	})
	if err != nil {
		return err
	}
	if !fresh {
		return s.prepareLater()
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range slices.Concat(allBuckets, laterBuckets) {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if err := meta.Put(keySchema, binary.BigEndian.AppendUint64(nil, schema)); err != nil {
			return err
		}
		if err := meta.Put(keyNode, []byte(s.opts.Self)); err != nil {
			return err
		}
		return s.sizes.save(meta)
	})
}

// prepareLater makes the buckets that a file of the first versions lacks, counts what is in those
// that are bounded, and says that older programs cannot read the file from now on.
func (s *Store) prepareLater() error {
	var missing [][]byte
	current := false
	counts := []*uint64{&s.sizes.Scheduled, &s.sizes.Untold} // as laterBuckets
	err := s.db.View(func(tx *bbolt.Tx) error {
		current = binary.BigEndian.Uint64(tx.Bucket(bucketMeta).Get(keySchema)) == schema
		for i, name := range laterBuckets {
			b := tx.Bucket(name)
			if b == nil {
				missing = append(missing, name)
				continue
			}
			if i >= len(counts) {
				continue
			}
			if err := b.ForEach(func(_, _ []byte) error { *counts[i]++; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(missing) == 0 && current {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range missing {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
			if bytes.Equal(name, bucketAwaited) {
				if err := s.awaitAll(tx); err != nil {
					return err
				}
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema))
	})
}

// load reads the sizes, and the states of all streams and lanes: one that cannot be read would
// be found by whoever lists them.
func (s *Store) load(tx *bbolt.Tx) error {
	if err := s.sizes.load(tx.Bucket(bucketMeta)); err != nil {
		return damaged("sizes: %w", err)
	}
	for name, decode := range map[string]func([]byte) error{
		string(bucketStreams): new(streamState).decode,
		string(bucketLanes):   new(laneState).decode,
	} {
		err := tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
			if _, err := parseStream(k); err != nil {
				return err
			}
			if err := decode(v); err != nil {
				return damaged("%s: %w", name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // it has no such thing
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// view runs fn in a read transaction, and again when what it saw was taken back. It returns
// only what is on disk: bbolt shows a commit to readers while its last sync is still under way.
// A message that was sent on then could be forgotten by a loss of power, and its sequence number
// given to another one, which the receiver would take for a duplicate.
func (s *Store) view(fn func(tx *bbolt.Tx) error) error {
	for {
		undone := s.undoneSoFar()
		txid, err := s.read(fn)
		if s.isKept(txid, undone) {
			return err
		}
	}
}

// read runs fn in a read transaction and returns the commit that it saw. A page that makes no
// sense, or cannot be read, becomes an error.
func (s *Store) read(fn func(tx *bbolt.Tx) error) (txid uint64, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read store: %w", damaged("%v", r))
		}
	}()
	s.dbMu.RLock()
	defer s.dbMu.RUnlock()
	switch {
	case s.broken != nil:
		return 0, fmt.Errorf("read store: %w", s.broken)
	case s.db == nil:
		return 0, ErrClosed
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		txid = uint64(tx.ID())
		s.trimResident(tx.DB(), tx.Size()) // it is not mapped anew while it is read
		return fn(tx)
	})
	return txid, err
}

func (s *Store) undoneSoFar() uint64 {
	s.flightMu.Lock()
	defer s.flightMu.Unlock()
	return s.undone
}

// isKept waits until the commit is on disk, and reports whether it is, and nothing was taken
// back since undone.
func (s *Store) isKept(txid, undone uint64) bool {
	s.flightMu.Lock()
	defer s.flightMu.Unlock()
	for s.flying != 0 && s.flying <= txid && s.undone == undone {
		s.landed.Wait()
	}
	return s.undone == undone
}

// takeOff says that a commit is about to be written, land that its end is known.
func (s *Store) takeOff(txid uint64) {
	s.flightMu.Lock()
	defer s.flightMu.Unlock()
	s.flying = txid
}

func (s *Store) land(undone bool) {
	s.flightMu.Lock()
	defer s.flightMu.Unlock()
	s.flying = 0
	if undone {
		s.undone++
	}
	s.landed.Broadcast()
}
