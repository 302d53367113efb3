package kvstore_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// asking is a message that wants a reply.
func asking(to message.Node, data ...string) message.Message {
	m := msg(to, data...)
	m.ReplyMethod, m.ReplyACKTimeout = "REQToFile", time.Second
	return m
}

// deliver has requests accepted and acknowledged.
func deliver(t *testing.T, s *kvstore.Store, m ...message.Message) []message.ID {
	t.Helper()
	ids := accept(t, s, m...)
	for _, q := range read(t, s, stream(m[0].To)) {
		settle(t, s, stream(m[0].To), kvstore.Settled{Seq: q.Seq, ID: q.ID, Code: message.CodeDone, Attempts: 1, At: time.Now(), WantsReply: q.WantsReply})
	}
	return ids
}

// reply has a result come from a node and run.
func reply(t *testing.T, s *kvstore.Store, from message.Node, seq uint64, to message.ID, res message.Result) {
	t.Helper()
	arrive(t, s, from, seq, to, res)
	finish(t, s, from, lane(t, s, from)...)
}

func arrive(t *testing.T, s *kvstore.Store, from message.Node, seq uint64, to message.ID, res message.Result) {
	t.Helper()
	take(t, s, arrival(from, 7, seq, seq, seq+1, incoming(t, seq, message.Message{InReplyTo: to, RequestMethod: "REQCliCommand", Result: &res})))
}

func wantAwaited(t *testing.T, s *kvstore.Store, from message.Node, want ...message.ID) {
	t.Helper()
	got, err := s.AwaitedFrom(from, message.ID{}, 99)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("awaited from %s: %v, want %v, %v", from, got, want, err)
	}
}

func TestRepliesAreAwaitedFromTheACKToTheEnd(t *testing.T) {
	s := store(t)
	first := accept(t, s, asking("ship1", "a"))
	wantAwaited(t, s, "ship1")
	second := deliver(t, s, asking("ship1", "b"), msg("ship1", "wants none"))
	wantAwaited(t, s, "ship1", first[0], second[0])
	deliver(t, s, asking("central", "to itself"))
	wantAwaited(t, s, "central")
	long := deliver(t, s, asking("ship1.a", "c"), asking("ship1.a", "d"), asking("ship1.a", "e"))
	if nodes, err := s.Awaited(); err != nil || !slices.Equal(nodes, []message.Node{"ship1", "ship1.a"}) {
		t.Errorf("%v, %v", nodes, err)
	}
	if page, err := s.AwaitedFrom("ship1.a", long[0], 1); err != nil || !slices.Equal(page, long[1:2]) {
		t.Errorf("%v, %v", page, err)
	}
	reply(t, s, "ship1.a", 1, long[0], message.Result{Code: message.CodeDone, Started: time.Now(), Run: 1, More: true})
	wantAwaited(t, s, "ship1.a", long...)
	reply(t, s, "ship1.a", 2, long[0], message.Result{Code: message.CodeFailed, Started: time.Now().Add(time.Second), Run: 2})
	wantAwaited(t, s, "ship1.a", long[1:]...)
	reply(t, s, "ship1", 1, long[1], message.Result{Code: message.CodeDone, Started: time.Now()}) // of another node
	wantAwaited(t, s, "ship1.a", long[1:]...)

	gone := accept(t, s, asking("ship2", "given up"))
	settle(t, s, stream("ship2"), kvstore.Settled{Seq: 1, ID: gone[0], Code: message.CodeUnreachable, At: time.Now(), WantsReply: true})
	fast := accept(t, s, asking("ship2", "answered before its ACK"))
	reply(t, s, "ship2", 1, fast[0], message.Result{Code: message.CodeDone, Started: time.Now()})
	settle(t, s, stream("ship2"), kvstore.Settled{Seq: 2, ID: fast[0], Code: message.CodeDone, At: time.Now(), WantsReply: true})
	wantAwaited(t, s, "ship2")
}

