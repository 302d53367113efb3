package kvstore

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"steward/message"
)

// OutHead is what an outgoing record has besides the message, in bytes.
const OutHead = outHead

const (
	MaxRefused = maxRefused
)

// SetCommit replaces how a transaction is committed, from the next one on.
func (s *Store) SetCommit(commit func(*bbolt.Tx) error) {
	_ = s.do(func(*tx) error {
		s.commitTx = commit
		return refusal{errors.New("nothing to commit")}
	})
}

// Fail hands in an operation that cannot be done.
func (s *Store) Fail(err error) error { return s.do(func(*tx) error { return err }) }

// Panic hands in an operation that panics as bbolt does.
func (s *Store) Panic() error { return s.do(func(*tx) error { panic("page 7: makes no sense") }) }

// Keys is how many entries a bucket has.
func (s *Store) Keys(bucket string) (n int) {
	_ = s.view(func(tx *bbolt.Tx) error {
		n = 0
		return tx.Bucket([]byte(bucket)).ForEach(func(_, _ []byte) error { n++; return nil })
	})
	return n
}

// Ended is how many ended lives the store believes to have, sent and received.
func (s *Store) Ended() (sent, received uint64, err error) {
	var z sizes
	err = s.view(func(tx *bbolt.Tx) error { return z.load(tx.Bucket(bucketMeta)) })
	return z.Sent, z.Received, err
}

// Audit counts everything in the file and compares that with what is kept along.
func (s *Store) Audit() error {
	return s.view(func(tx *bbolt.Tx) error {
		var kept, found sizes
		if err := kept.load(tx.Bucket(bucketMeta)); err != nil {
			return err
		}
		for _, b := range []struct{ states, queues []byte }{{bucketStreams, bucketOut}, {bucketLanes, bucketInbox}} {
			err := tx.Bucket(b.states).ForEach(func(k, v []byte) error {
				var count, bytes, first, last uint64
				q := tx.Bucket(b.queues).Bucket(k)
				err := q.ForEach(func(k, v []byte) error {
					if first == 0 {
						first = be.Uint64(k)
					}
					count, bytes, last = count+1, bytes+uint64(len(v)), be.Uint64(k)
					return nil
				})
				if err != nil {
					return err
				}
				var wantCount, wantBytes uint64
				if string(b.states) == string(bucketStreams) {
					var st streamState
					if err := st.decode(v); err != nil {
						return err
					}
					wantCount, wantBytes = st.Count, st.Bytes
					found.Messages, found.Bytes = found.Messages+count, found.Bytes+bytes
					if last >= st.Next {
						return fmt.Errorf("stream %q: next %d, but %d is there", k, st.Next, last)
					}
				} else {
					var l laneState
					if err := l.decode(v); err != nil {
						return err
					}
					wantCount, wantBytes = l.Count, l.Bytes
					if last > l.Next {
						return fmt.Errorf("lane %q: next %d, but %d is there", k, l.Next, last)
					}
				}
				if count != wantCount || bytes != wantBytes {
					return fmt.Errorf("%q has %d messages of %d bytes, kept are %d and %d", k, count, bytes, wantCount, wantBytes)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		err := tx.Bucket(bucketDead).ForEach(func(_, v []byte) error {
			found.Dead, found.DeadBytes = found.Dead+1, found.DeadBytes+uint64(len(v))
			return nil
		})
		if err != nil {
			return err
		}
		awaited := map[string]bool{}
		for name, n := range map[string]*uint64{string(bucketSent): &found.Sent, string(bucketReceived): &found.Received} {
			err := tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
				var id message.ID
				copy(id[:], k)
				l, err := decodeLife(id, v)
				if err == nil && l.State.Final() {
					*n++
				}
				if l.State == message.StateDelivered && l.Peer != s.opts.Self {
					awaited[string(awaitedKey(l.Peer, id))] = true
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		err = tx.Bucket(bucketAwaited).ForEach(func(k, _ []byte) error {
			if !awaited[string(k)] {
				return fmt.Errorf("%q is not awaited any more", k)
			}
			delete(awaited, string(k))
			return nil
		})
		if err != nil {
			return err
		}
		for k := range awaited {
			return fmt.Errorf("%q is awaited and not kept", k)
		}
		if kept != found {
			return fmt.Errorf("kept along %+v, found %+v", kept, found)
		}
		return nil
	})
}
