package errorkernel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
)

// shelf is a store of bad ends, and central.
type shelf struct {
	mu     sync.Mutex // guards all
	stored []errorkernel.Stored
	lost   uint64
	lines  []string
	broken bool
	count  int
}

func (s *shelf) Stored(n int) ([]errorkernel.Stored, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored[:min(n, len(s.stored))]), s.lost, nil
}

func (s *shelf) Tell(_ context.Context, lines []string, keys [][]byte, lost uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errors.New("the ring is full")
	}
	for _, k := range keys {
		i := slices.IndexFunc(s.stored, func(e errorkernel.Stored) bool { return string(e.Key) == string(k) })
		s.stored = slices.Delete(s.stored, i, i+1)
	}
	s.lost -= lost
	s.lines = append(s.lines, lines...)
	return nil
}

// put stores n bad ends of a kind.
func (s *shelf) put(n int, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.count++
		ev := errorkernel.Event{Class: errorkernel.GivenUp, Process: "publisher", Subject: "ship1.REQPing.EventACK", ID: message.ID{15: byte(s.count), 14: byte(s.count >> 8), 0: 1},
			From: "central", Method: "REQPing", Err: errors.New(cause), At: time.Now()}
		s.stored = append(s.stored, errorkernel.Stored{Key: fmt.Append(nil, s.count), Text: errorkernel.Pack(ev)})
	}
}

func (s *shelf) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.lines
	s.lines = nil
	return all
}

// withTeller runs a test with a teller that serves.
func withTeller(t *testing.T, test func(t *testing.T, s *shelf, teller *errorkernel.Teller)) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		teller, err := errorkernel.NewTeller(errorkernel.TellerOptions{Node: "central", Log: slog.New(slog.DiscardHandler), Stored: s.Stored, Tell: s.Tell})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- teller.Serve(ctx) }()
		synctest.Wait()
		test(t, s, teller)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTellerTellsTheFirstAtOnceAndTheRestInOneLine(t *testing.T) {
	withTeller(t, func(t *testing.T, s *shelf, teller *errorkernel.Teller) {
		s.put(1, "no ACK")
		teller.Wake()
		synctest.Wait()
		if got := s.told(); len(got) != 1 || !strings.Contains(got[0], "subject=ship1.REQPing.EventACK method=REQPing id=04000000000000000000000004 from=central count=1 cause=\"no ACK\"") {
			t.Fatalf("%q", got)
		}
		for range 5 {
			s.put(1, "no ACK")
			teller.Wake()
			<-time.After(time.Second)
		}
		s.put(1, "another cause")
		teller.Wake()
		<-time.After(2 * time.Second)
		if got := s.told(); len(got) != 1 || !strings.Contains(got[0], "another cause") {
			t.Errorf("within the minute: %q", got)
		}
		<-time.After(time.Minute)
		got := s.told()
		if len(got) != 1 || !strings.Contains(got[0], " count=5 ids=") || strings.Count(got[0], ",") != 4 {
			t.Errorf("after the minute: %q", got)
		}
		if left, _, _ := s.Stored(9); len(left) != 0 {
			t.Errorf("%d are left", len(left))
		}
	})
}

func TestTellerNamesEveryMessage(t *testing.T) {
	withTeller(t, func(t *testing.T, s *shelf, teller *errorkernel.Teller) {
		s.put(1, "no ACK")
		teller.Wake()
		<-time.After(2 * time.Second)
		s.told()
		s.put(150, "no ACK") // two lines are full, the third has time
		teller.Wake()
		<-time.After(2 * time.Second)
		got := s.told()
		<-time.After(2 * time.Minute)
		got = append(got, s.told()...)
		if len(got) != 3 {
			t.Fatalf("%d lines", len(got))
		}
		for n := 2; n <= 151; n++ {
			id := message.ID{15: byte(n), 0: 1}.String()
			if c := strings.Count(strings.Join(got, "\n"), id); c == 0 {
				t.Errorf("message %d is in no line", n)
			}
		}
	})
}

func TestTellerGoesOnWhenItCouldNotHandOver(t *testing.T) {
	withTeller(t, func(t *testing.T, s *shelf, teller *errorkernel.Teller) {
		s.mu.Lock()
		s.broken, s.lost = true, 7
		s.mu.Unlock()
		s.put(3, "no ACK")
		teller.Wake()
		<-time.After(time.Minute)
		if got := s.told(); got != nil {
			t.Fatalf("%q", got)
		}
		s.mu.Lock()
		s.broken = false
		s.mu.Unlock()
		<-time.After(2 * time.Second)
		if got := s.told(); len(got) != 1 || !strings.Contains(got[0], "count=3") || !strings.HasSuffix(got[0], " lost=7") {
			t.Errorf("%q", got)
		}
	})
}

func TestPackLeavesOutWhatIsAboutErrorMessages(t *testing.T) {
	ev := errorkernel.Event{Class: errorkernel.GivenUp, Method: message.MethodErrorLog, Err: errors.New("no ACK")}
	if b := errorkernel.Pack(ev); b != nil {
		t.Errorf("%s", b)
	}
}

func TestKernelLeavesStoredEventsToTheTeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan string, 10)
		k, err := errorkernel.New(errorkernel.Options{Node: "central", Log: slog.New(slog.DiscardHandler),
			Send: func(_ context.Context, text string) error { sent <- text; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Serve(ctx) }()
		for range 3 {
			k.Report(errorkernel.Event{Class: errorkernel.MethodFailed, Err: errors.New("exit 1"), Stored: true})
		}
		<-time.After(5 * time.Minute)
		cancel()
		if err := <-done; err != nil || len(sent) != 0 {
			t.Errorf("%d sent, %v", len(sent), err)
		}
	})
}
