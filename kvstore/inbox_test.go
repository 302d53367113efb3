package kvstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

func items(t fatal, first, end uint64) (out []kvstore.Item) {
	for seq := first; seq < end; seq++ {
		out = append(out, incoming(t, seq, message.Message{Data: []string{fmt.Sprint(seq)}}))
	}
	return out
}

func data(w []kvstore.Waiting) (out []string) {
	for _, m := range w {
		out = append(out, m.Message.Data[0])
	}
	return out
}

func TestFramesAreTakenOnceAndInOrder(t *testing.T) {
	s := store(t)
	all := items(t, 1, 10)
	frame := func(base, first, end uint64) kvstore.Arrival {
		return arrival("ship1", 7, base, first, end, all[first-1:end-1]...)
	}
	for _, tt := range []struct {
		a      kvstore.Arrival
		next   uint64
		gap    bool
		stored int
	}{
		{frame(1, 3, 5), 1, true, 0},  // overtook the first
		{frame(1, 1, 3), 3, false, 2}, // the first
		{frame(1, 1, 3), 3, false, 0}, // again
		{frame(1, 2, 5), 5, false, 2}, // a part of it again
		{frame(1, 6, 8), 5, true, 0},
		{frame(7, 7, 8), 8, false, 1}, // 5 and 6 were given up
		{frame(1, 1, 8), 8, false, 0}, // late
		{frame(8, 8, 8), 8, false, 0}, // asks only
		{frame(8, 8, 10), 10, false, 2},
	} {
		got := take(t, s, tt.a)
		if got.Next != tt.next || got.Gap != tt.gap || len(got.Stored) != tt.stored || got.Busy || len(got.Refused) != 0 {
			t.Errorf("%d..%d above %d: %+v, want %+v", tt.a.First, tt.a.End, tt.a.Base, got, tt)
		}
	}
	if got := data(lane(t, s, "ship1")); fmt.Sprint(got) != "[1 2 3 4 7 8 9]" {
		t.Errorf("%v", got)
	}
}

