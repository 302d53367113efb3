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

const golden = "testdata/steward-v1.db.gz"

// writeGolden makes a file with a record of every kind. Files of earlier versions are never made
// anew: they are what that version wrote.
func writeGolden(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "steward.db")
	s := open(t, options(path))
	m := msg("ship1", "/bin/echo", "hello")
	m.ReplyMethod, m.ReplyACKTimeout = "REQToFile", time.Second
	ids := accept(t, s, m, m, m, m)
	settle(t, s, stream("ship1"), kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeDone, Attempts: 2, At: time.UnixMilli(1_700_000_000_000), WantsReply: true},
		kvstore.Settled{Seq: 2, ID: ids[1], Code: message.CodeUnreachable, Text: "no ACK", Attempts: 3, At: time.UnixMilli(1_700_000_000_000), WantsReply: true})
	in := items(t, 1, 5)
	in[1].Refuse, in[1].Text = message.CodeDenied, "may not"
	a := arrival("ww.ship2", 7, 1, 1, 5, in...)
	a.Begin = &kvstore.Begin{Undo: []byte("undo")}
	take(t, s, a)
	finish(t, s, "ww.ship2", lane(t, s, "ww.ship2")[2])
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
	if err := errors.Join(err, z.Close(), os.MkdirAll("testdata", 0o755), os.WriteFile(golden, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestReadsTheFileOfVersion1(t *testing.T) {
	if *update {
		writeGolden(t)
	}
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
	s := open(t, options(path))
	defer func() { _ = s.Close() }()
	if err := s.Audit(); err != nil {
		t.Fatal(err)
	}
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
