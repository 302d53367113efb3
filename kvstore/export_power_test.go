package kvstore

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"
)

// OnWrite calls before ahead of each write to the file. bbolt has no place for that, so its own
// variable is replaced.
func OnWrite(db *bbolt.DB, before func(b []byte, off int64)) {
	v := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	writeAt := (*func([]byte, int64) (int, error))(unsafe.Pointer(v.UnsafeAddr()))
	inner := *writeAt
	*writeAt = func(b []byte, off int64) (int, error) {
		before(b, off)
		return inner(b, off)
	}
}

// DB runs fn in the writer, between two commits.
func (s *Store) DB(fn func(*bbolt.DB)) {
	_ = s.do(func(*tx) error {
		fn(s.db)
		return refusal{errors.New("nothing to commit")}
	})
}

// Dump is all that is in the file, but how often it was opened.
func (s *Store) Dump() (string, error) {
	var out strings.Builder
	var dump func(name string, b *bbolt.Bucket) error
	dump = func(name string, b *bbolt.Bucket) error {
		fmt.Fprintf(&out, "[%s]\n", name)
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return dump(name+"/"+string(k), b.Bucket(k))
			}
			if string(k) != string(keyOpened) || name != string(bucketMeta) {
				fmt.Fprintf(&out, "%x=%x\n", k, v)
			}
			return nil
		})
	}
	err := s.view(func(tx *bbolt.Tx) error {
		out.Reset()
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return dump(string(name), b) })
	})
	return out.String(), err
}

// Compact makes the file smaller as soon as the writer is idle, if so much of it is free. before
// is called ahead of each step, and can make it fail. The channel is closed when all is done.
func (s *Store) Compact(free int64, before func(step string) error) <-chan struct{} {
	done := make(chan struct{})
	_ = s.do(func(*tx) error {
		s.compaction = compaction{free: free, most: 1 << 40, idle: time.Nanosecond, again: time.Hour}
		s.compactAfter = time.Time{}
		s.beforeStep = func(step string) error {
			var err error
			if before != nil {
				err = before(step)
			}
			if step == "close" || err != nil {
				select {
				case <-done:
				default:
					close(done)
				}
			}
			return err
		}
		return refusal{errors.New("nothing to commit")}
	})
	return done
}
