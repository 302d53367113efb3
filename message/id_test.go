package message_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"steward/message"
)

func anyID() *rapid.Generator[message.ID] {
	return rapid.Custom(func(t *rapid.T) message.ID {
		at := time.UnixMilli(rapid.Int64Range(0, 1<<48-1).Draw(t, "ms"))
		return message.NewID(at, rapid.Uint32().Draw(t, "count"), rapid.Uint64().Draw(t, "run"))
	})
}

func TestIDComesBackFromItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyID().Draw(t, "id")
		got, err := message.ParseID(want.String())
		if err != nil || got != want {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
		b, err := json.Marshal(map[string]message.ID{"id": want})
		if err != nil {
			t.Fatal(err)
		}
		var back map[string]message.ID
		if err := json.Unmarshal(b, &back); err != nil || back["id"] != want {
			t.Fatalf("%v, %v; want %v", back, err, want)
		}
	})
}

func TestIDTextsSortLikeTimeThenCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := rapid.Uint64().Draw(t, "run")
		ms := rapid.Int64Range(0, 1<<48-2).Draw(t, "ms")
		later := rapid.Int64Range(0, 1<<20).Draw(t, "later")
		if ms+later >= 1<<48 {
			later = 0
		}
		c := rapid.Uint32Range(0, 1<<32-2).Draw(t, "count")
		a := message.NewID(time.UnixMilli(ms), c, run)
		b := message.NewID(time.UnixMilli(ms+later), c+1, run)
		if a.String() >= b.String() {
			t.Fatalf("%s is not before %s", a, b)
		}
		if !a.Time().Equal(time.UnixMilli(ms)) {
			t.Fatalf("time %v, want %v", a.Time(), time.UnixMilli(ms))
		}
	})
}

func TestIDsDifferByTimeCountAndRun(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	ids := map[message.ID]bool{}
	for _, id := range []message.ID{message.NewID(at, 1, 1), message.NewID(at.Add(time.Millisecond), 1, 1), message.NewID(at, 2, 1),
		message.NewID(at, 1, 2), message.NewID(at, 1, 1<<47)} {
		if ids[id] || id.IsZero() {
			t.Errorf("%s twice", id)
		}
		ids[id] = true
	}
	if message.NewID(at, 1, 1) != message.NewID(at, 1, 1|1<<48) {
		t.Error("more than 48 bits of the run count")
	}
	if got := message.NewID(time.UnixMilli(-5), 1, 1).Time(); !got.Equal(time.UnixMilli(0)) {
		t.Errorf("a clock before 1970 gives %v", got)
	}
}

func TestParseIDTakesOnlyWhatStringWrites(t *testing.T) {
	good := message.NewID(time.UnixMilli(1_700_000_000_123), 7, 99).String()
	other := "1" // the last character carries three bits only
	if strings.HasSuffix(good, "1") {
		other = "2"
	}
	for _, s := range []string{"", good[:25], good + "0", strings.ToUpper(good), good[:25] + other, good[:10] + "\n" + good[10:], good + "\r\n",
		" " + good, strings.Repeat("u", 26), strings.Repeat("0", 1000)} {
		if id, err := message.ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %s", s, id)
		} else if !errors.Is(err, message.ErrInvalid) || !id.IsZero() {
			t.Errorf("ParseID(%q) = %v, %v", s, id, err)
		}
	}
	id := message.NewID(time.UnixMilli(5), 1, 1)
	if err := id.UnmarshalText([]byte("rubbish")); err == nil || id.IsZero() {
		t.Errorf("a bad text gives %v and leaves %v", err, id)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(message.NewID(time.UnixMilli(1_700_000_000_123), 7, 99).String())
	f.Add("00000000000000000000000001")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := message.ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q comes back as %s", s, id)
		}
	})
}