func TestKnownSaysToWhichRequestsNoReplyWillCome(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.Self = "ship1"; o.History = 2 })
	var ids []message.ID
	come := func(seq uint64) {
		t.Helper()
		it := incoming(t, seq, message.Message{ReplyMethod: "REQToFile", ReplyACKTimeout: time.Second})
		take(t, s, arrival("central", 7, seq, seq, seq+1, it))
		ids = append(ids, it.ID)
	}
	end := func(code message.Code, text string) {
		t.Helper()
		w := lane(t, s, "central")[0]
		r := w.Message.ReplyWith("REQToFile")
		r.Retries, r.ACKTimeout = 0, time.Second
		f := kvstore.Finished{Arrival: w.Arrival, Message: w.Message, Result: message.Result{Code: code, Text: text}, Reply: r}
		if err := s.Finish(stream("central"), 0, []kvstore.Finished{f}); err != nil {
			t.Fatal(err)
		}
	}
	wantFates := func(by message.Node, what string, want ...kvstore.Fate) {
		t.Helper()
		got, err := s.Known(by, ids)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %+v, %v", what, got, err)
		}
		for i := range got {
			if got[i].ID != want[i].ID || got[i].Code != want[i].Code || got[i].Text != want[i].Text {
				t.Errorf("%s: %+v, want %+v", what, got[i], want[i])
			}
		}
	}
	ids = append(ids, message.NewID(time.UnixMilli(1), 1, 1)) // never came
	come(1)
	come(2)
	wantFates("central", "both wait", kvstore.Fate{ID: ids[0]})
	wantFates("ship2", "of another sender", kvstore.Fate{ID: ids[0]}, kvstore.Fate{ID: ids[1]}, kvstore.Fate{ID: ids[2]})
	end(message.CodeFailed, "exit 1")
	wantFates("central", "the reply is on its way", kvstore.Fate{ID: ids[0]})
	answers := kvstore.Stream{Peer: "central", Method: "REQToFile"}
	q := read(t, s, answers)
	settle(t, s, answers, kvstore.Settled{Seq: q[0].Seq, ID: q[0].ID, Code: message.CodeDone, At: time.Now()})
	wantFates("central", "the reply has arrived", kvstore.Fate{ID: ids[0]}, kvstore.Fate{ID: ids[1], Code: message.CodeFailed, Text: "exit 1"})
	end(message.CodeDone, "")
	come(3)
	end(message.CodeDone, "")
	come(4)
	// The first life was trimmed. For all that is known here, its reply may be on its way.
	wantFates("central", "trimmed, and replies on their way")
	for _, q := range read(t, s, answers) {
		settle(t, s, answers, kvstore.Settled{Seq: q.Seq, ID: q.ID, Code: message.CodeDone, At: time.Now()})
	}
	wantFates("central", "trimmed, and all have arrived", kvstore.Fate{ID: ids[0]}, kvstore.Fate{ID: ids[1]},
		kvstore.Fate{ID: ids[2], Code: message.CodeDone}, kvstore.Fate{ID: ids[3], Code: message.CodeDone})
}

func TestEndAwaitedEndsWhatHasNoEndYet(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "steward.db"))
	s := open(t, opts)
	ids := deliver(t, s, asking("ship1", "lost"), asking("ship1", "answered"), asking("ship1", "its reply is here"), asking("ship1", "not asked for"))
	waiting := accept(t, s, asking("ship1", "not delivered"))
	other := deliver(t, s, asking("ship2", "of another node"))
	reply(t, s, "ship1", 1, ids[1], message.Result{Code: message.CodeDone, Started: time.Now()})
	arrive(t, s, "ship1", 2, ids[2], message.Result{Code: message.CodeDone, Started: time.Now()})
	var fates []kvstore.Fate
	for _, id := range []message.ID{ids[0], ids[1], ids[2], waiting[0], other[0], message.NewID(time.Now(), 1, 2)} {
		fates = append(fates, kvstore.Fate{ID: id, Code: message.CodeInterrupted, Text: "gone", Untold: []byte(id.String())})
	}
	for round := range 2 {
		ended, err := s.EndAwaited("ship1", fates)
		if want := ids[:1-round]; err != nil || !slices.Equal(ended, want) {
			t.Errorf("%v, want %v, %v", ended, want, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, opts)
	defer func() { _ = s.Close() }()
	if texts, _ := untold(t, s); len(texts) != 1 || texts[0] != ids[0].String() {
		t.Errorf("to be told: %q", texts)
	}
	wantAwaited(t, s, "ship1", ids[2:]...)
	wantAwaited(t, s, "ship2", other...)
	l, err := s.Sent(ids[0])
	if err != nil || l.State != message.StateFailed || l.Code != message.CodeInterrupted || l.Text != "gone" || l.Ended.IsZero() || l.Delivered.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	finish(t, s, "ship1", lane(t, s, "ship1")...)
	wantAwaited(t, s, "ship1", ids[3])
	// What comes from a store that is gone changes nothing.
	reply(t, s, "ship1", 3, ids[0], message.Result{Code: message.CodeDone, Started: time.Now()})
	if again, err := s.Sent(ids[0]); err != nil || again != l {
		t.Errorf("%+v, %v", again, err)
	}
	if err := s.Audit(); err != nil {
		t.Error(err)
	}
}