func TestRefusalsAreRepeatedUntilTheSenderKnows(t *testing.T) {
	s := store(t)
	all := items(t, 1, 6)
	all[1].Refuse, all[1].Text = message.CodeDenied, "may not\xff"
	all[3].Refuse, all[3].Text = message.CodeInvalid, strings.Repeat("x", 1<<20)
	got := take(t, s, arrival("ship1", 7, 1, 1, 6, all...))
	if got.Next != 6 || len(got.Stored) != 3 || len(got.Refused) != 2 || got.Refused[0].Seq != 2 || got.Refused[0].Text != "may not\uFFFD" ||
		got.Refused[1].Code != string(message.CodeInvalid) || len(got.Refused[1].Text) > 1100 {
		t.Fatalf("%+v", got)
	}
	for _, tt := range []struct {
		base uint64
		want []uint64
	}{{1, []uint64{2, 4}}, {2, []uint64{2, 4}}, {3, []uint64{4}}, {1, []uint64{4}}, {5, nil}} {
		got := take(t, s, arrival("ship1", 7, tt.base, tt.base, 6, all[tt.base-1:]...))
		var seqs []uint64
		for _, r := range got.Refused {
			seqs = append(seqs, r.Seq)
		}
		if !slices.Equal(seqs, tt.want) || got.Next != 6 || len(got.Stored) != 0 {
			t.Errorf("base %d: %+v, want %v", tt.base, got, tt.want)
		}
	}
	if _, err := s.Received(all[1].ID); err == nil {
		t.Error("what was refused has a life")
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	s := store(t)
	const n = kvstore.MaxRefused + 10
	all := make([]kvstore.Item, n)
	for i := range all {
		all[i] = kvstore.Item{Seq: uint64(i) + 1, Refuse: message.CodeDenied}
	}
	got := take(t, s, arrival("ship1", 7, 1, 1, n+1, all...))
	if !got.Busy || got.Next != kvstore.MaxRefused+1 || len(got.Refused) != kvstore.MaxRefused {
		t.Fatalf("next %d, busy %t, %d refused", got.Next, got.Busy, len(got.Refused))
	}
	got = take(t, s, arrival("ship1", 7, got.Next, got.Next, n+1, all[got.Next-1:]...))
	if got.Busy || got.Next != n+1 || len(got.Refused) != 10 {
		t.Errorf("next %d, busy %t, %d refused", got.Next, got.Busy, len(got.Refused))
	}
}

func TestFullLaneAsksToWait(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.LaneMessages = 3; o.LaneBytes = 100_000 })
	all := items(t, 1, 6)
	got := take(t, s, arrival("ship1", 7, 1, 1, 6, all...))
	if !got.Busy || got.Next != 4 || len(got.Stored) != 3 {
		t.Fatalf("%+v", got)
	}
	if other := take(t, s, arrival("ship2", 7, 1, 1, 2, items(t, 1, 2)...)); other.Busy || len(other.Stored) != 1 {
		t.Errorf("another sender has to wait: %+v", other)
	}
	if got = take(t, s, arrival("ship1", 7, 4, 4, 6, all[3:]...)); !got.Busy || got.Next != 4 || len(got.Stored) != 0 {
		t.Fatalf("%+v", got)
	}
	finish(t, s, "ship1", lane(t, s, "ship1")[:2]...)
	if got = take(t, s, arrival("ship1", 7, 4, 4, 6, all[3:]...)); got.Busy || got.Next != 6 || len(got.Stored) != 2 {
		t.Fatalf("%+v", got)
	}
	if got := data(lane(t, s, "ship1")); fmt.Sprint(got) != "[3 4 5]" {
		t.Errorf("%v", got)
	}
	// One message that alone is larger than a lane still comes through.
	big := incoming(t, 1, message.Message{Data: []string{strings.Repeat("x", 200_000)}})
	big2 := incoming(t, 2, message.Message{Data: []string{"small"}})
	if got := take(t, s, arrival("ship3", 7, 1, 1, 3, big, big2)); !got.Busy || got.Next != 2 || len(got.Stored) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestNewEpochBeginsAtItsBaseAndRunsNothingAgain(t *testing.T) {
	s := store(t)
	all := items(t, 1, 4)
	take(t, s, arrival("ship1", 7, 1, 1, 4, all...))
	finish(t, s, "ship1", lane(t, s, "ship1")...)
	if got := take(t, s, arrival("ship1", 8, 2, 2, 4, all[1:]...)); got.Next != 4 || len(got.Stored) != 0 {
		t.Errorf("the same messages in a new epoch: %+v", got)
	}
	fresh := incoming(t, 4, message.Message{Data: []string{"fresh"}})
	if got := take(t, s, arrival("ship1", 8, 4, 4, 5, fresh)); got.Next != 5 || len(got.Stored) != 1 {
		t.Errorf("%+v", got)
	}
	if got := take(t, s, arrival("ship1", 9, 5, 7, 8, incoming(t, 7, message.Message{Data: []string{"7"}}))); !got.Gap || got.Next != 5 {
		t.Errorf("an epoch that begins with a gap: %+v", got)
	}
}

func TestSameIDFromAnotherSenderIsAnotherMessage(t *testing.T) {
	s := store(t)
	it := incoming(t, 1, message.Message{Data: []string{"x"}})
	for _, from := range []message.Node{"ship1", "ship2"} {
		if got := take(t, s, arrival(from, 7, 1, 1, 2, it)); len(got.Stored) != 1 {
			t.Errorf("from %s: %+v", from, got)
		}
		finish(t, s, from, lane(t, s, from)...)
	}
}

