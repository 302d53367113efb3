package kvstore_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

func TestAcceptGivesIDsInTheOrderOfTheQueue(t *testing.T) {
	s := store(t)
	m := msgs("ship1", 5)
	before := time.Now().Truncate(time.Millisecond)
	ids := accept(t, s, m...)
	q := read(t, s, stream("ship1"))
	if len(q) != 5 {
		t.Fatalf("%d waiting", len(q))
	}
	for i := range q {
		got, err := wire.DecodeMessage(q[i].Message)
		if err != nil {
			t.Fatal(err)
		}
		if q[i].Seq != uint64(i)+1 || q[i].ID != ids[i] || m[i].ID != ids[i] || got.ID != ids[i] || got.Data[0] != fmt.Sprint(i) {
			t.Errorf("message %d: %+v, %+v", i, q[i], got)
		}
		if q[i].ACKTimeout != 5*time.Second || q[i].Retries != 3 || q[i].RetryWait != time.Second || q[i].TTL != time.Hour || q[i].WantsReply {
			t.Errorf("what the publisher sees of %d: %+v", i, q[i])
		}
		if m[i].From != "central" || m[i].Accepted.Before(before) || i > 0 && ids[i].String() <= ids[i-1].String() {
			t.Errorf("message %d: %+v", i, m[i])
		}
		if l, err := s.Sent(ids[i]); err != nil || l.State != message.StateAccepted || l.Peer != "ship1" || l.Method != "REQCliCommand" || l.Seq != uint64(i)+1 {
			t.Errorf("life %d: %+v, %v", i, l, err)
		}
	}
	infos, err := s.Streams()
	if err != nil || len(infos) != 1 || infos[0].First != 1 || infos[0].Next != 6 || infos[0].Count != 5 || infos[0].Stream != stream("ship1") || infos[0].Epoch == 0 {
		t.Errorf("%+v, %v", infos, err)
	}
}

func TestReadIsBoundedByNumberAndBytes(t *testing.T) {
	s := store(t)
	big := strings.Repeat("x", 1000)
	accept(t, s, msg("ship1", big), msg("ship1", big), msg("ship1", big), msg("ship1", big))
	for _, tt := range []struct {
		from    uint64
		n, size int
		want    []uint64
	}{
		{0, 100, 1 << 20, []uint64{1, 2, 3, 4}}, {1, 2, 1 << 20, []uint64{1, 2}}, {3, 9, 1 << 20, []uint64{3, 4}}, {5, 9, 1 << 20, nil},
		{0, 9, 2500, []uint64{1, 2}}, {0, 9, 1, []uint64{1}}, {2, 0, 1 << 20, nil}, {1 << 63, 9, 9, nil},
	} {
		_, q, err := s.Read(stream("ship1"), tt.from, tt.n, tt.size)
		var got []uint64
		for _, m := range q {
			got = append(got, m.Seq)
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("from %d, %d messages of %d bytes: %v, %v; want %v", tt.from, tt.n, tt.size, got, err, tt.want)
		}
	}
	info, q, err := s.Read(stream("nobody"), 0, 1, 1)
	if err != nil || len(q) != 0 || info.Count != 0 || info.Stream != stream("nobody") {
		t.Errorf("%+v, %v, %v", info, q, err)
	}
}

