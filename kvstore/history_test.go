package kvstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// request is accepted, and its reply comes.
func request(t fatal, s *kvstore.Store, to message.Node) (message.ID, uint64) {
	t.Helper()
	m := msg(to, "x")
	m.ReplyMethod, m.ReplyACKTimeout = "REQToFile", time.Second
	id := accept(t, s, m)[0]
	q := read(t, s, stream(to))
	return id, q[len(q)-1].Seq
}

func answer(t fatal, s *kvstore.Store, from message.Node, to message.ID, code message.Code) {
	t.Helper()
	id := message.NewID(time.Now(), uint32(time.Now().UnixNano()), 5)
	m := message.Message{ID: id, InReplyTo: to, RequestMethod: "REQCliCommand", Result: &message.Result{Code: code, Text: "text", Started: time.UnixMilli(5)}}
	r := incoming(t, 1, m)
	take(t, s, arrival(from, uint64(time.Now().UnixNano()), 1, 1, 2, r))
	finish(t, s, from, lane(t, s, from)...)
}

// A run that fails says so even where no reply is wanted; that others are to follow, which may
// have nothing to say, opens no life that has ended with the ACK.
func TestFailedRunOfAScheduleWithoutReplyIsNoOpenEnd(t *testing.T) {
	s := store(t)
	id := accept(t, s, msg("ship1"))[0]
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: id, Code: message.CodeDone, Attempts: 1, At: time.Now()})
	word := incoming(t, 1, message.Message{InReplyTo: id, RequestMethod: "REQCliCommand",
		Result: &message.Result{Code: message.CodeFailed, Text: "no such file", Started: time.UnixMilli(5), Run: 2, More: true}})
	take(t, s, arrival("ship1", 7, 1, 1, 2, word))
	finish(t, s, "ship1", lane(t, s, "ship1")...)
	l, err := s.Sent(id)
	if err != nil || l.State != message.StateFailed || l.Code != message.CodeFailed || l.Text != "run 2: failed: no such file" || l.Ended.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestNoticeIsAboutItsRunOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		started int64
		text    string
	}{
		"the run of the reply that is here": {5, "text"},
		"an earlier one":                    {4, "text"},
		"a later one, as of a schedule":     {6, "given up"},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t)
			id, seq := request(t, s, "ship1")
			settle(t, s, stream("ship1"), kvstore.Settled{Seq: seq, ID: id, Code: message.CodeDone, Attempts: 3, At: time.Now(), WantsReply: true})
			answer(t, s, "ship1", id, message.CodeDone)
			notice := incoming(t, 1, message.Message{InReplyTo: id, RequestMethod: "REQCliCommand",
				Result: &message.Result{Code: message.CodeDone, Text: "given up", Started: time.UnixMilli(tt.started)}})
			a := arrival("ship1", 7, 1, 1, 2, notice)
			a.Stream.Method = message.MethodNone
			take(t, s, a)
			waiting, err := s.ReadLane(a.Stream, 0, 1, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Finish(a.Stream, 0, []kvstore.Finished{{Arrival: waiting[0].Arrival, Message: waiting[0].Message, Result: message.Result{Code: message.CodeDone}}}); err != nil {
				t.Fatal(err)
			}
			if l, err := s.Sent(id); err != nil || l.Text != tt.text || l.State != message.StateDone {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

func TestReplyHasTheLastWord(t *testing.T) {
	ack := func(code message.Code) func(testing.TB, *kvstore.Store, message.ID, uint64) {
		return func(t testing.TB, s *kvstore.Store, id message.ID, seq uint64) {
			settle(t, s, stream("ship1"), kvstore.Settled{Seq: seq, ID: id, Code: code, Text: "no ack", Attempts: 3, At: time.Now(), WantsReply: true})
		}
	}
	reply := func(from message.Node, code message.Code) func(testing.TB, *kvstore.Store, message.ID, uint64) {
		return func(t testing.TB, s *kvstore.Store, id message.ID, _ uint64) { answer(t, s, from, id, code) }
	}
	type step = func(testing.TB, *kvstore.Store, message.ID, uint64)
	for name, tt := range map[string]struct {
		steps []step
		state message.State
		code  message.Code
		dead  int
	}{
		"reply after ack":               {[]step{ack(message.CodeDone), reply("ship1", message.CodeDone)}, message.StateDone, message.CodeDone, 0},
		"reply before ack":              {[]step{reply("ship1", message.CodeDone), ack(message.CodeDone)}, message.StateDone, message.CodeDone, 0},
		"failed before ack":             {[]step{reply("ship1", message.CodeFailed), ack(message.CodeDone)}, message.StateFailed, message.CodeFailed, 0},
		"reply, and all acks lost":      {[]step{reply("ship1", message.CodeDone), ack(message.CodeUnreachable)}, message.StateDone, message.CodeDone, 0},
		"given up, and then the reply":  {[]step{ack(message.CodeUnreachable), reply("ship1", message.CodeTimeout)}, message.StateFailed, message.CodeTimeout, 0},
		"no reply yet":                  {[]step{ack(message.CodeDone)}, message.StateDelivered, "", 0},
		"given up":                      {[]step{ack(message.CodeUnreachable)}, message.StateFailed, message.CodeUnreachable, 1},
		"a reply of somebody else":      {[]step{ack(message.CodeDone), reply("ship2", message.CodeFailed)}, message.StateDelivered, "", 0},
		"somebody else after given up":  {[]step{ack(message.CodeUnreachable), reply("ship2", message.CodeDone)}, message.StateFailed, message.CodeUnreachable, 1},
		"two replies, as of a schedule": {[]step{ack(message.CodeDone), reply("ship1", message.CodeDone), reply("ship1", message.CodeFailed)}, message.StateFailed, message.CodeFailed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t)
			id, seq := request(t, s, "ship1")
			for _, step := range tt.steps {
				step(t, s, id, seq)
				if err := s.Audit(); err != nil {
					t.Fatal(err)
				}
			}
			l, err := s.Sent(id)
			if err != nil || l.State != tt.state || l.Code != tt.code || l.Attempts != 3 || l.State.Final() == l.Ended.IsZero() {
				t.Errorf("%+v, %v", l, err)
			}
			if d := deadLetters(t, s); len(d) != tt.dead {
				t.Errorf("%d dead letters", len(d))
			}
		})
	}
}

