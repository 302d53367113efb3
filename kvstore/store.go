package kvstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"steward/message"
)

// schema is the version of the layout of buckets and records. It goes up with every change
// that an older program could not read.
const schema = 2

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
	bucketPos      = []byte("pos")      // (from, method) -> epoch and position of an incoming stream
	bucketLanes    = []byte("lanes")    // (from, method) -> size of a lane
	bucketInbox    = []byte("inbox")    // (from, method) -> bucket: arrival -> message
	bucketRunning  = []byte("running")  // (from, method), arrival -> mark of a run
	bucketDead     = []byte("dead")     // id -> message and reason
	bucketSent     = []byte("sent")     // id -> life of a message accepted here
	bucketReceived = []byte("received") // id -> life of a message that came from a stream; see receivedKey
	allBuckets     = [][]byte{bucketMeta, bucketStreams, bucketOut, bucketPos, bucketLanes, bucketInbox,
		bucketRunning, bucketDead, bucketSent, bucketReceived}
	// Files of the first versions lack these.
	bucketSchedules = []byte("schedules") // method, due, id -> message that waits for a further run
	bucketUntold    = []byte("untold")    // time, id -> bad end that central was not told of
	bucketAwaited   = []byte("awaited")   // to, id -> request that was delivered and has no reply yet
	laterBuckets    = [][]byte{bucketSchedules, bucketUntold, bucketAwaited}

	keySchema = []byte("schema")
	keyNode   = []byte("node")
	keySizes  = []byte("sizes")
	keyOpened = []byte("opened") // how often the file was opened
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
	// Leaving, if not nil, is told of messages that leave the ring buffer, or never were on it
	// because they want no ACK, just before the commit that says so. After a commit that came to
	// nothing it is told again. It is called by one goroutine, and every write waits for it.
	Leaving func([]Left)
	// OnUntold, if not nil, is called after a commit with bad ends that have to be told. It must not
	// block.
	OnUntold func()
	// OnCommit, if not nil, is told how long each commit took to be on disk. It must not block.
	OnCommit func(took time.Duration)
	// LockTimeout is how long Open waits for another process to let go of the file
	// (default 1 s).
	LockTimeout time.Duration
	// Now is the clock on the wall (default time.Now). It may jump: nothing but the times in
	// ids and lives is taken from it.
	Now func() time.Time
}

// Store is an open file.
type Store struct {
	opts Options

	dbMu   sync.RWMutex // guards db and broken; held for reading while db is read
	db     *bbolt.DB    // replaced by the writer only; nil after Close, and while broken says why
	broken error

	flightMu sync.Mutex // guards flying and undone
	landed   *sync.Cond // flying has become 0
	flying   uint64     // the commit that is being written, 0 for none
	undone   uint64     // counts the commits that were taken back

	lettingGo atomic.Int64 // when what of the file is mapped was let go of last, in nanoseconds since 1970

	epoch uint64        // of the outgoing streams, see StreamInfo
	run   uint64        // random, in the ids of this run
	count atomic.Uint32 // counts up in the ids of this run

	mu     sync.RWMutex // guards closed against senders on ops
	closed bool
	ops    chan *op
	done   chan struct{} // closed when the writer has ended

	// Owned by the writer goroutine.
	sizes    sizes
	trimmed  map[string][]byte // history bucket -> where trimming goes on
	doubtful uint64            // a commit that has to be taken back at the next open, 0 for none
	commitTx func(*bbolt.Tx) error

	compaction   compaction
	compactAfter time.Time          // not before, since it has failed
	beforeStep   func(string) error // nil except in tests: a step of the compaction fails

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
	if opts.Now == nil {
		opts.Now = time.Now
	}

	s := &Store{opts: opts, ops: make(chan *op, 1024), done: make(chan struct{}), trimmed: map[string][]byte{}, commitTx: (*bbolt.Tx).Commit, compaction: defaultCompaction}
	s.landed = sync.NewCond(&s.flightMu)
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	s.run = binary.BigEndian.Uint64(seed[:])

	err := s.open()
	if isDamage(err) {
		aside, aerr := setAside(opts.Path)
		if aerr != nil {
			return nil, fmt.Errorf("open store: set the damaged file aside: %w", errors.Join(aerr, err))
		}
		s.setAside = fmt.Sprintf("%s (%v)", aside, err)
		err = s.open()
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", opts.Path, err)
	}
	// What a crash has left of a copy; it never had the name of the file.
	_ = os.Remove(opts.Path + compactSuffix)
	if left, worth := s.worthCompacting(); worth {
		if s.tryCompact(left); s.db == nil {
			return nil, fmt.Errorf("open store %s: %w", opts.Path, s.broken)
		}
	}
	s.start()
	if err := s.beginEpoch(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", opts.Path, errors.Join(err, s.Close()))
	}
	return s, nil
}

// beginEpoch counts this opening of the file and makes it the epoch of the outgoing streams. A
// disk without room for the count does not matter: a receiver that has seen a higher epoch
// says so.
func (s *Store) beginEpoch() error {
	var opened uint64
	err := s.view(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketMeta).Get(keyOpened); v != nil {
			return scanNumbers(v, &opened)
		}
		return nil
	})
	if err != nil {
		return err
	}
	opened++
	s.epoch = opened<<32 | s.run>>32 | 1
	_ = s.do(func(t *tx) error { return t.btx.Bucket(bucketMeta).Put(keyOpened, numbers(opened)) })
	return nil
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
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	if s.db == nil {
		return nil
	}
	s.noteFree()
	err := s.db.Close()
	s.db, s.broken = nil, nil
	return err
}

// setAside gives a damaged file a name that no file has, and returns it.
func setAside(path string) (string, error) {
	name := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	for i := 1; ; i++ {
		aside := name
		if i > 1 {
			aside = fmt.Sprintf("%s-%d", name, i)
		}
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			return aside, os.Rename(path, aside)
		} else if err != nil {
			return "", err
		}
	}
}
