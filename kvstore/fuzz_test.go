package kvstore

import (
	"bytes"
	"testing"
	"time"

	"steward/message"
	"steward/message/wire"
)

// FuzzRecords reads any bytes as each kind of record that a file may hold: none panics, and what
// is read as a life, a message that waits, or fixed numbers is the same when it is written again.
func FuzzRecords(f *testing.F) {
	m := message.Message{ID: message.NewID(time.UnixMilli(1_700_000_000_000), 1, 2), Data: []string{"x"}, ReplyMethod: "REQToFile",
		ACKTimeout: time.Second, ReplyACKTimeout: time.Second, Retries: 3, RetryWait: time.Second, TTL: time.Hour}
	raw, err := wire.EncodeMessage(&m)
	if err != nil {
		f.Fatal(err)
	}
	named := m
	named.Origin = "socket uid=1 pid=2"
	life := encodeLife(&Life{Peer: "ship1", Method: "REQPing", State: message.StateDone, Code: message.CodeDone, Text: "text", Seq: 7, Attempts: 2, WantsReply: true, Exit: 3, Stderr: "no such file", File: "answers/ship1/d.txt",
		Delivered: time.UnixMilli(1), Started: time.UnixMilli(2), Ended: time.UnixMilli(3)})
	for _, v := range []any{&posRecord{Epoch: 1, Next: 2, Refused: []Refused{{Seq: 1, Code: "denied", Text: "no"}}},
		&markRecord{Last: 1, Attempt: 2, Started: 3, Undo: []byte("undo"), Parts: 4},
		&scheduleRecord{Peer: "ship1", Accepted: 1, First: 2, Run: 3, Every: 4, Message: raw},
		&deadRecord{Peer: "ship1", Method: "REQPing", Message: raw, Code: "expired", Text: "late", At: 5, Attempts: 6}} {
		b, err := marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, b := range [][]byte{nil, {recordVersion}, encodeOut(&m, raw), encodeOut(&named, raw), encodeIn(inHead{accepted: 4, message: raw}),
		encodeIn(inHead{accepted: 4, run: 2, first: 5, message: raw}), life, numbers(1, 2, 3, 4, 5, 6), numbers(1)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		stream := Stream{Peer: "ship1", Method: "REQPing"}
		if q, err := decodeOut(1, b); err == nil {
			if m, err := wire.DecodeMessage(q.Message); err == nil && q.ID == m.ID && q.ACKTimeout == m.ACKTimeout && q.Retries == m.Retries &&
				q.RetryWait == m.RetryWait && q.TTL == m.TTL && b[1] == 0 == !m.AwaitsReply() && b[1] <= flagReply {
				origin, _, _ := splitOut(b)
				m.Origin = string(origin)
				if again := encodeOut(m, q.Message); !bytes.Equal(again, b) {
					t.Errorf("outgoing message %x became %x", b, again)
				}
			}
		}
		if h, err := splitIn(b); err == nil && (h.run > 0 || b[0] == recordVersion) {
			if again := encodeIn(h); !bytes.Equal(again, b) {
				t.Errorf("message of the inbox %x became %x", b, again)
			}
		}
		_, _ = decodeIn(stream, "central", 1, b)
		if l, err := decodeLife(m.ID, b); err == nil {
			again := encodeLife(&l)
			if l2, err := decodeLife(m.ID, again); err != nil || len(l.Text) < 1<<10 && len(l.Stderr) < 1<<10 && l2 != l {
				t.Errorf("life %+v became %+v, %v", l, l2, err)
			}
		}
		for _, v := range []any{new(posRecord), new(markRecord), new(deadRecord), new(scheduleRecord)} {
			if err := unmarshal(b, v); err != nil {
				continue
			}
			again, err := marshal(v)
			if err == nil {
				err = unmarshal(again, v)
			}
			if err != nil {
				t.Errorf("%T of %x: %v", v, b, err)
			}
		}
		var z [6]uint64
		if err := scanNumbers(b, &z[0], &z[1], &z[2], &z[3], &z[4], &z[5]); err == nil && !bytes.Equal(numbers(z[:]...), b[:49]) {
			t.Errorf("numbers %x became %x", b, numbers(z[:]...))
		}
		if id, err := parseStream(b); err == nil && !bytes.Equal(id.key(), b) {
			t.Errorf("stream %q became %q", b, id.key())
		}
		_, _ = decodeMeta(b)
	})
}
