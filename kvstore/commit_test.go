package kvstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"steward/kvstore"
	"steward/message"
)

func TestManyWritersShareCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steward.db")
	o := options(path)
	o.MaxMessages = 100_000
	s := open(t, o)
	var commits atomic.Int64
	// The first commit takes as long as all writers need to hand in.
	const writers, each = 64, 20
	var handedIn sync.WaitGroup
	handedIn.Add(writers)
	s.SetCommit(func(tx *bbolt.Tx) error {
		if commits.Add(1) == 1 {
			handedIn.Wait()
		}
		return tx.Commit()
	})
	var mu sync.Mutex
	ids := map[message.ID]bool{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			handedIn.Done()
			for i := range each {
				got, err := s.Accept([]message.Message{msg(message.Node(fmt.Sprintf("ship%d", w)), fmt.Sprint(i))})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ids[got[0]] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(ids) != writers*each {
		t.Errorf("%d answers", len(ids))
	}
	if n := commits.Load(); n >= writers*each {
		t.Errorf("%d commits for %d operations", n, writers*each)
	}
	// What was answered is on disk, without a close.
	copyFile(t, path, path+".copy")
	o.Path = path + ".copy"
	c := open(t, o)
	for w := range writers {
		q := read(t, c, stream(message.Node(fmt.Sprintf("ship%d", w))))
		if len(q) != each {
			t.Errorf("writer %d: %d are there", w, len(q))
		}
		for _, m := range q {
			if !ids[m.ID] {
				t.Errorf("%s is there, and was not answered", m.ID)
			}
		}
	}
	if err := errors.Join(c.Audit(), c.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// inOneBatch hands in operations that the writer finds together.
func inOneBatch(t *testing.T, s *kvstore.Store, ops ...func() error) []error {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetCommit(func(tx *bbolt.Tx) error {
		once.Do(func() {
			close(entered)
			<-leave
		})
		return tx.Commit()
	})
	first := s.Settle(stream("nobody"), nil)
	<-entered
	errs := make([]error, len(ops))
	var wg sync.WaitGroup
	for i, op := range ops {
		wg.Go(func() { errs[i] = op() })
	}
	close(leave)
	wg.Wait()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	return errs
}

func TestOperationThatFailsDoesNotFailOthers(t *testing.T) {
	s := store(t)
	bad := errors.New("cannot be done")
	var ops []func() error
	for i := range 20 {
		ops = append(ops, func() error {
			_, err := s.Accept([]message.Message{msg("ship1", fmt.Sprint(i))})
			return err
		})
	}
	ops = append(ops, func() error { return s.Fail(bad) }, s.Panic, func() error {
		_, err := s.Accept(msgs("ship1", 5000))
		return err
	})
	errs := inOneBatch(t, s, ops...)
	for i, err := range errs[:20] {
		if err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	if !errors.Is(errs[20], bad) || errs[21] == nil || !errors.Is(errs[22], kvstore.ErrFull) {
		t.Errorf("%v", errs[20:])
	}
	if n := len(read(t, s, stream("ship1"))); n != 20 {
		t.Errorf("%d are there", n)
	}
}

var errDisk = fmt.Errorf("sync: %w", syscall.EIO)

// A commit whose last sync goes wrong: its meta page is in the file and in memory, and bbolt
// takes it for done.
func syncFails(tx *bbolt.Tx) error {
	if err := tx.Commit(); err != nil {
		return err
	}
	return errDisk
}

func TestFailedSyncIsTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steward.db")
	s := open(t, options(path))
	want := accept(t, s, msgs("ship1", 3)...)
	for round := range 3 {
		s.SetCommit(syncFails)
		if _, err := s.Accept(msgs("ship1", 100)); !errors.Is(err, syscall.EIO) {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := <-s.Settle(stream("ship1"), []kvstore.Settled{{Seq: 1, ID: want[0], Code: message.CodeDone, At: time.Now()}}); !errors.Is(err, syscall.EIO) {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := sameAs(s, want, "after the failed sync"); err != nil {
			t.Fatal(err)
		}
		// A crash now does not bring it back either.
		copyFile(t, path, path+".copy")
		c := open(t, options(path+".copy"))
		if err := errors.Join(sameAs(c, want, "after a crash"), c.Close()); err != nil {
			t.Fatal(err)
		}
		s.SetCommit((*bbolt.Tx).Commit)
		want = append(want, accept(t, s, msgs("ship1", 2)...)...)
		if q := read(t, s, stream("ship1")); q[len(q)-1].Seq != uint64(len(want)) {
			t.Fatalf("sequence number %d for message %d", q[len(q)-1].Seq, len(want))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(path))
	if err := errors.Join(sameAs(s, want, "reopened"), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestReaderNeverSeesWhatIsNotOnDisk(t *testing.T) {
	for name, fails := range map[string]bool{"the sync works": false, "the sync fails": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := store(t)
				accept(t, s, msgs("ship1", 1)...)
				written, synced := make(chan struct{}), make(chan struct{})
				var once onlyOnce
				s.SetCommit(func(tx *bbolt.Tx) error {
					err := tx.Commit()
					if once.first() {
						close(written)
						<-synced // the meta page is written, its sync still under way
						if fails {
							err = errDisk
						}
					}
					return err
				})
				accepted := make(chan error, 1)
				go func() {
					_, err := s.Accept(msgs("ship1", 1))
					accepted <- err
				}()
				<-written
				read := make(chan int, 1)
				go func() {
					_, q, err := s.Read(stream("ship1"), 0, 9, 1<<20)
					if err != nil {
						t.Error(err)
					}
					read <- len(q)
				}()
				synctest.Wait()
				if len(read) != 0 {
					t.Errorf("%d read while the sync is under way", <-read)
				}
				close(synced)
				want := 2
				if fails {
					want = 1
				}
				if err := <-accepted; (err != nil) != fails {
					t.Error(err)
				}
				if n := <-read; n != want {
					t.Errorf("%d read, want %d", n, want)
				}
			})
		})
	}
}

// onlyOnce tells the first call from the rest.
type onlyOnce struct{ n atomic.Int32 }

func (s *onlyOnce) first() bool { return s.n.Add(1) == 1 }

// breakStore has a commit fail of which it is not known whether it has reached the disk, and keeps the store from
// opening its file again, until mend.
func breakStore(t *testing.T, s *kvstore.Store, path string) (mend func()) {
	t.Helper()
	var swapErr error
	var once onlyOnce
	s.SetCommit(func(tx *bbolt.Tx) error {
		db := tx.DB()
		if err := tx.Commit(); err != nil {
			return err
		}
		if !once.first() {
			return nil
		}
		// The file is gone from under the store when it wants to open it again.
		swapErr = errors.Join(db.Close(), os.Rename(path, path+".away"), os.Mkdir(path, 0o700))
		return errDisk
	})
	if _, err := s.Accept(msgs("ship1", 1)); !errors.Is(err, syscall.EIO) || swapErr != nil {
		t.Fatalf("%v, %v", err, swapErr)
	}
	if _, _, err := s.Read(stream("ship1"), 0, 1, 1); err == nil {
		t.Error("what is in doubt is read")
	}
	return func() {
		if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOperationsFailWhileACommitCannotBeTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steward.db")
	o := options(path)
	o.LockTimeout = 10 * time.Millisecond
	s := open(t, o)
	want := accept(t, s, msgs("ship1", 3)...)
	mend := breakStore(t, s, path)
	if _, err := s.Accept(msgs("ship1", 1)); err == nil {
		t.Error("what is in doubt is written upon")
	}
	mend()
	want = append(want, accept(t, s, msgs("ship1", 1)...)...)
	if err := sameAs(s, want, "afterwards"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestStoreIsMendedWhenNobodyWrites: who only reads would be refused for ever.
func TestStoreIsMendedWhenNobodyWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "steward.db")
		s := open(t, options(path))
		want := accept(t, s, msgs("ship1", 3)...)
		mend := breakStore(t, s, path)
		<-time.After(time.Minute)
		if _, _, err := s.Read(stream("ship1"), 0, 1, 1); err == nil {
			t.Error("what is in doubt is read")
		}
		mend()
		<-time.After(time.Minute)
		if err := errors.Join(sameAs(s, want, "afterwards"), s.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestBrokenStoreCanBeClosed: its writer does not wait for a disk that may never come back.
func TestBrokenStoreCanBeClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steward.db")
	s := open(t, options(path))
	mend := breakStore(t, s, path)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	mend()
}

func TestClosedStoreSaysSo(t *testing.T) {
	s := open(t, options(filepath.Join(t.TempDir(), "steward.db")))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				_, err := s.Accept(msgs("ship1", 1))
				if errors.Is(err, kvstore.ErrClosed) || errors.Is(err, kvstore.ErrFull) {
					return
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := errors.Join(s.Ping(), s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	_, err := s.Accept(msgs("ship1", 1))
	_, rerr := s.Streams()
	if !errors.Is(err, kvstore.ErrClosed) || !errors.Is(rerr, kvstore.ErrClosed) || !errors.Is(<-s.Settle(stream("ship1"), nil), kvstore.ErrClosed) {
		t.Errorf("%v, %v", err, rerr)
	}
}

func TestEachCommitIsMeasured(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "steward.db"))
	commits := 0
	opts.OnCommit = func(took time.Duration) {
		if took <= 0 {
			t.Errorf("a commit took %v", took)
		}
		commits++
	}
	s := open(t, opts)
	accept(t, s, msg("ship1", "a"))
	before := commits
	for range 3 {
		accept(t, s, msg("ship1", "a"))
	}
	if n := commits - before; n != 3 {
		t.Errorf("%d commits", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