func TestFullRingTakesAllOrNothing(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxMessages = 10 })
	accept(t, s, msgs("ship1", 7)...)
	if ids, err := s.Accept(append(msgs("ship2", 3), msg("ship3"))); !errors.Is(err, kvstore.ErrFull) || ids != nil {
		t.Fatalf("%v, %v", ids, err)
	}
	if len(read(t, s, stream("ship2"))) != 0 {
		t.Error("a part of what was refused is there")
	}
	accept(t, s, msgs("ship2", 3)...)
	if _, err := s.Accept(msgs("ship2", 1)); !errors.Is(err, kvstore.ErrFull) || !strings.Contains(err.Error(), "10 of 10 messages") {
		t.Errorf("%v", err)
	}
	if _, err := s.AcceptOwn(msgs("ship2", 3)); err != nil {
		t.Errorf("the node's own messages have no room: %v", err)
	}
	if _, err := s.AcceptOwn(msgs("ship2", 1000)); !errors.Is(err, kvstore.ErrFull) {
		t.Errorf("the node's own messages have no bound: %v", err)
	}
	q := read(t, s, stream("ship1"))
	var done []kvstore.Settled
	for _, m := range q[:4] {
		done = append(done, kvstore.Settled{Seq: m.Seq, ID: m.ID, Code: message.CodeDone, Attempts: 1, At: time.Now()})
	}
	settle(t, s, stream("ship1"), done...)
	accept(t, s, msgs("ship3", 1)...)
	if n, _, err := s.Sizes(); err != nil || n != 10 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestFullRingIsFullByBytesToo(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxBytes = 10_000 })
	big := strings.Repeat("x", 3000)
	ids := accept(t, s, msg("ship1", big), msg("ship1", big), msg("ship1", big))
	if _, err := s.Accept([]message.Message{msg("ship1", big)}); !errors.Is(err, kvstore.ErrFull) {
		t.Fatalf("%v", err)
	}
	accept(t, s, msg("ship1", "small"))
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 2, ID: ids[1], Code: message.CodeDone, At: time.Now()})
	accept(t, s, msg("ship1", big))
	if q := read(t, s, stream("ship1")); len(q) != 4 || q[1].Seq != 3 || q[3].Seq != 5 {
		t.Errorf("%+v", q)
	}
}

func TestAcceptRefusesWhatCanNeverBeDelivered(t *testing.T) {
	s := store(t)
	for name, m := range map[string]message.Message{
		"a receiver that is no name":     {To: "a b", Method: "REQPing"},
		"no receiver":                    {Method: "REQPing"},
		"a method that is no name":       {To: "ship1", Method: "REQ.>"},
		"names that run together":        {To: "a\x00b", Method: "REQPing"},
		"more than a frame can hold":     {To: "ship1", Method: "REQPing", Body: make([]byte, wire.MaxFrame)},
		"a reply method that is no name": {To: "ship1", Method: "REQPing", ReplyMethod: "a b"},
	} {
		if ids, err := s.Accept([]message.Message{msg("ship1"), m}); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
	}
	if n, _, err := s.Sizes(); n != 0 || err != nil {
		t.Errorf("%d are there, %v", n, err)
	}
}

func TestSettlePassesOverWhatIsGone(t *testing.T) {
	s := store(t)
	ids := accept(t, s, msgs("ship1", 3)...)
	e := kvstore.Settled{Seq: 2, ID: ids[1], Code: message.CodeDone, Attempts: 1, At: time.Now()}
	settle(t, s, stream("ship1"), e, e)
	late := e
	late.Code, late.Text = message.CodeUnreachable, "late"
	settle(t, s, stream("ship1"), late, kvstore.Settled{Seq: 99, ID: ids[0], Code: message.CodeUnreachable, At: time.Now()})
	if l, err := s.Sent(ids[1]); err != nil || l.State != message.StateDone {
		t.Errorf("%+v, %v", l, err)
	}
	if d := deadLetters(t, s); len(d) != 0 {
		t.Errorf("%+v", d)
	}
	if n, _, _ := s.Sizes(); n != 2 {
		t.Errorf("%d", n)
	}
}

