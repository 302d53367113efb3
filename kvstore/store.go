package kvstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"steward/message"
)

// schema is the version of the layout of buckets and records. It goes up with every change
// that an older program could not read.
const schema = 1

var (
	// ErrFull says that the ring buffer has no room for what was handed in.
	ErrFull = errors.New("ring buffer is full")
	// ErrClosed says that the store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrInUse says that another process has the file open.
	ErrInUse = errors.New("in use by another process")
	// ErrVersion says that the file was written by a newer version.
	ErrVersion = errors.New("written by a newer version of steward")
	// ErrNotFound says that the store knows nothing of what was asked for.
	ErrNotFound = errors.New("not found")
)

var (
	bucketMeta     = []byte("meta")
	bucketStreams  = []byte("streams")  // (to, method) -> position and size of an outgoing stream
	bucketOut      = []byte("out")      // (to, method) -> bucket: seq -> message
	bucketPos      = []byte("pos")      // (from, method), epoch -> position of an incoming stream
	bucketLanes    = []byte("lanes")    // (from, method) -> size of a lane
	bucketInbox    = []byte("inbox")    // (from, method) -> bucket: arrival -> message
	bucketRunning  = []byte("running")  // (from, method), arrival -> mark of a run
	bucketDead     = []byte("dead")     // id -> message and reason
	bucketSent     = []byte("sent")     // id -> life of a message accepted here
	bucketReceived = []byte("received") // id -> life of a message that came from a stream
	allBuckets     = [][]byte{bucketMeta, bucketStreams, bucketOut, bucketPos, bucketLanes, bucketInbox,
		bucketRunning, bucketDead, bucketSent, bucketReceived}

	keySchema = []byte("schema")
	keyNode   = []byte("node")
	keySizes  = []byte("sizes")
)

// Options configure a store.
type Options struct {
	// Path is the file. Its folder has to exist.
	Path string
	// Self is the node that owns the file. A file of another node is refused.
	Self message.Node
	// MaxMessages and MaxBytes bound the ring buffer. Replies and errors that the node
	// itself makes may use an eighth more, so that a full ring cannot block its own draining.
	MaxMessages, MaxBytes int64
	// LaneMessages and LaneBytes bound what one lane of the inbox holds (default 16,384 messages
	// and 64 MiB). A sender whose lane is full is asked to wait.
	LaneMessages, LaneBytes int64
	// History is how many lives of messages are kept after their end (default 200,000
	// sent and as many received).
	History int64
	// LockTimeout is how long Open waits for another process to let go of the file
	// (default 1 s).
	LockTimeout time.Duration
}

// Store is an open file.
type Store struct {
	opts Options
	db   *bbolt.DB

	run   uint64        // random, in the ids of this run
	count atomic.Uint32 // counts up in the ids of this run

	mu     sync.RWMutex // guards closed against senders on ops
	closed bool
	ops    chan *op
	done   chan struct{} // closed when the writer has ended

	// Owned by the writer goroutine.
	sizes   sizes
	trimmed map[string][]byte // history bucket -> where trimming goes on

	setAside string
}

// Open opens the file, or makes it. A damaged file is not deleted but set aside under
// another name, which [Store.SetAside] then returns, and a new one is begun. The error wraps
// [ErrInUse] or [ErrVersion] where that is the reason.
func Open(opts Options) (*Store, error) {
	switch {
	case opts.Path == "":
		return nil, errors.New("open store: no path")
	case opts.MaxMessages <= 0 || opts.MaxBytes <= 0:
		return nil, errors.New("open store: the bounds of the ring buffer have to be above 0")
	}
	if err := opts.Self.Check(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	setDefault(&opts.LaneMessages, 16<<10)
	setDefault(&opts.LaneBytes, 64<<20)
	setDefault(&opts.History, 200_000)
	if opts.LockTimeout <= 0 {
		opts.LockTimeout = time.Second
	}

	s := &Store{opts: opts, ops: make(chan *op, 1024), done: make(chan struct{}), trimmed: map[string][]byte{}}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	s.run = binary.BigEndian.Uint64(seed[:])

	err := s.open()
	if isDamage(err) {
		aside := fmt.Sprintf("%s.damaged-%s", opts.Path, time.Now().UTC().Format("20060102T150405.000"))
		if rerr := os.Rename(opts.Path, aside); rerr != nil {
			return nil, fmt.Errorf("open store: set the damaged file aside: %w", errors.Join(rerr, err))
		}
		s.setAside = fmt.Sprintf("%s (%v)", aside, err)
		err = s.open()
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", opts.Path, err)
	}
	s.start()
	return s, nil
}

func setDefault(v *int64, d int64) {
	if *v <= 0 {
		*v = d
	}
}

// SetAside says under which name a damaged file was set aside at Open, and why; it is
// empty when the file was sound.
func (s *Store) SetAside() string { return s.setAside }

// Close finishes what was handed in and closes the file. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.ops)
	}
	s.mu.Unlock()
	<-s.done
	return s.db.Close()
}

// damage marks an error that says that the file itself is broken.
type damage struct{ cause error }

func (d *damage) Error() string { return d.cause.Error() }
func (d *damage) Unwrap() error { return d.cause }

func isDamage(err error) bool {
	var d *damage
	return errors.As(err, &d)
}

// open opens the file and reads what the writer keeps in memory: no queue is read.
func (s *Store) open() (err error) {
	defer func() {
		// bbolt panics on pages that make no sense.
		if r := recover(); r != nil {
			err = &damage{fmt.Errorf("the file is damaged: %v", r)}
		}
		if err != nil && s.db != nil {
			err = errors.Join(err, s.db.Close())
			s.db = nil
		}
	}()
	_, statErr := os.Stat(s.opts.Path)
	db, err := bbolt.Open(s.opts.Path, 0o600, &bbolt.Options{
		Timeout:        s.opts.LockTimeout,
		FreelistType:   bbolt.FreelistMapType,
		NoFreelistSync: true,
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("%w", ErrInUse)
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrVersionMismatch), errors.Is(err, bbolterrors.ErrChecksum):
		return &damage{fmt.Errorf("the file is damaged: %w", err)}
	case err != nil:
		return err
	}
	s.db = db
	if errors.Is(statErr, os.ErrNotExist) {
		if err := syncDir(filepath.Dir(s.opts.Path)); err != nil {
			return err
		}
	}
	return s.prepare()
}

// prepare makes the buckets of a new file and checks the header of an old one.
func (s *Store) prepare() error {
	fresh := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			fresh = true
			return nil
		}
		if v := meta.Get(keySchema); len(v) != 8 {
			return &damage{errors.New("the file is damaged: it has no schema version")}
		} else if n := binary.BigEndian.Uint64(v); n > schema {
			return fmt.Errorf("schema %d, known here is %d: %w", n, schema, ErrVersion)
		}
		if owner := message.Node(meta.Get(keyNode)); owner != s.opts.Self {
			return fmt.Errorf("the file belongs to node %q, this is %q: use another -databaseFolder", owner, s.opts.Self)
		}
		for _, name := range allBuckets {
			if tx.Bucket(name) == nil {
				return &damage{fmt.Errorf("the file is damaged: it has no bucket %s", name)}
			}
		}
		return s.sizes.load(meta)
	})
	if err != nil || !fresh {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range allBuckets {
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// view runs fn in a read transaction. A page that makes no sense becomes an error.
func (s *Store) view(fn func(tx *bbolt.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &damage{fmt.Errorf("read store: the file is damaged: %v", r)}
		}
	}()
	err = s.db.View(fn)
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}
