package kvstore_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// untold returns the texts of what is to be told.
func untold(t *testing.T, s *kvstore.Store) (texts []string, keys [][]byte) {
	t.Helper()
	ends, _, err := s.Untold(99)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ends {
		texts, keys = append(texts, string(e.Text)), append(keys, e.Key)
	}
	return texts, keys
}

func TestBadEndsAreStoredWithTheEndAndForgottenWhenTold(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "steward.db"))
	woken := 0
	opts.OnUntold = func() { woken++ }
	s := open(t, opts)
	ids := accept(t, s, msg("ship1", "a"), msg("ship1", "b"))
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeUnreachable, At: time.UnixMilli(1), Untold: []byte("first")},
		kvstore.Settled{Seq: 2, ID: ids[1], Code: message.CodeDone, At: time.UnixMilli(2)})
	take(t, s, arrival("ship2", 7, 1, 1, 3, items(t, 1, 3)...))
	w := lane(t, s, "ship2")
	if err := s.Finish(kvstore.Stream{Peer: "ship2", Method: w[0].Message.Method}, 0, []kvstore.Finished{
		{Arrival: w[0].Arrival, Message: w[0].Message, Result: message.Result{Code: message.CodeFailed}, Untold: []byte("second")},
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if woken != 2 {
		t.Errorf("woken %d times", woken)
	}

	s = open(t, opts)
	texts, keys := untold(t, s)
	if len(texts) != 2 || texts[0] != "first" || texts[1] != "second" {
		t.Fatalf("after a restart: %q", texts)
	}
	if _, err := s.Tell([]message.Message{msg("central", "about the first")}, keys[:1], 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, opts)
	defer func() { _ = s.Close() }()
	if texts, _ := untold(t, s); len(texts) != 1 || texts[0] != "second" {
		t.Errorf("after the first was told: %q", texts)
	}
	if q := read(t, s, stream("central")); len(q) != 1 {
		t.Errorf("%d messages for central", len(q))
	}
	if err := s.Audit(); err != nil {
		t.Error(err)
	}
}

func TestAFullRingKeepsBadEndsForLater(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "steward.db"))
	opts.MaxMessages = 1
	s := open(t, opts)
	defer func() { _ = s.Close() }()
	ids := accept(t, s, msg("ship1", "a"))
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeUnreachable, At: time.UnixMilli(1), Untold: []byte("first")})
	_, keys := untold(t, s)
	many := make([]message.Message, 100)
	for i := range many {
		many[i] = msg("central", "x")
	}
	if _, err := s.Tell(many, keys, 0); !errors.Is(err, kvstore.ErrFull) {
		t.Fatalf("%v", err)
	}
	if texts, _ := untold(t, s); len(texts) != 1 {
		t.Errorf("left: %q", texts)
	}
}