func TestEveryEndIsInTheLife(t *testing.T) {
	s := store(t)
	at := time.UnixMilli(1_700_000_000_000)
	for _, tt := range []struct {
		code   message.Code
		reply  bool
		state  message.State
		letter bool
	}{
		{message.CodeDone, false, message.StateDone, false}, {message.CodeDone, true, message.StateDelivered, false},
		{message.CodeUnreachable, true, message.StateFailed, true}, {message.CodeExpired, false, message.StateExpired, true},
		{message.CodeDenied, false, message.StateFailed, true}, {message.CodeRemoved, true, message.StateRemoved, true},
	} {
		letters := len(deadLetters(t, s))
		m := msg("ship1", "x")
		if tt.reply {
			m.ReplyMethod, m.ReplyACKTimeout = "REQToFile", time.Second
		}
		id := accept(t, s, m)[0]
		q := read(t, s, stream("ship1"))
		if len(q) != 1 || q[0].WantsReply != tt.reply {
			t.Fatalf("%+v", q)
		}
		settle(t, s, stream("ship1"), kvstore.Settled{Seq: q[0].Seq, ID: id, Code: tt.code, Text: "why", Attempts: 3, At: at, WantsReply: tt.reply})
		l, err := s.Sent(id)
		if err != nil || l.State != tt.state || l.Attempts != 3 || l.WantsReply != tt.reply || l.Ended.Equal(at) != tt.state.Final() ||
			l.Delivered.Equal(at) != (tt.code == message.CodeDone) || tt.letter && (l.Code != tt.code || l.Text != "why") {
			t.Errorf("%s: %+v, %v", tt.code, l, err)
		}
		if got := len(deadLetters(t, s)) > letters; got != tt.letter {
			t.Errorf("%s: dead letter %t", tt.code, got)
		}
	}
}

func TestDeadLettersHoldTheMessageAndTheReason(t *testing.T) {
	s := store(t)
	at := time.UnixMilli(1_700_000_000_000)
	m := msg("ship1", "rm", "-r")
	m.Directory, m.Headers = "a", map[string]string{"k": "v"}
	ids := accept(t, s, m, msg("ship1", "2"))
	long := strings.Repeat("é", 1<<20) + "\xff"
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 2, ID: ids[1], Code: message.CodeUnreachable, Text: long, Attempts: 4, At: at},
		kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeDenied, Text: "may not", Attempts: 1, At: at})
	d := deadLetters(t, s)
	if len(d) != 2 || d[0].Message.ID != ids[0] || d[0].Code != message.CodeDenied || d[0].Text != "may not" || d[0].Attempts != 1 || !d[0].At.Equal(at) {
		t.Fatalf("%+v", d)
	}
	if got := d[0].Message; got.To != "ship1" || got.From != "central" || got.Method != "REQCliCommand" || got.Data[1] != "-r" || got.Directory != "a" || got.Headers["k"] != "v" {
		t.Errorf("%+v", got)
	}
	if n := len(d[1].Text); n > 1100 || n < 1000 {
		t.Errorf("a reason of %d bytes", n)
	}
	n := 0
	if err := s.DeadLetters(func(kvstore.DeadLetter) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("goes on after false: %d, %v", n, err)
	}
}

func TestDeadLettersAreBoundedInBytes(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxBytes = 100_000 })
	var ids []message.ID
	for i := range 10 {
		id := accept(t, s, msg("ship1", strings.Repeat("x", 20_000)))[0]
		ids = append(ids, id)
		settle(t, s, stream("ship1"), kvstore.Settled{Seq: uint64(i) + 1, ID: id, Code: message.CodeUnreachable, At: time.Now()})
	}
	d := deadLetters(t, s)
	if len(d) < 3 || len(d) > 5 || d[len(d)-1].Message.ID != ids[9] {
		t.Errorf("%d letters are kept", len(d))
	}
}

