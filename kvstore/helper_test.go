package kvstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

func TestMain(m *testing.M) {
	if run := os.Getenv("STEWARD_TEST_CHILD"); run != "" {
		os.Exit(child(run))
	}
	goleak.VerifyTestMain(m)
}

// fatal is the part of testing.TB that rapid.T has too.
type fatal interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func options(path string) kvstore.Options {
	return kvstore.Options{Path: path, Self: "central", MaxMessages: 1000, MaxBytes: 1 << 30}
}

func open(t fatal, o kvstore.Options) *kvstore.Store {
	t.Helper()
	s, err := kvstore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if aside := s.SetAside(); aside != "" {
		t.Fatalf("set aside: %s", aside)
	}
	return s
}

// store is one that lives as long as the test, and is audited at its end.
func store(t testing.TB, change ...func(*kvstore.Options)) *kvstore.Store {
	t.Helper()
	o := options(filepath.Join(t.TempDir(), "steward.db"))
	for _, c := range change {
		c(&o)
	}
	s := open(t, o)
	t.Cleanup(func() {
		if err := s.Audit(); err != nil && !errors.Is(err, kvstore.ErrClosed) {
			t.Errorf("audit: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func msg(to message.Node, data ...string) message.Message {
	return message.Message{To: to, Method: "REQCliCommand", Data: data, ReplyMethod: message.MethodNone,
		ACKTimeout: 5 * time.Second, Retries: 3, RetryWait: time.Second, TTL: time.Hour}
}

func msgs(to message.Node, n int) []message.Message {
	out := make([]message.Message, n)
	for i := range out {
		out[i] = msg(to, fmt.Sprint(i))
	}
	return out
}

func accept(t fatal, s *kvstore.Store, m ...message.Message) []message.ID {
	t.Helper()
	ids, err := s.Accept(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) != len(m) {
		t.Fatalf("%d ids for %d messages", len(ids), len(m))
	}
	return ids
}

func stream(peer message.Node) kvstore.Stream {
	return kvstore.Stream{Peer: peer, Method: "REQCliCommand"}
}

func read(t fatal, s *kvstore.Store, id kvstore.Stream) []kvstore.Queued {
	t.Helper()
	_, q, err := s.Read(id, 0, 1<<20, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func settle(t fatal, s *kvstore.Store, id kvstore.Stream, e ...kvstore.Settled) {
	t.Helper()
	if err := <-s.Settle(id, e); err != nil {
		t.Fatal(err)
	}
}

// incoming is a message as another node would send it.
func incoming(t fatal, seq uint64, m message.Message) kvstore.Item {
	t.Helper()
	if m.ID.IsZero() {
		m.ID = message.NewID(time.Now(), uint32(seq), uint64(seq)+77)
	}
	raw, err := wire.EncodeMessage(&m)
	if err != nil {
		t.Fatal(err)
	}
	return kvstore.Item{Seq: seq, ID: m.ID, Accepted: time.UnixMilli(1_700_000_000_000), Message: raw}
}

func arrival(from message.Node, epoch, base, first, end uint64, items ...kvstore.Item) kvstore.Arrival {
	return kvstore.Arrival{Stream: stream(from), Epoch: epoch, Base: base, First: first, End: end, Items: items}
}

func take(t fatal, s *kvstore.Store, a kvstore.Arrival) kvstore.Taken {
	t.Helper()
	taken, err := s.Take([]kvstore.Arrival{a})
	if err != nil {
		t.Fatal(err)
	}
	return taken[0]
}

func lane(t fatal, s *kvstore.Store, from message.Node) []kvstore.Waiting {
	t.Helper()
	w, err := s.ReadLane(stream(from), 0, 1<<20, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func finish(t fatal, s *kvstore.Store, from message.Node, w ...kvstore.Waiting) {
	t.Helper()
	var f []kvstore.Finished
	for _, w := range w {
		f = append(f, kvstore.Finished{Arrival: w.Arrival, Message: w.Message, Result: message.Result{Code: message.CodeDone, Attempt: 1}})
	}
	if err := s.Finish(stream(from), 0, f); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t fatal, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func deadLetters(t fatal, s *kvstore.Store) (out []kvstore.DeadLetter) {
	t.Helper()
	err := s.DeadLetters(func(d kvstore.DeadLetter) bool {
		out = append(out, d)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