// Whoever comes first: nobody has the message of another forgotten, which would end it at its sender, or
// have it run again.
func TestIDOfAnotherSendersMessageForgetsNothing(t *testing.T) {
	s := store(t)
	it := incoming(t, 1, message.Message{Data: []string{"x"}})
	both := []message.Node{"ship1", "ship2"}
	all := func(what string) {
		t.Helper()
		for _, from := range both {
			fates, err := s.Known(from, []message.ID{it.ID})
			if err != nil || slices.ContainsFunc(fates, func(f kvstore.Fate) bool { return f.Code == "" }) {
				t.Errorf("%s: that of %s is forgotten: %+v, %v", what, from, fates, err)
			}
		}
	}
	for _, from := range both {
		take(t, s, arrival(from, 7, 1, 1, 2, it))
	}
	all("both wait")
	for epoch, from := range both {
		finish(t, s, from, lane(t, s, from)...)
		all("after the end of that of " + string(from))
		for _, from := range both {
			if got := take(t, s, arrival(from, uint64(8+epoch), 1, 1, 2, it)); len(got.Stored) != 0 {
				t.Errorf("in a new epoch that of %s is taken again: %+v", from, got)
			}
		}
	}
}

func TestFramesOfAnOlderEpochAreNotTaken(t *testing.T) {
	s := store(t)
	all := items(t, 1, 4)
	take(t, s, arrival("ship1", 8, 2, 2, 3, all[1]))
	late := take(t, s, arrival("ship1", 7, 1, 1, 4, all...))
	if late.Newer != 8 || late.Next != 0 || len(late.Stored) != 0 {
		t.Errorf("a late frame: %+v", late)
	}
	if got := take(t, s, arrival("ship1", 8, 2, 3, 4, all[2])); got.Next != 4 || len(got.Stored) != 1 || got.Newer != 0 {
		t.Errorf("the newer epoch goes on: %+v", got)
	}
	if got := s.Keys("pos"); got != 1 {
		t.Errorf("%d positions of one stream", got)
	}
}

func TestBeginCountsOnlyInAnEmptyLane(t *testing.T) {
	s := store(t)
	all := items(t, 1, 6)
	a := arrival("ship1", 7, 1, 1, 4, all[:3]...)
	a.Begin = &kvstore.Begin{All: true, Undo: []byte("cut at 7")}
	got := take(t, s, a)
	w := lane(t, s, "ship1")
	if got.Begun != w[0].Arrival || w[0].Mark == nil || w[0].Mark.Last != w[2].Arrival || w[0].Mark.Attempt != 1 || string(w[0].Mark.Undo) != "cut at 7" ||
		w[1].Mark != nil || time.Since(w[0].Mark.Started) > time.Minute {
		t.Fatalf("%+v, %+v", got, w[0].Mark)
	}
	a = arrival("ship1", 7, 1, 4, 6, all[3:]...)
	a.Begin = &kvstore.Begin{}
	if got := take(t, s, a); got.Begun != 0 {
		t.Errorf("a lane with work: %+v", got)
	}
	if err := s.Finish(stream("ship1"), w[0].Arrival, []kvstore.Finished{{Arrival: w[0].Arrival, Message: w[0].Message, Result: message.Result{Code: message.CodeDone}}}); err != nil {
		t.Fatal(err)
	}
	if n := s.Keys("running"); n != 0 {
		t.Errorf("%d marks are left", n)
	}
	finish(t, s, "ship1", lane(t, s, "ship1")...)
	a = arrival("ship1", 7, 6, 6, 7, items(t, 6, 7)...)
	a.Begin = &kvstore.Begin{}
	got = take(t, s, a)
	if w := lane(t, s, "ship1"); len(w) != 1 || got.Begun != w[0].Arrival || w[0].Mark == nil || w[0].Mark.Last != w[0].Arrival {
		t.Errorf("%+v, %+v", got, w)
	}
	a = arrival("ship2", 7, 1, 1, 2, kvstore.Item{Seq: 1, Refuse: message.CodeDenied})
	a.Begin = &kvstore.Begin{}
	if got := take(t, s, a); got.Begun != 0 {
		t.Errorf("nothing was stored: %+v", got)
	}
}

