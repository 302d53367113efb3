package wire_test

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/message/wire"
)

func someID(n uint32) message.ID { return message.NewID(time.UnixMilli(1_700_000_000_000), n, 99) }

func goldenInquiry() (*wire.Question, *wire.Answer) {
	return &wire.Question{From: "central", To: "ship1", IDs: []message.ID{someID(1), someID(2)}},
		&wire.Answer{By: "ship1", To: "central", Fates: []wire.Fate{{ID: someID(1)}, {ID: someID(2), Code: message.CodeFailed, Text: "exit 1"}}}
}

func TestReadsTheQuestionAndTheAnswerOfVersion1(t *testing.T) {
	c := wire.NewCodec()
	q, a := goldenInquiry()
	qb, err := c.EncodeQuestion(q)
	if err != nil {
		t.Fatal(err)
	}
	gotQ, err := c.DecodeQuestion(unhex(t, golden(t, "question-v1.hex", hex.EncodeToString(qb))))
	if err != nil || !reflect.DeepEqual(gotQ, q) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, gotQ, q)
	}
	ab, err := c.EncodeAnswer(a)
	if err != nil {
		t.Fatal(err)
	}
	gotA, err := c.DecodeAnswer(unhex(t, golden(t, "answer-v1.hex", hex.EncodeToString(ab))))
	if err != nil || !reflect.DeepEqual(gotA, a) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, gotA, a)
	}
}

func TestAnswerAboutAllThatWasAskedIsSmall(t *testing.T) {
	c := wire.NewCodec()
	c.Plain = true
	q, a := &wire.Question{From: "central", To: "ship1"}, &wire.Answer{By: "ship1", To: "central"}
	for i := range wire.MaxAsked {
		q.IDs = append(q.IDs, someID(uint32(i)))
		a.Fates = append(a.Fates, wire.Fate{ID: q.IDs[i], Code: message.CodeInterrupted, Text: strings.Repeat("é\xff", 1<<10)})
	}
	for range 2 { // the second round has one too many
		qb, err := c.EncodeQuestion(q)
		if err != nil {
			t.Fatal(err)
		}
		ab, err := c.EncodeAnswer(a)
		if err != nil {
			t.Fatal(err)
		}
		if len(qb) > 4<<10 || len(ab) > 64<<10 {
			t.Errorf("%d and %d bytes", len(qb), len(ab))
		}
		gotQ, qerr := c.DecodeQuestion(qb)
		gotA, aerr := c.DecodeAnswer(ab)
		if len(q.IDs) > wire.MaxAsked {
			if !errors.Is(qerr, message.ErrInvalid) || !errors.Is(aerr, message.ErrInvalid) {
				t.Errorf("%v, %v", qerr, aerr)
			}
		} else if qerr != nil || aerr != nil || len(gotQ.IDs) != wire.MaxAsked || len(gotA.Fates) != wire.MaxAsked || len(gotA.Fates[0].Text) > 300 {
			t.Errorf("%v, %v", qerr, aerr)
		}
		q.IDs = append(q.IDs, someID(0))
		a.Fates = append(a.Fates, wire.Fate{ID: someID(0)})
	}
}

func TestQuestionsAndAnswersWithoutNamesAreRefused(t *testing.T) {
	c := wire.NewCodec()
	for _, n := range []struct{ a, b message.Node }{{"", "b"}, {"a", ""}, {"a.>", "b"}, {"a", "b c"}} {
		qb, err := c.EncodeQuestion(&wire.Question{From: n.a, To: n.b})
		if err != nil {
			t.Fatal(err)
		}
		ab, err := c.EncodeAnswer(&wire.Answer{By: n.a, To: n.b})
		if err != nil {
			t.Fatal(err)
		}
		_, qerr := c.DecodeQuestion(qb)
		_, aerr := c.DecodeAnswer(ab)
		if !errors.Is(qerr, message.ErrInvalid) || !errors.Is(aerr, message.ErrInvalid) {
			t.Errorf("%q, %q: %v, %v", n.a, n.b, qerr, aerr)
		}
	}
}

func FuzzDecodeInquiry(f *testing.F) {
	c := wire.NewCodec()
	q, a := goldenInquiry()
	qb, err := c.EncodeQuestion(q)
	if err != nil {
		f.Fatal(err)
	}
	ab, err := c.EncodeAnswer(a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(qb)
	f.Add(ab)
	f.Add(packed(f, make([]byte, 1<<16)))
	f.Add([]byte{'S', 1, 0, 0xa1, 3, 0x9a, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, qerr := c.DecodeQuestion(b)
		a, aerr := c.DecodeAnswer(b)
		for _, err := range []error{qerr, aerr} {
			if err != nil && !errors.Is(err, message.ErrInvalid) && !errors.Is(err, wire.ErrVersion) {
				t.Fatal(err)
			}
		}
		if qerr == nil {
			again, err := c.EncodeQuestion(q)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := c.DecodeQuestion(again); err != nil || !reflect.DeepEqual(back, q) {
				t.Fatalf("%v\n%+v\n%+v", err, back, q)
			}
		}
		if aerr == nil {
			if len(a.Fates) > wire.MaxAsked {
				t.Fatalf("%d fates", len(a.Fates))
			}
			if _, err := c.EncodeAnswer(a); err != nil {
				t.Fatal(err)
			}
		}
	})
}