func TestEveryOpenBeginsANewEpochAndKeepsTheQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	epochs := map[uint64]bool{}
	for range 3 {
		s := open(t, options(path))
		if len(epochs) == 0 {
			accept(t, s, msgs("ship1", 3)...)
		}
		info, queue, err := s.Read(stream("ship1"), 0, 9, 1<<20)
		if err != nil || info.Epoch == 0 || epochs[info.Epoch] || info.Next != 4 || len(queue) != 3 {
			t.Fatalf("%+v, %d messages, %v", info, len(queue), err)
		}
		epochs[info.Epoch] = true
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRemoveSaysWhatWasStillThereAndKeepsItAsADeadLetter(t *testing.T) {
	s := store(t)
	ids := accept(t, s, msgs("ship1", 3)...)
	end := func(i int, code message.Code) kvstore.Settled {
		return kvstore.Settled{Seq: uint64(i) + 1, ID: ids[i], Code: code, Text: "removed by central", At: time.Now()}
	}
	if err := <-s.Settle(stream("ship1"), []kvstore.Settled{end(0, message.CodeDone)}); err != nil {
		t.Fatal(err)
	}
	removed, err := s.Remove(stream("ship1"), []kvstore.Settled{end(0, message.CodeRemoved), end(1, message.CodeRemoved)})
	if err != nil || len(removed) != 1 || removed[0] != ids[1] {
		t.Fatalf("%v, %v", removed, err)
	}
	for i, want := range []message.State{message.StateDone, message.StateRemoved, message.StateAccepted} {
		if l, err := s.Sent(ids[i]); err != nil || l.State != want {
			t.Errorf("message %d: %+v, %v; want %s", i, l, err, want)
		}
	}
	if q := read(t, s, stream("ship1")); len(q) != 1 || q[0].ID != ids[2] {
		t.Errorf("waiting: %+v", q)
	}
	var dead []message.ID
	if err := s.DeadLetters(func(d kvstore.DeadLetter) bool {
		dead = append(dead, d.Message.ID)
		return d.Code == message.CodeRemoved
	}); err != nil {
		t.Fatal(err)
	}
	if len(dead) != 1 || dead[0] != ids[1] {
		t.Errorf("dead letters: %v", dead)
	}
	if n, _, err := s.Sizes(); n != 1 || err != nil {
		t.Errorf("%d messages on the ring, %v", n, err)
	}
}

func TestGivenUpReplyLeavesANotice(t *testing.T) {
	result := message.Result{Code: message.CodeFailed, Text: "no such file", Exit: 2, Stderr: []byte("cat: x"), StderrSize: 6, Started: time.UnixMilli(7), Attempt: 1}
	s := store(t, func(o *kvstore.Options) { o.MaxMessages = 1 })
	reply := msg("ship1", "argument")
	reply.Body, reply.Directory, reply.FileName, reply.ACKTimeout = []byte("output"), "dir", "file", 10*time.Millisecond
	reply.InReplyTo, reply.RequestMethod, reply.Part, reply.Headers = message.ID{1}, "REQCliCommand", 3, map[string]string{"a": "b"}
	part := reply
	reply.Result = &result
	var all []message.Message
	for range 33 { // as many as the ring has room for, with that for the node's own
		all = append(all, part, reply)
	}
	ids, err := s.AcceptOwn(all[:65])
	if err != nil {
		t.Fatal(err)
	}
	notices := kvstore.Stream{Peer: "ship1", Method: message.MethodNone}
	give := func(id kvstore.Stream, seq uint64, of message.ID, code message.Code) {
		t.Helper()
		settle(t, s, id, kvstore.Settled{Seq: seq, ID: of, Code: code, Text: "no ACK", Attempts: 2, At: time.Now()})
	}
	for i, id := range ids {
		give(stream("ship1"), uint64(i+1), id, message.CodeUnreachable)
	}
	q := read(t, s, notices)
	if len(q) != 32 || len(deadLetters(t, s)) != 65 {
		t.Fatalf("%d notices, %d dead letters", len(q), len(deadLetters(t, s)))
	}
	m, err := wire.DecodeMessage(q[0].Message)
	if err != nil {
		t.Fatal(err)
	}
	want := result
	want.Text = "no such file; its reply was given up: unreachable: no ACK"
	if m.InReplyTo != reply.InReplyTo || m.RequestMethod != "REQCliCommand" || m.Part != 3 || m.Headers["a"] != "b" || !reflect.DeepEqual(*m.Result, want) ||
		len(m.Body)+len(m.Data)+len(m.FileName) > 0 || m.WantsReply() || q[0].ACKTimeout != time.Second || q[0].Retries != 0 || q[0].TTL != 0 {
		t.Errorf("%+v\n%+v\n%+v", m, m.Result, q[0])
	}
	// A notice that is given up is the end.
	for i, code := range []message.Code{message.CodeDenied, message.CodeRemoved, message.CodeInvalid, message.CodeDone} {
		give(notices, q[i].Seq, q[i].ID, code)
	}
	if left := read(t, s, notices); len(left) != 28 {
		t.Errorf("%d notices are left", len(left))
	}
}
