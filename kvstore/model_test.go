package kvstore_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"

	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// model is what a store has to be like, in the simplest way.
type model struct {
	s     *kvstore.Store
	o     kvstore.Options
	n     int
	out   map[kvstore.Stream]*modelStream
	in    map[kvstore.Stream]*modelLane
	sent  map[message.ID]message.State
	recv  map[message.ID]message.State
	dead  map[message.ID]message.Code
	marks map[string]kvstore.Mark
	// epochs: all streams of one open store are in the same.
	epochs map[*kvstore.Store]uint64
}

type modelStream struct {
	next  uint64
	queue []modelOut
}

type modelOut struct {
	seq, size uint64
	origin    uint64 // bytes of the size
	id        message.ID
	reply     bool
	answers   bool // it is the reply itself
}

// modelLane is a lane and the other node that sends to it.
type modelLane struct {
	next  uint64 // arrival number of the last message
	queue []modelIn
	epoch uint64 // the highest that was seen
	pos   *modelPos
	// What the sender has, by epoch: position i is sequence number i+1.
	sender map[uint64][]kvstore.Item
}

type modelPos struct {
	next    uint64
	refused []uint64
}

type modelIn struct {
	arrival uint64
	id      message.ID
}

var (
	peers  = []message.Node{"ship1", "ship2", "ww.ship.3"}
	epochs = []uint64{11, 12, 13}
)

func newModel(t *rapid.T, path string) *model {
	o := kvstore.Options{Path: path, Self: "central", MaxMessages: 40, MaxBytes: 1 << 30, LaneMessages: 12, LaneBytes: 1 << 20}
	return &model{s: open(t, o), o: o, out: map[kvstore.Stream]*modelStream{}, in: map[kvstore.Stream]*modelLane{},
		sent: map[message.ID]message.State{}, recv: map[message.ID]message.State{}, dead: map[message.ID]message.Code{}, marks: map[string]kvstore.Mark{}, epochs: map[*kvstore.Store]uint64{}}
}

func (m *model) waiting() (n int) {
	for _, st := range m.out {
		n += len(st.queue)
	}
	return n
}

func (m *model) stream(id kvstore.Stream) *modelStream {
	if m.out[id] == nil {
		m.out[id] = &modelStream{next: 1}
	}
	return m.out[id]
}

func (m *model) lane(id kvstore.Stream) *modelLane {
	if m.in[id] == nil {
		m.in[id] = &modelLane{sender: map[uint64][]kvstore.Item{}}
	}
	return m.in[id]
}

func (m *model) push(t fatal, msg *message.Message) {
	raw, err := wire.EncodeMessage(msg)
	if err != nil {
		t.Fatal(err)
	}
	st := m.stream(kvstore.Stream{Peer: msg.To, Method: msg.Method})
	origin := uint64(len(msg.Origin))
	if origin > 0 {
		origin++ // its length
	}
	st.queue = append(st.queue, modelOut{st.next, uint64(len(raw)) + kvstore.OutHead + origin, origin, msg.ID, msg.AwaitsReply(), msg.IsReply()})
	st.next++
	m.sent[msg.ID] = message.StateAccepted
}

func anyPeer(t *rapid.T) kvstore.Stream { return stream(rapid.SampledFrom(peers).Draw(t, "peer")) }

