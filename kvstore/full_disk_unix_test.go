//go:build unix

package kvstore_test

import (
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// systemChildren are those that take this system.
var systemChildren = map[string]func(path string) error{"full disk": fullDisk}

func limitFiles(bytes uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		return err
	}
	l.Cur = min(bytes, l.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l)
}

// fullDisk fills a store to the limit of the file's size, which fails writes as a full disk does,
// at first in growing the file, then in the middle of the pages of a commit.
func fullDisk(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	o := options(path)
	s, err := kvstore.Open(o)
	if err != nil {
		return err
	}
	var ids []message.ID
	fill := func(what string, limit uint64) error {
		if err := limitFiles(limit); err != nil {
			return err
		}
		for {
			got, err := s.Accept([]message.Message{msg("ship1", strings.Repeat("x", 5000)), msg("ship1", strings.Repeat("y", 5000))})
			if err == nil {
				if ids = append(ids, got...); len(ids) > 900 {
					return fmt.Errorf("%s: the limit does nothing", what)
				}
				continue
			}
			if !strings.Contains(err.Error(), "file too large") || errors.Is(err, kvstore.ErrFull) {
				return fmt.Errorf("%s: refused because: %w", what, err)
			}
			return sameAs(s, ids, what)
		}
	}
	if err := fill("growing", 300<<10); err != nil {
		return err
	}
	// It goes on failing, changes nothing, and holds nobody up.
	for range 20 {
		if _, err := s.Accept(msgs("ship2", 1000)); err == nil {
			return errors.New("a large array is taken on a full disk")
		}
	}
	if err := sameAs(s, ids, "refused again"); err != nil {
		return err
	}
	// What makes room still works, in one batch with what cannot.
	full := make(chan error)
	for range 8 {
		go func() {
			_, err := s.Accept([]message.Message{msg("ship3", strings.Repeat("x", 200<<10))})
			full <- err
		}()
	}
	err = <-s.Settle(stream("ship1"), []kvstore.Settled{{Seq: 1, ID: ids[0], Code: message.CodeDone, At: time.Now()}})
	for range 8 {
		if <-full == nil {
			return errors.New("200 KB are taken on a full disk")
		}
	}
	if err != nil {
		return fmt.Errorf("settle on a full disk: %w", err)
	}
	if ids = ids[1:]; sameAs(s, ids, "settled") != nil {
		return sameAs(s, ids, "settled")
	}
	// Less than the file has already: pages in front of the limit are written, those behind not.
	for limit := uint64(40 << 10); limit < 250<<10; limit += 36 << 10 {
		if err := fill(fmt.Sprintf("limit %d", limit), limit); err != nil {
			return err
		}
	}
	if err := limitFiles(1 << 40); err != nil {
		return err
	}
	got, err := s.Accept([]message.Message{msg("ship1", "there is room again")})
	if err != nil {
		return fmt.Errorf("with room: %w", err)
	}
	ids = append(ids, got...)
	if err := sameAs(s, ids, "with room"); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = kvstore.Open(o); err != nil {
		return err
	}
	return errors.Join(sameAs(s, ids, "reopened"), s.Close())
}

func TestFullDiskRefusesAndRecovers(t *testing.T) {
	cmd, lines := startChild(t, "full disk", t.TempDir()+"/steward.db")
	for lines.Scan() {
		t.Error(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
