package kvstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

const (
	backlog = 400
	atLeast = 1 << 20 // bytes that have to be free in these tests
)

// drained is a store that had a long queue, of which little is left.
func drained(t testing.TB, o kvstore.Options) (s *kvstore.Store, left []message.ID) {
	t.Helper()
	s = open(t, o)
	var m []message.Message
	for range backlog {
		m = append(m, msg("ship1", strings.Repeat("x", 20_000)))
	}
	ids := accept(t, s, m...)
	var e []kvstore.Settled
	for i, id := range ids[:backlog-3] {
		e = append(e, kvstore.Settled{Seq: uint64(i + 1), ID: id, Code: message.CodeDone, At: time.Now()})
	}
	settle(t, s, stream("ship1"), e...)
	take(t, s, arrival("ship2", 7, 1, 1, 4, items(t, 1, 3)...))
	return s, ids[backlog-3:]
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func dump(t testing.TB, s *kvstore.Store) string {
	t.Helper()
	d, err := s.Dump()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFileIsGivenBackWhenTheQueueHasDrained(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "steward.db"))
	s, left := drained(t, o)
	large, was := fileSize(t, o.Path), dump(t, s)
	<-s.Compact(atLeast, nil)
	if dump(t, s) != was {
		t.Error("something else is in the file now")
	}
	if small := fileSize(t, o.Path); small > large/4 {
		t.Errorf("%d bytes became %d", large, small)
	}
	left = append(left, accept(t, s, msgs("ship1", 2)...)...)
	if q := read(t, s, stream("ship1")); q[len(q)-1].Seq != backlog+2 {
		t.Errorf("sequence number %d for message %d", q[len(q)-1].Seq, backlog+2)
	}
	// A failed sync is taken back in the new file too.
	s.SetCommit(syncFails)
	if _, err := s.Accept(msgs("ship1", 5)); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := errors.Join(sameAs(s, left, "after it"), s.Audit(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if err := errors.Join(sameAs(s, left, "opened again"), s.Close()); err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob(o.Path + "*"); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// At each step the folder is copied as a crash would leave it.
func TestCrashWhileTheFileIsMadeSmallerLosesNothing(t *testing.T) {
	dir, crashed := t.TempDir(), t.TempDir()
	o := options(filepath.Join(dir, "steward.db"))
	s, _ := drained(t, o)
	was := dump(t, s)
	var crashes []string
	<-s.Compact(atLeast, func(step string) error {
		crashes = append(crashes, step)
		return os.CopyFS(filepath.Join(crashed, step), os.DirFS(dir))
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"copy", "sync copy", "rename", "close"}; !slices.Equal(crashes, want) {
		t.Fatalf("steps %q, want %q", crashes, want)
	}
	for _, step := range crashes {
		o.Path = filepath.Join(crashed, step, "steward.db")
		files, err := filepath.Glob(o.Path + "*")
		if err != nil || (len(files) == 2) != (step != "close") {
			t.Errorf("%s: %q, %v", step, files, err)
		}
		// A half copy is rubbish, and must not be looked at.
		if step == "sync copy" {
			if err := os.Truncate(o.Path+".compact", 5000); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, o)
		if dump(t, s) != was {
			t.Errorf("%s: something else is in the file", step)
		}
		accept(t, s, msgs("ship1", 1)...)
		if err := errors.Join(s.Audit(), s.Close()); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		if files, err := filepath.Glob(o.Path + "*"); err != nil || len(files) != 1 {
			t.Errorf("%s: %q, %v", step, files, err)
		}
	}
}

func TestFileThatCannotBeMadeSmallerIsUsedOn(t *testing.T) {
	for _, step := range []string{"copy", "sync copy", "rename"} {
		o := options(filepath.Join(t.TempDir(), "steward.db"))
		s, left := drained(t, o)
		large := fileSize(t, o.Path)
		<-s.Compact(atLeast, func(now string) error {
			if now == step {
				return fmt.Errorf("%s: %w", step, syscall.ENOSPC)
			}
			return nil
		})
		left = append(left, accept(t, s, msgs("ship1", 2)...)...)
		if err := errors.Join(sameAs(s, left, "after "+step), s.Audit(), s.Close()); err != nil {
			t.Error(err)
		}
		if now := fileSize(t, o.Path); now != large {
			t.Errorf("%s: %d bytes became %d", step, large, now)
		}
		if files, err := filepath.Glob(o.Path + "*"); err != nil || len(files) != 1 {
			t.Errorf("%s: %q, %v", step, files, err)
		}
	}
}

func TestFileIsMadeSmallerAtOpen(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "steward.db"))
	s := open(t, o)
	// Above the bound that holds outside of tests.
	for range 5 {
		var m []message.Message
		for range 20 {
			m = append(m, msg("ship1", strings.Repeat("x", 1<<20)))
		}
		accept(t, s, m...)
	}
	var e []kvstore.Settled
	for _, q := range read(t, s, stream("ship1")) {
		e = append(e, kvstore.Settled{Seq: q.Seq, ID: q.ID, Code: message.CodeDone, At: time.Now()})
	}
	settle(t, s, stream("ship1"), e...)
	was := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	large := fileSize(t, o.Path)
	s = open(t, o)
	if small := fileSize(t, o.Path); small > large/4 {
		t.Errorf("%d bytes became %d", large, small)
	}
	if dump(t, s) != was {
		t.Error("something else is in the file now")
	}
	if err := errors.Join(s.Audit(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestFileThatIsInUseForTheMostPartKeepsItsSize(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "steward.db"))
	s := open(t, o)
	ids := accept(t, s, func() (m []message.Message) {
		for range backlog {
			m = append(m, msg("ship1", strings.Repeat("x", 20_000)))
		}
		return m
	}()...)
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeDone, At: time.Now()})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	large := fileSize(t, o.Path)
	s = open(t, o)
	if now := fileSize(t, o.Path); now != large {
		t.Errorf("%d bytes became %d", large, now)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