func (m *model) accept(t *rapid.T) {
	own := rapid.Bool().Draw(t, "own")
	batch := make([]message.Message, rapid.IntRange(1, 15).Draw(t, "n"))
	for i := range batch {
		m.n++
		batch[i] = msg(rapid.SampledFrom(peers).Draw(t, "to"), fmt.Sprint(m.n))
		if rapid.Bool().Draw(t, "wants reply") {
			batch[i].ReplyMethod, batch[i].ReplyACKTimeout = "REQToFile", time.Second
		}
	}
	most, f := int(m.o.MaxMessages), m.s.Accept
	if own {
		most, f = most+most/8+64, m.s.AcceptOwn
	}
	ids, err := f(batch)
	if m.waiting()+len(batch) > most {
		if !errors.Is(err, kvstore.ErrFull) {
			t.Fatalf("a full ring takes %v, %v", ids, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		if ids[i] != batch[i].ID || m.sent[ids[i]] != "" {
			t.Fatalf("id %d is %s", i, ids[i])
		}
		m.push(t, &batch[i])
	}
}

func (m *model) read(t *rapid.T) {
	id := anyPeer(t)
	from, n := rapid.Uint64Range(0, 60).Draw(t, "from"), rapid.IntRange(0, 20).Draw(t, "n")
	_, got, err := m.s.Read(id, from, n, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var want []modelOut
	if st := m.out[id]; st != nil {
		for _, q := range st.queue {
			if q.seq >= from && len(want) < n {
				want = append(want, q)
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d read, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Seq != want[i].seq || got[i].ID != want[i].id || uint64(len(got[i].Message))+kvstore.OutHead+want[i].origin != want[i].size || got[i].WantsReply != want[i].reply {
			t.Fatalf("%+v, want %+v", got[i], want[i])
		}
	}
}

func (m *model) settle(t *rapid.T) {
	id := anyPeer(t)
	if rapid.IntRange(0, 3).Draw(t, "notices") == 0 {
		id.Method = message.MethodNone
	}
	notices := 0 // that replies were given up
	st := m.out[id]
	if st == nil {
		return
	}
	var ends []kvstore.Settled
	for range rapid.IntRange(1, 10).Draw(t, "n") {
		e := kvstore.Settled{Seq: rapid.Uint64Range(max(st.next, 20)-20, st.next+1).Draw(t, "seq"), Attempts: 1, At: time.Now(),
			Code: rapid.SampledFrom([]message.Code{message.CodeDone, message.CodeDone, message.CodeUnreachable, message.CodeExpired}).Draw(t, "code")}
		i := slices.IndexFunc(st.queue, func(q modelOut) bool { return q.seq == e.Seq })
		if i >= 0 {
			q := st.queue[i]
			e.ID, e.WantsReply = q.id, q.reply
			st.queue = slices.Delete(st.queue, i, i+1)
			switch {
			case e.Code != message.CodeDone:
				if q.answers && id.Method != message.MethodNone {
					notices++
				}
				m.dead[q.id], m.sent[q.id] = e.Code, message.EndOf(e.Code)
			case q.reply:
				m.sent[q.id] = message.StateDelivered
			default:
				m.sent[q.id] = message.StateDone
			}
		}
		ends = append(ends, e)
	}
	if err := <-m.s.Settle(id, ends); err != nil {
		t.Fatal(err)
	}
	if notices == 0 {
		return
	}
	id.Method = message.MethodNone
	_, q, err := m.s.Read(id, m.stream(id).next, 1000, 1<<30)
	if err != nil || len(q) != notices {
		t.Fatalf("%d notices, %v; want %d", len(q), err, notices)
	}
	for i := range q {
		notice, err := wire.DecodeMessage(q[i].Message)
		if err != nil || notice.Result == nil || notice.Retries != 0 {
			t.Fatalf("%+v, %v", notice, err)
		}
		notice.To, notice.Method = id.Peer, id.Method
		m.push(t, notice)
	}
}

// frame makes a frame of what the other node has, with all the faults a link and a sender have.
// letters are some of the dead letters, in any order.
func (m *model) letters(t *rapid.T) (ids []message.ID, letters []kvstore.DeadLetter) {
	all := deadLetters(t, m.s)
	if len(all) == 0 {
		return nil, nil
	}
	letters = rapid.Permutation(all).Draw(t, "letters")
	letters = letters[:rapid.IntRange(1, min(10, len(letters))).Draw(t, "n")]
	for _, d := range letters {
		ids = append(ids, d.Message.ID)
	}
	return ids, letters
}

func (m *model) retry(t *rapid.T) {
	ids, letters := m.letters(t)
	retried, rest, err := m.s.Retry(ids)
	if m.waiting()+len(ids) > int(m.o.MaxMessages) && len(ids) > 0 {
		if !errors.Is(err, kvstore.ErrFull) {
			t.Fatalf("a full ring takes %v, %v", retried, err)
		}
		return
	}
	if err != nil || len(rest) > 0 || len(retried) != len(ids) {
		t.Fatalf("%v, rest %v, %v; want %v", retried, rest, err, ids)
	}
	for i, r := range retried {
		again := letters[i].Message
		if r.Old != ids[i] || r.Peer != again.To || m.sent[r.New] != "" {
			t.Fatalf("%+v; want %s", r, ids[i])
		}
		delete(m.dead, r.Old)
		again.ID, again.Origin = r.New, "retry of "+r.Old.String()
		m.push(t, again)
	}
}

func (m *model) forget(t *rapid.T) {
	ids, _ := m.letters(t)
	gone, err := m.s.Forget(ids)
	if err != nil || !slices.Equal(gone, ids) {
		t.Fatalf("%v, %v; want %v", gone, err, ids)
	}
	for _, id := range ids {
		delete(m.dead, id)
	}
}

func (m *model) frame(t *rapid.T) kvstore.Arrival {
	id := anyPeer(t)
	l := m.lane(id)
	epoch := rapid.SampledFrom(epochs).Draw(t, "epoch")
	all := l.sender[epoch]
	for range rapid.IntRange(0, 6).Draw(t, "new") {
		m.n++
		it := incoming(t, uint64(len(all))+1, message.Message{Data: []string{fmt.Sprint(m.n)}, ID: message.NewID(time.Now(), uint32(m.n), 4711)})
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			it.Refuse, it.Text = message.CodeDenied, "no"
		case 1:
			it.ID = message.ID{} // given up before it was sent
		case 2: // sent before, in another epoch
			if other := l.sender[rapid.SampledFrom(epochs).Draw(t, "other")]; len(other) > 0 {
				seq := it.Seq
				if it = rapid.SampledFrom(other).Draw(t, "again"); it.Refuse == "" {
					it.Seq = seq
				} else {
					it = kvstore.Item{Seq: seq}
				}
			}
		}
		all = append(all, it)
	}
	l.sender[epoch] = all
	end := uint64(len(all)) + 1
	lo := max(end, 12) - 11
	base := rapid.Uint64Range(lo, end).Draw(t, "base")
	first := rapid.Uint64Range(base, end).Draw(t, "first")
	last := rapid.Uint64Range(first, end).Draw(t, "end")
	a := kvstore.Arrival{Stream: id, Epoch: epoch, Base: base, First: first, End: last}
	for _, it := range all[first-1 : last-1] {
		if !it.ID.IsZero() {
			a.Items = append(a.Items, it)
		}
	}
	if rapid.Bool().Draw(t, "begin") {
		a.Begin = &kvstore.Begin{All: rapid.Bool().Draw(t, "all"), Undo: []byte("undo")}
	}
	if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
		a.Most = &kvstore.Load{Messages: rapid.Int64Range(0, 4).Draw(t, "messages"), Bytes: rapid.Int64Range(0, 200).Draw(t, "bytes")}
	}
	return a
}

// expect is what taking a frame has to do.
func (m *model) expect(a *kvstore.Arrival) (want kvstore.Taken) {
	l := m.lane(a.Stream)
	if a.Epoch < l.epoch {
		return kvstore.Taken{Newer: l.epoch}
	}
	if a.Epoch > l.epoch {
		l.epoch, l.pos = a.Epoch, &modelPos{next: a.Base}
	}
	pos := l.pos
	pos.next = max(pos.next, a.Base)
	pos.refused = slices.DeleteFunc(pos.refused, func(n uint64) bool { return n < a.Base })
	empty := len(l.queue) == 0
	var first, last uint64
	if want.Gap = a.First > pos.next; !want.Gap && a.End > pos.next {
		next := a.End
		for _, it := range a.Items {
			if it.Seq < pos.next {
				continue
			}
			if it.Refuse != "" {
				pos.refused = append(pos.refused, it.Seq)
				continue
			}
			if m.recv[it.ID] != "" {
				continue
			}
			if a.Most != nil && (int64(len(want.Stored)) >= a.Most.Messages || want.Bytes >= a.Most.Bytes) {
				want.Busy, next = true, it.Seq
				break
			}
			if len(l.queue) >= int(m.o.LaneMessages) {
				want.Busy, next = true, it.Seq
				break
			}
			l.next++
			if first == 0 {
				first = l.next
			}
			last = l.next
			l.queue = append(l.queue, modelIn{l.next, it.ID})
			m.recv[it.ID] = message.StateReceived
			want.Stored = append(want.Stored, it.ID)
			want.Bytes += int64(len(it.Message))
		}
		pos.next = next
	}
	want.Next = pos.next
	for _, n := range pos.refused {
		want.Refused = append(want.Refused, kvstore.Refused{Seq: n, Code: string(message.CodeDenied), Text: "no"})
	}
	if a.Begin != nil && empty && first != 0 {
		if !a.Begin.All {
			last = first
		}
		want.Begun = first
		m.marks[fmt.Sprint(a.Stream, first)] = kvstore.Mark{Last: last, Attempt: 1, Undo: a.Begin.Undo}
	}
	return want
}

func (m *model) take(t *rapid.T) {
	arrivals := make([]kvstore.Arrival, rapid.IntRange(1, 3).Draw(t, "frames"))
	var want []kvstore.Taken
	for i := range arrivals {
		arrivals[i] = m.frame(t)
		want = append(want, m.expect(&arrivals[i]))
	}
	got, err := m.s.Take(arrivals)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

func (m *model) begin(t *rapid.T) {
	id := anyPeer(t)
	l := m.lane(id)
	if len(l.queue) == 0 {
		return
	}
	q := rapid.SampledFrom(l.queue).Draw(t, "message")
	mark := kvstore.Mark{Last: q.arrival, Attempt: rapid.IntRange(1, 5).Draw(t, "attempt"), Started: time.UnixMilli(5)}
	if err := m.s.Begin(id, q.arrival, mark); err != nil {
		t.Fatal(err)
	}
	m.marks[fmt.Sprint(id, q.arrival)] = mark
}

func (m *model) finish(t *rapid.T) {
	id := anyPeer(t)
	l := m.lane(id)
	waiting := lane(t, m.s, id.Peer)
	if len(waiting) == 0 {
		return
	}
	var done []kvstore.Finished
	var replies []*message.Message
	for _, w := range waiting {
		if !rapid.Bool().Draw(t, "done") {
			continue
		}
		f := kvstore.Finished{Arrival: w.Arrival, Message: w.Message, Result: message.Result{Code: rapid.SampledFrom([]message.Code{message.CodeDone, message.CodeFailed}).Draw(t, "code"), Attempt: 1}}
		if rapid.Bool().Draw(t, "reply") {
			r := msg(id.Peer, "reply")
			r.InReplyTo, r.RequestMethod, r.Result = w.Message.ID, w.Message.Method, &f.Result
			f.Reply = &r
			replies = append(replies, &r)
		}
		done = append(done, f)
	}
	if len(done) == 0 {
		return
	}
	mark := done[0].Arrival
	err := m.s.Finish(id, mark, done)
	if len(replies) > 0 && m.waiting()+len(replies) > int(m.o.MaxMessages+m.o.MaxMessages/8+64) {
		if !errors.Is(err, kvstore.ErrFull) {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(m.marks, fmt.Sprint(id, mark))
	for _, f := range done {
		i := slices.IndexFunc(l.queue, func(q modelIn) bool { return q.arrival == f.Arrival })
		m.recv[l.queue[i].id] = message.EndOf(f.Result.Code)
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	if len(replies) == 0 {
		return
	}
	// The ids of the replies are known to the store only.
	_, q, err := m.s.Read(id, m.stream(id).next, 1000, 1<<30)
	if err != nil || len(q) != len(replies) {
		t.Fatalf("%d replies, %v; want %d", len(q), err, len(replies))
	}
	for i, r := range replies {
		r.ID = q[i].ID
		m.push(t, r)
	}
	// And again, as after an answer that was lost: nothing happens.
	if err := m.s.Finish(id, mark, done); err != nil {
		t.Fatal(err)
	}
}

func (m *model) reopen(t *rapid.T) {
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	m.s = open(t, m.o)
}

// crash looks at what a crash at this moment would leave.
func (m *model) crash(t *rapid.T) {
	live, path := m.s, m.o.Path
	m.o.Path += ".crash"
	copyFile(t, path, m.o.Path)
	m.s = open(t, m.o)
	m.check(t)
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	m.s, m.o.Path = live, path
}

// check compares all of the store with the model.
func (m *model) check(t *rapid.T) {
	if err := m.s.Audit(); err != nil {
		t.Fatal(err)
	}
	var bytes uint64
	var streams []string
	for id, st := range m.out {
		info, got, err := m.s.Read(id, 0, 1<<20, 1<<30)
		if err != nil || info.Next != st.next || len(got) != len(st.queue) || info.Count != uint64(len(st.queue)) {
			t.Fatalf("%v: %+v, %d waiting, %v; want %+v", id, info, len(got), err, st)
		}
		if m.epochs[m.s] == 0 {
			m.epochs[m.s] = info.Epoch
		}
		first := st.next
		var size uint64
		for i, q := range st.queue {
			if i == 0 {
				first = q.seq
			}
			if got[i].Seq != q.seq || got[i].ID != q.id {
				t.Fatalf("%v: %+v, want %+v", id, got[i], q)
			}
			size += q.size
		}
		if info.Epoch != m.epochs[m.s] || info.First != first || info.Bytes != size {
			t.Fatalf("%v: %+v, want %+v, first %d, %d bytes", id, info, st, first, size)
		}
		bytes += size
		if len(st.queue) > 0 {
			streams = append(streams, fmt.Sprint(id))
		}
	}
	infos, err := m.s.Streams()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, info := range infos {
		got = append(got, fmt.Sprint(info.Stream))
	}
	if sort.Strings(streams); fmt.Sprint(got) != fmt.Sprint(streams) {
		t.Fatalf("streams %v, want %v", got, streams)
	}
	if n, b, err := m.s.Sizes(); err != nil || n != int64(m.waiting()) || b != int64(bytes) {
		t.Fatalf("%d messages, %d bytes, %v; want %d, %d", n, b, err, m.waiting(), bytes)
	}
	m.checkLanes(t)
	for bucket, want := range map[string]map[message.ID]message.State{"sent": m.sent, "received": m.recv} {
		if n := m.s.Keys(bucket); n != len(want) {
			t.Fatalf("%d lives in %s, want %d", n, bucket, len(want))
		}
		look := m.s.Sent
		if bucket == "received" {
			look = m.s.Received
		}
		for id, state := range want {
			if l, err := look(id); err != nil || l.State != state || l.ID != id {
				t.Fatalf("%s %s: %+v, %v; want %s", bucket, id, l, err, state)
			}
		}
	}
	letters := deadLetters(t, m.s)
	for _, d := range letters {
		if m.dead[d.Message.ID] != d.Code {
			t.Fatalf("%+v, want %q", d, m.dead[d.Message.ID])
		}
	}
	if len(letters) != len(m.dead) {
		t.Fatalf("%d dead letters, want %d", len(letters), len(m.dead))
	}
}

func (m *model) checkLanes(t *rapid.T) {
	var want []string
	for id, l := range m.in {
		got := lane(t, m.s, id.Peer)
		if len(got) != len(l.queue) {
			t.Fatalf("%v: %d waiting, want %d", id, len(got), len(l.queue))
		}
		for i, q := range l.queue {
			w := got[i]
			if w.Arrival != q.arrival || w.Message.ID != q.id || w.Message.From != id.Peer || w.Message.To != "central" || w.Message.Method != id.Method {
				t.Fatalf("%v: %+v, want %+v", id, w, q)
			}
			mark, ok := m.marks[fmt.Sprint(id, q.arrival)]
			if ok != (w.Mark != nil) || ok && (w.Mark.Last != mark.Last || w.Mark.Attempt != mark.Attempt || string(w.Mark.Undo) != string(mark.Undo)) {
				t.Fatalf("%v %d: mark %+v, want %+v", id, q.arrival, w.Mark, mark)
			}
		}
		if len(l.queue) > 0 {
			want = append(want, fmt.Sprint(id))
		}
	}
	lanes, err := m.s.Lanes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range lanes {
		got = append(got, fmt.Sprint(id))
	}
	if sort.Strings(want); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("lanes %v, want %v", got, want)
	}
}

func TestStoreDoesWhatItsModelDoes(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := newModel(t, filepath.Join(dir, fmt.Sprint(run)))
		defer func() { _ = m.s.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"accept": m.accept, "read": m.read, "settle": m.settle, "settle more": m.settle, "take": m.take, "take more": m.take,
			"begin": m.begin, "finish": m.finish, "retry": m.retry, "forget": m.forget, "reopen": m.reopen, "crash": m.crash, "": m.check,
		})
	})
}
