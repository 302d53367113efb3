package kvstore

import (
	"bytes"

	"go.etcd.io/bbolt"

	"steward/message"
)

// maxUntold bounds the bad ends that wait to be told. The first ones stay, being nearer to the
// cause; the rest is counted.
const maxUntold = 20_000

var keyUntoldLost = []byte("untoldLost")

// Untold is the bad end of a message of which central has not been told yet, in the words
// of who reported it. It is stored in the commit of the end.
type Untold struct {
	Key  []byte
	Text []byte
}

// untold keeps a bad end to be told; nil is none.
func (t *tx) untold(at uint64, id message.ID, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	t.bad = true
	if t.s.sizes.Untold >= maxUntold {
		meta := t.btx.Bucket(bucketMeta)
		lost, err := untoldLost(meta)
		if err != nil {
			return err
		}
		return meta.Put(keyUntoldLost, numbers(lost+1))
	}
	b := t.btx.Bucket(bucketUntold)
	key := append(be.AppendUint64(nil, at), id[:]...)
	if b.Get(key) == nil {
		t.s.sizes.Untold++
	}
	return b.Put(key, append([]byte{recordVersion}, text...))
}

func untoldLost(meta *bbolt.Bucket) (lost uint64, err error) {
	if v := meta.Get(keyUntoldLost); v != nil {
		err = scanNumbers(v, &lost)
	}
	return lost, err
}

// Untold returns the oldest bad ends that were not told, at most n, and how many had to be left
// out besides.
func (s *Store) Untold(n int) (ends []Untold, lost uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) (err error) {
		ends = nil
		c := tx.Bucket(bucketUntold).Cursor()
		for k, v := c.First(); k != nil && len(ends) < n; k, v = c.Next() {
			if len(v) == 0 || v[0] != recordVersion {
				return errRecord
			}
			ends = append(ends, Untold{bytes.Clone(k), bytes.Clone(v[1:])})
		}
		lost, err = untoldLost(tx.Bucket(bucketMeta))
		return err
	})
	return ends, lost, err
}

// Tell is AcceptOwn for the messages that tell about bad ends, and forgets those, and the first
// lost ones of those that were left out, in the same commit: each is told once.
func (s *Store) Tell(msgs []message.Message, told [][]byte, lost uint64) ([]message.ID, error) {
	puts, ids, err := s.encode(msgs, false)
	if err != nil {
		return nil, err
	}
	err = s.do(func(t *tx) error {
		if err := t.accept(puts, true); err != nil {
			return err // before anything has changed
		}
		b := t.btx.Bucket(bucketUntold)
		for _, k := range told {
			if b.Get(k) == nil {
				continue
			}
			if err := b.Delete(k); err != nil {
				return err
			}
			t.s.sizes.Untold--
		}
		if lost == 0 {
			return nil
		}
		meta := t.btx.Bucket(bucketMeta)
		have, err := untoldLost(meta)
		if err != nil {
			return err
		}
		return meta.Put(keyUntoldLost, numbers(have-min(have, lost)))
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}