func TestReadLaneIsBoundedAndGoesOn(t *testing.T) {
	s := store(t)
	take(t, s, arrival("ship1", 7, 1, 1, 6, items(t, 1, 6)...))
	w, err := s.ReadLane(stream("ship1"), 0, 2, 1<<20)
	if err != nil || fmt.Sprint(data(w)) != "[1 2]" {
		t.Fatalf("%v, %v", data(w), err)
	}
	if w, err = s.ReadLane(stream("ship1"), w[1].Arrival, 99, 1<<20); err != nil || fmt.Sprint(data(w)) != "[3 4 5]" {
		t.Errorf("%v, %v", data(w), err)
	}
	if w, err = s.ReadLane(stream("ship1"), 0, 99, 1); err != nil || fmt.Sprint(data(w)) != "[1]" {
		t.Errorf("%v, %v", data(w), err)
	}
	if w[0].Message.From != "ship1" || w[0].Message.To != "central" || w[0].Message.Method != "REQCliCommand" || !w[0].Accepted.Equal(time.UnixMilli(1_700_000_000_000)) {
		t.Errorf("%+v", w[0])
	}
	if w, err = s.ReadLane(stream("nobody"), 0, 99, 1<<20); err != nil || len(w) != 0 {
		t.Errorf("%v, %v", w, err)
	}
}

func TestFinishPutsRepliesOnTheRingOnce(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxMessages = 1 })
	take(t, s, arrival("ship1", 7, 1, 1, 3, items(t, 1, 3)...))
	w := lane(t, s, "ship1")
	reply := msg("ship1", "out")
	reply.InReplyTo, reply.RequestMethod, reply.Result = w[0].Message.ID, "REQCliCommand", &message.Result{Code: message.CodeDone}
	started := time.UnixMilli(1_700_000_000_000)
	done := []kvstore.Finished{
		{Arrival: w[0].Arrival, Message: w[0].Message, Result: message.Result{Code: message.CodeDone, Attempt: 2, Started: started}, Reply: &reply},
		{Arrival: w[1].Arrival, Message: w[1].Message, Result: message.Result{Code: message.CodeTimeout, Text: "too long", Attempt: 1}},
	}
	for range 3 {
		if err := s.Finish(stream("ship1"), w[0].Arrival, done); err != nil {
			t.Fatal(err)
		}
	}
	if q := read(t, s, stream("ship1")); len(q) != 1 {
		t.Errorf("%d replies", len(q))
	}
	if len(lane(t, s, "ship1")) != 0 {
		t.Error("the lane is not empty")
	}
	l, err := s.Received(w[0].Message.ID)
	if err != nil || l.State != message.StateDone || l.Attempts != 2 || !l.Started.Equal(started) || l.Ended.IsZero() || l.Peer != "ship1" {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err = s.Received(w[1].Message.ID); err != nil || l.State != message.StateFailed || l.Code != message.CodeTimeout || l.Text != "too long" {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestPartAndNoteAreOnDiskTogetherOrNotAtAll(t *testing.T) {
	s := store(t, func(o *kvstore.Options) { o.MaxMessages = 2 })
	take(t, s, arrival("ship1", 7, 1, 1, 2, items(t, 1, 2)...))
	w := lane(t, s, "ship1")[0]
	id := stream("ship1")
	var parts uint32
	for i := range 3 {
		mark := kvstore.Mark{Last: w.Arrival, Attempt: 1, Started: time.UnixMilli(1_700_000_000_000), Undo: []byte{byte(i)}, Parts: uint32(i + 1)}
		_, err := s.AcceptNoting(msg("ship1", "part"), id, w.Arrival, mark)
		if full := i == 2; full != errors.Is(err, kvstore.ErrFull) || !full && err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
		if err == nil {
			parts++
		}
		got := lane(t, s, "ship1")[0].Mark
		if got == nil || got.Parts != parts || got.Undo[0] != byte(parts-1) || !got.Started.Equal(mark.Started) {
			t.Errorf("after part %d the mark is %+v", i, got)
		}
		if n := len(read(t, s, id)); n != int(parts) {
			t.Errorf("after part %d there are %d", i, n)
		}
	}
	finish(t, s, "ship1", w)
}
