package kvstore_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

var update = flag.Bool("update", false, "write the golden file of this version anew")

// Files of earlier versions are never made anew: they are what that version wrote.
const (
	golden1 = "testdata/steward-v1.db.gz"   // lives and inbox records of the first version
	golden2 = "testdata/steward-v1.2.db.gz" // and of the second, schedules, bad ends that were not told
	golden3 = "testdata/steward-v2.db.gz"   // origins of outgoing messages
	golden4 = "testdata/steward-v2.2.db.gz" // and requests by the node from which a reply is awaited
)

// writeGolden makes a file with a record of every kind that this version writes.
func writeGolden(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "steward.db")
	s := open(t, options(path))
	m := msg("ship1", "/bin/echo", "hello")
	m.ReplyMethod, m.ReplyACKTimeout = "REQToFile", time.Second
	local := m
	local.Origin = "socket uid=1000 pid=42"
	ids := accept(t, s, m, m, m, local)
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeDone, Attempts: 2, At: time.UnixMilli(1_700_000_000_000), WantsReply: true},
		kvstore.Settled{Seq: 2, ID: ids[1], Code: message.CodeUnreachable, Text: "no ACK", Attempts: 3, At: time.UnixMilli(1_700_000_000_000), WantsReply: true, Untold: []byte("bad end")})
	in := []kvstore.Item{incoming(t, 1, message.Message{Data: []string{"1"}, Schedule: &message.Schedule{Every: time.Minute, For: message.Forever}}),
		incoming(t, 2, message.Message{Data: []string{"2"}, Schedule: &message.Schedule{Every: time.Minute, For: message.Forever}}), incoming(t, 3, message.Message{Data: []string{"3"}})}
	a := arrival("ww.ship2", 7, 1, 1, 4, in...)
	take(t, s, a)
	w := lane(t, s, "ww.ship2")
	first := time.UnixMilli(1_700_000_000_000)
	var done []kvstore.Finished
	for i, w := range w[:2] { // one is between two runs, one waits in the lane for its second
		done = append(done, kvstore.Finished{Arrival: w.Arrival, Message: w.Message, Result: message.Result{Code: message.CodeDone, Run: 1, More: true, Started: first},
			Again: &kvstore.Again{Due: first.Add(time.Duration(1-i) * time.Minute), Run: 1, First: first}})
	}
	id := kvstore.Stream{Peer: "ww.ship2", Method: w[0].Message.Method}
	if err := s.Finish(id, 0, done); err != nil {
		t.Fatal(err)
	}
	if lanes, _, err := s.Due(id.Method, first); err != nil || len(lanes) != 1 {
		t.Fatal(lanes, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err = z.Write(b)
	if err := errors.Join(err, z.Close(), os.WriteFile(golden4, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// openGolden opens a copy of a golden file.
func openGolden(t *testing.T, golden string, set ...func(*kvstore.Options)) *kvstore.Store {
	t.Helper()
	f, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "steward.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	opts := options(path)
	for _, set := range set {
		set(&opts)
	}
	s := open(t, opts)
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Audit(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadsTheFileWithOrigins(t *testing.T) {
	var left []kvstore.Left
	s := openGolden(t, golden3, func(o *kvstore.Options) { o.Leaving = func(l []kvstore.Left) { left = append(left, l...) } })
	q := read(t, s, stream("ship1"))
	if len(q) != 2 {
		t.Fatalf("%+v", q)
	}
	for _, q := range q {
		settle(t, s, stream("ship1"), kvstore.Settled{Seq: q.Seq, ID: q.ID, Code: message.CodeDone})
	}
	if len(left) != 2 || left[0].Origin != "" || left[1].Origin != "socket uid=1000 pid=42" || !bytes.Equal(left[1].Message, q[1].Message) {
		t.Errorf("%+v", left)
	}
}

func TestReadsTheFilesWithSchedulesAndBadEnds(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	for _, golden := range []string{golden2, golden3, golden4} {
		t.Run(golden, func(t *testing.T) { readGolden(t, openGolden(t, golden)) })
	}
}

func readGolden(t *testing.T, s *kvstore.Store) {
	ends, lost, err := s.Untold(9)
	if err != nil || lost != 0 || len(ends) != 1 || string(ends[0].Text) != "bad end" {
		t.Errorf("%q, %d, %v", ends, lost, err)
	}
	d := deadLetters(t, s)
	if len(d) != 1 {
		t.Fatalf("%+v", d)
	}
	if l, err := s.Sent(d[0].Message.ID); err != nil || l.State != message.StateFailed || l.Code != message.CodeUnreachable || l.Text != "no ACK" || l.Seq != 2 ||
		l.Attempts != 3 || l.Peer != "ship1" || l.Method != d[0].Message.Method || !l.WantsReply || l.Ended.UnixMilli() != 1_700_000_000_000 {
		t.Errorf("%+v, %v", l, err)
	}
	// The first of its versions did not keep that: it is made of the lives.
	ids, err := s.AwaitedFrom("ship1", message.ID{}, 9)
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	if l, err := s.Sent(ids[0]); err != nil || l.State != message.StateDelivered || l.Seq != 1 || l.Peer != "ship1" {
		t.Errorf("%+v, %v", l, err)
	}
	w := lane(t, s, "ww.ship2")
	if len(w) != 2 || w[0].Message.Data[0] != "3" || w[0].Run != 0 || w[1].Message.Data[0] != "2" || w[1].Run != 1 || w[1].First.UnixMilli() != 1_700_000_000_000 {
		t.Fatalf("%+v", w)
	}
	lanes, next, err := s.Due(w[0].Message.Method, time.UnixMilli(1_700_000_060_000))
	if err != nil || len(lanes) != 1 || !next.IsZero() {
		t.Errorf("%v, %v, %v", lanes, next, err)
	}
	if w = lane(t, s, "ww.ship2"); len(w) != 3 || w[2].Message.Data[0] != "1" || w[2].Run != 1 {
		t.Errorf("%+v", w)
	}
}

func TestReadsTheFileOfVersion1(t *testing.T) {
	s := openGolden(t, golden1)
	info, q, err := s.Read(stream("ship1"), 0, 99, 1<<20)
	if err != nil || info.First != 3 || info.Next != 5 || info.Count != 2 || info.Epoch == 0 || len(q) != 2 || !q[0].WantsReply || q[0].TTL != time.Hour ||
		q[0].ACKTimeout != 5*time.Second || q[0].Retries != 3 || q[0].RetryWait != time.Second {
		t.Errorf("%+v, %+v, %v", info, q, err)
	}
	if l, err := s.Sent(q[0].ID); err != nil || l.State != message.StateAccepted || l.Seq != 3 || l.Peer != "ship1" || !l.WantsReply {
		t.Errorf("%+v, %v", l, err)
	}
	d := deadLetters(t, s)
	if len(d) != 1 || d[0].Code != message.CodeUnreachable || d[0].Text != "no ACK" || d[0].Attempts != 3 || d[0].Message.Data[1] != "hello" || d[0].At.UnixMilli() != 1_700_000_000_000 {
		t.Fatalf("%+v", d)
	}
	if l, err := s.Sent(d[0].Message.ID); err != nil || l.State != message.StateFailed || l.Code != message.CodeUnreachable || l.Ended.UnixMilli() != 1_700_000_000_000 {
		t.Errorf("%+v, %v", l, err)
	}
	w := lane(t, s, "ww.ship2")
	if len(w) != 2 || w[0].Message.Data[0] != "1" || w[0].Mark == nil || string(w[0].Mark.Undo) != "undo" || w[0].Mark.Attempt != 1 || w[0].Mark.Last != w[0].Arrival || w[1].Mark != nil {
		t.Fatalf("%+v", w)
	}
	if l, err := s.Received(w[0].Message.ID); err != nil || l.State != message.StateReceived || l.Peer != "ww.ship2" {
		t.Errorf("%+v, %v", l, err)
	}
	got := take(t, s, arrival("ww.ship2", 7, 1, 1, 6, incoming(t, 5, message.Message{Data: []string{"5"}})))
	if got.Next != 6 || len(got.Stored) != 1 || len(got.Refused) != 1 || got.Refused[0] != (kvstore.Refused{Seq: 2, Code: string(message.CodeDenied), Text: "may not"}) {
		t.Errorf("%+v", got)
	}
	accept(t, s, msg("ship1", "new"))
	if q := read(t, s, stream("ship1")); len(q) != 3 || q[2].Seq != 5 {
		t.Errorf("%+v", q)
	}
}