func TestReplyToAnUnknownRequestIsTaken(t *testing.T) {
	s := store(t)
	answer(t, s, "ship1", message.ID{1, 2, 3}, message.CodeDone)
	if _, err := s.Sent(message.ID{1, 2, 3}); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestNoteKeepsTheEndOfAMessageWithoutACK(t *testing.T) {
	s := store(t)
	m := msg("ship1", "x")
	s.Stamp(&m)
	if err := s.Note(&m, message.CodeUnreachable, "no link"); err != nil {
		t.Fatal(err)
	}
	l, err := s.Sent(m.ID)
	if err != nil || l.State != message.StateFailed || l.Text != "no link" || l.Peer != "ship1" || l.Ended.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.Received(m.ID); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestHistoryIsBoundedAndKeepsWhatHasNotEnded(t *testing.T) {
	const history = 20
	s := store(t, func(o *kvstore.Options) { o.History = history })
	open := accept(t, s, msgs("absent", 100)...) // older than all that end
	var ended []message.ID
	seq := uint64(0)
	for round := range 30 {
		ids := accept(t, s, msgs("ship1", 7)...)
		var e []kvstore.Settled
		for _, id := range ids {
			seq++
			e = append(e, kvstore.Settled{Seq: seq, ID: id, Code: message.CodeDone, Attempts: 1, At: time.Now()})
		}
		settle(t, s, stream("ship1"), e...)
		ended = append(ended, ids...)
		take(t, s, arrival("ship1", 7, uint64(round)*7+1, uint64(round)*7+1, uint64(round)*7+8, items(t, uint64(round)*7+1, uint64(round)*7+8)...))
		finish(t, s, "ship1", lane(t, s, "ship1")...)
		if err := s.Audit(); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range ended {
		_, err := s.Sent(id)
		if kept := i >= len(ended)-history; kept != (err == nil) {
			t.Errorf("ended message %d of %d: %v", i, len(ended), err)
		}
	}
	for i, id := range open {
		if l, err := s.Sent(id); err != nil || l.State != message.StateAccepted {
			t.Errorf("waiting message %d: %+v, %v", i, l, err)
		}
	}
	sent, received, err := s.Ended()
	if err != nil || sent != history || received != history || s.Keys("received") != history {
		t.Errorf("%d, %d, %v", sent, received, err)
	}
}

func TestTrimmingKeepsUpWithLargeBatches(t *testing.T) {
	const n = 5000
	s := store(t, func(o *kvstore.Options) { o.History, o.MaxMessages = 10, 10*n })
	for range 3 {
		ids := accept(t, s, msgs("ship1", n)...)
		q := read(t, s, stream("ship1"))
		e := make([]kvstore.Settled, n)
		for i := range e {
			e[i] = kvstore.Settled{Seq: q[i].Seq, ID: ids[i], Code: message.CodeDone, At: time.Now()}
		}
		settle(t, s, stream("ship1"), e...)
	}
	if sent, _, err := s.Ended(); err != nil || sent > 100 {
		t.Errorf("%d ended lives are kept, %v", sent, err)
	}
}

func TestIDsOfOneStoreAreAllDifferent(t *testing.T) {
	s := store(t)
	seen := map[message.ID]bool{}
	for i := range 10_000 {
		var m message.Message
		if s.Stamp(&m); seen[m.ID] {
			t.Fatal(fmt.Sprint(i, m.ID))
		}
		seen[m.ID] = true
	}
}

func TestLifeOfARequestNamesTheFileOfItsReply(t *testing.T) {
	s := store(t)
	for file, want := range map[string]string{"answers/ship1/d.txt": "answers/ship1/d.txt", "": "", strings.Repeat("x", 5000): ""} {
		id, seq := request(t, s, "ship1")
		settle(t, s, stream("ship1"), kvstore.Settled{Seq: seq, ID: id, Code: message.CodeDone, Attempts: 1, At: time.Now(), WantsReply: true})
		result := message.Result{Code: message.CodeDone, Started: time.UnixMilli(5)}
		word := incoming(t, 1, message.Message{InReplyTo: id, RequestMethod: "REQCliCommand", Result: &result})
		take(t, s, arrival("ship1", uint64(time.Now().UnixNano()), 1, 1, 2, word))
		w := lane(t, s, "ship1")
		if err := s.Finish(stream("ship1"), 0, []kvstore.Finished{{Arrival: w[0].Arrival, Message: w[0].Message, Result: result, File: file}}); err != nil {
			t.Fatal(err)
		}
		if l, err := s.Sent(id); err != nil || l.File != want || l.State != message.StateDone {
			t.Errorf("a file name of %d bytes: %+v, %v", len(file), l, err)
		}
	}
}

func TestExitStatusAndStderrAreKeptOnBothSides(t *testing.T) {
	s := store(t)
	for exit, stderr := range map[int]string{3: "no such file", -1: "", 0: "a warning", 7: strings.Repeat("x", 5000)} {
		id, seq := request(t, s, "ship1")
		settle(t, s, stream("ship1"), kvstore.Settled{Seq: seq, ID: id, Code: message.CodeDone, Attempts: 1, At: time.Now(), WantsReply: true})
		result := message.Result{Code: message.CodeFailed, Text: "why", Exit: exit, Started: time.UnixMilli(5), Stderr: []byte(stderr), StderrSize: int64(len(stderr))}
		word := incoming(t, 1, message.Message{InReplyTo: id, RequestMethod: "REQCliCommand", Result: &result})
		take(t, s, arrival("ship1", uint64(time.Now().UnixNano()), 1, 1, 2, word))
		w := lane(t, s, "ship1")
		if err := s.Finish(stream("ship1"), 0, []kvstore.Finished{{Arrival: w[0].Arrival, Message: w[0].Message, Result: result}}); err != nil {
			t.Fatal(err)
		}
		want := max(0, exit) // none is none
		if len(stderr) > 1<<10 {
			stderr = stderr[:1<<10] + "…"
		}
		if l, err := s.Sent(id); err != nil || l.Exit != want || l.Stderr != stderr || l.Text != "why" {
			t.Errorf("exit %d: %+v, %v", exit, l, err)
		}
		if l, err := s.Received(w[0].Message.ID); err != nil || l.Exit != want || l.Stderr != stderr || l.Text != "why" {
			t.Errorf("exit %d: %+v, %v", exit, l, err)
		}
	}
}
