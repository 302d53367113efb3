package kvstore

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"

	"steward/message"
)

// op is one operation on its way to the writer.
type op struct {
	// apply does the operation. It may be called a second time, in another transaction, when
	// the first one came to nothing; so it sets its results, it does not add to them.
	apply func(t *tx) error
	// frees: it makes room, and is worth another try when the disk is full.
	frees bool
	done  chan error // one slot
}

// refusal marks an error of apply that says no and has changed nothing.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// submit hands an operation to the writer. The channel gets exactly one value, after the commit.
func (s *Store) submit(o *op) <-chan error {
	o.done = make(chan error, 1)
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
func (s *Store) do(apply func(t *tx) error) error { return <-s.submit(&op{apply: apply}) }

// maxBatch bounds the operations of one commit, so that the first of them is not kept waiting.
const maxBatch = 1024

// start begins to write. Close ends it.
func (s *Store) start() { go s.write() }

// write is the writer goroutine: it commits whatever has gathered, again and again.
func (s *Store) write() {
	defer close(s.done)
	debug.SetPanicOnFault(true) // a file that was cut off while it is open
	batch := make([]*op, 0, maxBatch)
	for {
		o, ok := s.next()
		if !ok {
			return
		}
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

// commit runs a batch in one transaction. An operation that cannot be done does not take the
// others with it: then each gets a transaction of its own. When it is the disk that does not take
// the commit, those that make room are tried once more without the rest.
func (s *Store) commit(batch []*op) {
	errs := make([]error, len(batch))
	err := s.update(func(t *tx) error {
		refused := 0
		for i, o := range batch {
			errs[i] = o.apply(t)
			var no refusal
			if errors.As(errs[i], &no) {
				refused++
			} else if errs[i] != nil {
				return errs[i]
			}
		}
		if refused == len(batch) {
			return errRefused
		}
		return nil
	})
	var disk *diskError
	switch {
	case err == nil, errors.Is(err, errRefused):
		for i, o := range batch {
			o.done <- errs[i]
		}
		return
	case !errors.As(err, &disk) && len(batch) > 1:
		for i := range batch {
			s.commit(batch[i : i+1])
		}
		return
	}
	var frees []*op
	for _, o := range batch {
		if o.frees {
			frees = append(frees, o)
		}
	}
	if len(frees) == len(batch) {
		frees = nil
	}
	for _, o := range batch {
		if frees == nil || !o.frees {
			o.done <- err
		}
	}
	if frees != nil {
		s.commit(frees)
	}
}

// errRefused saves the commit of a batch of which nothing was accepted.
var errRefused = errors.New("all refused")

// diskError says that a commit did not come to its end.
type diskError struct{ error }

func (d *diskError) Unwrap() error { return d.error }

// update runs fn in a write transaction with the sizes of the ring kept along. After an error
// nothing of it is in the file.
func (s *Store) update(fn func(t *tx) error) error {
	if err := s.mend(); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	before := s.sizes
	if err := s.transact(fn); err != nil {
		s.sizes = before
		return fmt.Errorf("write store: %w", err)
	}
	return nil
}

func (s *Store) transact(fn func(t *tx) error) error {
	btx, err := s.db.Begin(true)
	if err != nil {
		return s.reopen(0, &diskError{err})
	}
	// bbolt's own handling of a panic would look through all pages, the bad one too.
	t := newTx(s, btx)
	err = guard(func() error {
		if err := fn(t); err != nil {
			return err
		}
		if err := t.flush(); err != nil {
			return err
		}
		if len(t.left) > 0 {
			s.opts.Leaving(t.left)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, btx.Rollback())
	}
	txid, size := uint64(btx.ID()), btx.Size()
	s.takeOff(txid)
	began := time.Now()
	if err = guard(func() error { return s.commitTx(btx) }); err == nil {
		s.land(false)
		if s.opts.OnCommit != nil {
			s.opts.OnCommit(time.Since(began))
		}
		s.trimResident(s.db, size) // nobody but this goroutine maps the file anew
		if t.bad && s.opts.OnUntold != nil {
			s.opts.OnUntold()
		}
		return nil
	}
	_ = btx.Rollback() // it is still open after a panic only
	err = &diskError{err}
	// bbolt has rolled back, unless the sync of the meta page was what did not work: then it
	// takes the commit for done, and it may or may not be on disk.
	seen, rerr := s.read(func(*bbolt.Tx) error { return nil })
	if rerr == nil && seen < txid {
		s.land(false)
		return err
	}
	return s.reopen(txid, err)
}

// guard turns a panic of bbolt on a page that makes no sense into an error.
func guard(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = damaged("%v", r)
		}
	}()
	return fn()
}

// reopen closes the file and opens it anew without the commit txid (0 for none), which is in
// doubt. Readers wait for that. It returns err with what went wrong on top; while the file
// cannot be opened, nothing is read or written.
func (s *Store) reopen(txid uint64, err error) error {
	s.dbMu.Lock()
	_ = s.db.Close() // nothing of it is trusted
	s.db, s.broken, s.doubtful = nil, err, txid
	merr := s.openAgain()
	s.dbMu.Unlock()
	s.land(true)
	if merr != nil {
		return &diskError{fmt.Errorf("%w; %w", err, merr)}
	}
	return err
}

// mendEvery is how often mend is tried when nobody writes: those who read wait for it too.
const mendEvery = time.Second

// mend opens the file again when that has not worked after a failed commit.
func (s *Store) mend() error {
	if s.db != nil {
		return nil
	}
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	return s.openAgain()
}

// openAgain is called with dbMu held.
func (s *Store) openAgain() error {
	if err := s.open(); err != nil {
		s.broken = &diskError{fmt.Errorf("the file cannot be opened again after a failed write: %w", err)}
		return s.broken
	}
	s.broken = nil
	return nil
}

// tx is one write transaction with what it has already looked up.
type tx struct {
	s       *Store
	btx     *bbolt.Tx
	streams map[string]*stream
	lanes   map[string]*lane
	left    []Left
	origin  string // of the last of them
	bad     bool   // something has to be told
	ended   int    // lives that this transaction has ended
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
		st.streamState = streamState{Next: 1}
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
