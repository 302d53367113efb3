package kvstore_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// giveUp makes dead letters of messages, and returns their ids.
func giveUp(t fatal, s *kvstore.Store, m ...message.Message) []message.ID {
	t.Helper()
	ids := accept(t, s, m...)
	for i, id := range ids {
		l, err := s.Sent(id)
		if err != nil {
			t.Fatal(err)
		}
		settle(t, s, kvstore.Stream{Peer: m[i].To, Method: m[i].Method},
			kvstore.Settled{Seq: l.Seq, ID: id, Code: message.CodeUnreachable, Text: "nobody listens", Attempts: 3, At: time.Now()})
	}
	return ids
}

func TestRetryAcceptsDeadLettersAnewInTheirOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, options(path))
	ids := giveUp(t, s, msgs("ship1", 3)...)
	kept := giveUp(t, s, msg("ship2"))
	accept(t, s, msg("ship1", "meanwhile"))
	retried, rest, err := s.Retry(append(slices.Clone(ids), message.ID{1}))
	if err != nil || len(retried) != 3 || len(rest) != 0 {
		t.Fatalf("%v, rest %v, %v", retried, rest, err)
	}
	again, _, err := s.Retry(ids)
	if err != nil || len(again) != 0 {
		t.Errorf("sent again twice: %v, %v", again, err)
	}
	// What was committed is there after a restart, and nothing besides.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(path))
	defer s.Close()
	q := read(t, s, stream("ship1"))
	if len(q) != 4 {
		t.Fatalf("%d messages wait", len(q))
	}
	for i, r := range retried {
		if r.Old != ids[i] || r.New != q[i+1].ID || r.Stream != stream("ship1") {
			t.Errorf("message %d: %+v, and %s waits", i, r, q[i+1].ID)
		}
		old, err := s.Sent(r.Old)
		if err != nil || old.State != message.StateFailed || old.Code != message.CodeUnreachable || old.Text != "nobody listens; sent again as "+r.New.String() {
			t.Errorf("%+v, %v", old, err)
		}
		if l, err := s.Sent(r.New); err != nil || l.State != message.StateAccepted || l.Attempts != 0 {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if d := deadLetters(t, s); len(d) != 1 || d[0].Message.ID != kept[0] {
		t.Errorf("dead letters: %+v", d)
	}
	if err := s.Audit(); err != nil {
		t.Error(err)
	}
}

func TestRetryKeepsTheMessageAndItsLinkHoweverLongTheReason(t *testing.T) {
	s := store(t)
	m := msg("ship1", "rm", "-r")
	m.Directory, m.Headers = "a", map[string]string{"k": "v"}
	id := accept(t, s, m)[0]
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: id, Code: message.CodeDenied, Text: strings.Repeat("é", 1<<20), At: time.Now()})
	retried, _, err := s.Retry([]message.ID{id})
	if err != nil || len(retried) != 1 {
		t.Fatalf("%v, %v", retried, err)
	}
	if l, err := s.Sent(id); err != nil || !strings.HasSuffix(l.Text, "sent again as "+retried[0].New.String()) {
		t.Errorf("%+v, %v", l, err)
	}
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 2, ID: retried[0].New, Code: message.CodeDenied, At: time.Now()})
	d := deadLetters(t, s)
	if len(d) != 1 || d[0].Message.ID != retried[0].New || d[0].Message.Data[1] != "-r" || d[0].Message.Directory != "a" || d[0].Message.Headers["k"] != "v" {
		t.Errorf("%+v", d)
	}
}

func TestRetryIntoAFullRingChangesNothing(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxMessages = 2 })
	ids := giveUp(t, s, msgs("ship1", 2)...)
	accept(t, s, msg("ship2"))
	if _, _, err := s.Retry(ids); !errors.Is(err, kvstore.ErrFull) {
		t.Fatalf("%v", err)
	}
	if d := deadLetters(t, s); len(d) != 2 {
		t.Errorf("%d dead letters", len(d))
	}
	if q := read(t, s, stream("ship1")); len(q) != 0 {
		t.Errorf("%d wait", len(q))
	}
	if l, err := s.Sent(ids[0]); err != nil || l.Text != "nobody listens" {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestRetryOfManyComesInPartsOfACommitEach(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxMessages = 10_000 })
	var large []message.Message
	for range 5 {
		large = append(large, msg("ship1", strings.Repeat("x", 1<<20)))
	}
	ids := giveUp(t, s, large...)
	var order []message.ID
	commits := 0
	for rest := ids; len(rest) > 0; commits++ {
		retried, left, err := s.Retry(rest)
		if err != nil || len(retried) == 0 {
			t.Fatalf("%v, %v", retried, err)
		}
		for _, r := range retried {
			order = append(order, r.Old)
		}
		rest = left
	}
	if commits < 2 || !slices.Equal(order, ids) {
		t.Errorf("%d commits, %v; want %v", commits, order, ids)
	}
}

func TestForgottenDeadLettersAreGone(t *testing.T) {
	s := store(t)
	ids := giveUp(t, s, msgs("ship1", 3)...)
	gone, err := s.Forget([]message.ID{ids[2], {7}, ids[0]})
	if err != nil || !slices.Equal(gone, []message.ID{ids[2], ids[0]}) {
		t.Fatalf("%v, %v", gone, err)
	}
	if d := deadLetters(t, s); len(d) != 1 || d[0].Message.ID != ids[1] {
		t.Errorf("%+v", d)
	}
	if _, err := s.DeadLetter(ids[0]); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if d, err := s.DeadLetter(ids[1]); err != nil || d.Message.ID != ids[1] || d.Text != "nobody listens" {
		t.Errorf("%+v, %v", d, err)
	}
	if l, err := s.Sent(ids[0]); err != nil || l.Code != message.CodeUnreachable {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestMatchFindsIDsByTheirBeginning(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	s := store(t, func(o *kvstore.Options) { o.Now = func() time.Time { return now } })
	first := accept(t, s, msgs("ship1", 3)...)
	now = now.Add(24 * time.Hour)
	later := accept(t, s, msg("ship1"))[0]
	dead := giveUp(t, s, msg("ship2"))[0]
	for _, tt := range []struct {
		prefix string
		n      int
		want   []message.ID
	}{
		{first[1].String(), 9, first[1:2]},
		{first[0].String()[:8], 9, first},
		{first[0].String()[:8], 2, first[:2]},
		{later.String(), 9, []message.ID{later}},
		{dead.String(), 9, []message.ID{dead}},
		{later.String()[:8], 9, []message.ID{later, dead}},
		{"zz", 9, nil},
	} {
		got, err := s.Match(tt.prefix, tt.n)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, %v; want %v", tt.prefix, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "A", "u!", "0\n", first[0].String() + "0"} {
		if got, err := s.Match(bad, 9); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func TestRetryOfManyAtOnceDoublesNothing(t *testing.T) {
	s := store(t)
	ids := giveUp(t, s, msgs("ship1", 50)...)
	var all sync.WaitGroup
	var total atomic.Int64
	for range 8 {
		all.Go(func() {
			retried, _, err := s.Retry(ids)
			if err != nil {
				t.Error(err)
			}
			total.Add(int64(len(retried)))
		})
	}
	all.Wait()
	if q := read(t, s, stream("ship1")); total.Load() != 50 || len(q) != 50 {
		t.Errorf("%d are sent again, %d wait; want 50", total.Load(), len(q))
	}
}
