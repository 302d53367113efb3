package kvstore

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"steward/message"
)

// op is one operation on its way to the writer.
type op struct {
	// apply does the operation. It may be called a second time, in another transaction, when
	// the first one came to nothing; so it sets its results, it does not add to them.
	apply func(t *tx) error
	done  chan error // one slot
}

// refusal marks an error of apply that says no and has changed nothing.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// submit hands an operation to the writer. The channel gets exactly one value, after the commit.
func (s *Store) submit(apply func(t *tx) error) <-chan error {
	o := &op{apply: apply, done: make(chan error, 1)}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		o.done <- ErrClosed
		return o.done
	}
	s.ops <- o
	return o.done
}

// do hands an operation to the writer and waits for its commit.
func (s *Store) do(apply func(t *tx) error) error { return <-s.submit(apply) }

// maxBatch bounds the operations of one commit, so that the first of them is not kept waiting.
const maxBatch = 1024

// start begins to write. Close ends it.
func (s *Store) start() { go s.write() }

// write is the writer goroutine: it commits whatever has gathered, again and again.
func (s *Store) write() {
	defer close(s.done)
	batch := make([]*op, 0, maxBatch)
	for o := range s.ops {
		batch = append(batch[:0], o)
	gather:
		for len(batch) < maxBatch {
			select {
			case o, ok := <-s.ops:
				if !ok {
					break gather
				}
				batch = append(batch, o)
			default:
				break gather
			}
		}
		s.commit(batch)
		clear(batch)
	}
}

// commit runs a batch in one transaction. When that fails, each operation gets a transaction
// of its own, so that one which cannot be done does not take others with it.
func (s *Store) commit(batch []*op) {
	errs := make([]error, len(batch))
	err := s.update(func(t *tx) error {
		for i, o := range batch {
			errs[i] = o.apply(t)
			var no refusal
			if errs[i] != nil && !errors.As(errs[i], &no) {
				return errs[i]
			}
		}
		return nil
	})
	if err != nil && len(batch) > 1 {
		for i := range batch {
			s.commit(batch[i : i+1])
		}
		return
	}
	for i, o := range batch {
		if err != nil {
			o.done <- err
			continue
		}
		o.done <- errs[i]
	}
}

// update runs fn in a write transaction with the sizes of the ring kept along.
func (s *Store) update(fn func(t *tx) error) (err error) {
	before := s.sizes
	defer func() {
		if r := recover(); r != nil {
			err = &damage{fmt.Errorf("the file is damaged: %v", r)}
		}
		if err != nil {
			s.sizes = before
			err = fmt.Errorf("write store: %w", err)
		}
	}()
	return s.db.Update(func(btx *bbolt.Tx) error {
		t := newTx(s, btx)
		if err := fn(t); err != nil {
			return err
		}
		return t.flush()
	})
}

// tx is one write transaction with what it has already looked up.
type tx struct {
	s       *Store
	btx     *bbolt.Tx
	streams map[string]*stream
	lanes   map[string]*lane
}

// stream is the state of an outgoing stream; lane that of an incoming one.
type stream struct {
	streamState
	bucket *bbolt.Bucket
}

type lane struct {
	laneState
	bucket *bbolt.Bucket
}

func newTx(s *Store, btx *bbolt.Tx) *tx {
	return &tx{s: s, btx: btx, streams: map[string]*stream{}, lanes: map[string]*lane{}}
}

func (t *tx) stream(key []byte) (*stream, error) {
	if st := t.streams[string(key)]; st != nil {
		return st, nil
	}
	b, err := t.btx.Bucket(bucketOut).CreateBucketIfNotExists(key)
	if err != nil {
		return nil, err
	}
	b.FillPercent = 0.9 // keys only ever grow
	st := &stream{bucket: b}
	if v := t.btx.Bucket(bucketStreams).Get(key); v != nil {
		if err := st.decode(v); err != nil {
			return nil, err
		}
	} else {
		st.streamState = streamState{Epoch: newEpoch(), Next: 1}
	}
	t.streams[string(key)] = st
	return st, nil
}

func (t *tx) lane(key []byte) (*lane, error) {
	if l := t.lanes[string(key)]; l != nil {
		return l, nil
	}
	b, err := t.btx.Bucket(bucketInbox).CreateBucketIfNotExists(key)
	if err != nil {
		return nil, err
	}
	b.FillPercent = 0.9
	l := &lane{bucket: b}
	if v := t.btx.Bucket(bucketLanes).Get(key); v != nil {
		if err := l.decode(v); err != nil {
			return nil, err
		}
	}
	t.lanes[string(key)] = l
	return l, nil
}

// flush writes the states that were looked up, and trims the history.
func (t *tx) flush() error {
	for key, st := range t.streams {
		if err := t.btx.Bucket(bucketStreams).Put([]byte(key), st.encode()); err != nil {
			return err
		}
	}
	for key, l := range t.lanes {
		if err := t.btx.Bucket(bucketLanes).Put([]byte(key), l.encode()); err != nil {
			return err
		}
	}
	for _, name := range [][]byte{bucketSent, bucketReceived} {
		if err := t.trim(name); err != nil {
			return err
		}
	}
	return t.s.sizes.save(t.btx.Bucket(bucketMeta))
}

// Ping returns after a commit of everything that was handed in before it.
func (s *Store) Ping() error { return s.do(func(*tx) error { return nil }) }

// Stream names an ordered queue: the messages for one method of one peer. For outgoing
// streams the peer is the receiver, for incoming ones the sender.
type Stream struct {
	Peer   message.Node
	Method message.Method
}

// key returns the stream as a key. Names hold no NUL.
func (s Stream) key() []byte {
	return append(append([]byte(s.Peer), 0), s.Method...)
}
