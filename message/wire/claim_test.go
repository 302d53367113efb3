package wire_test

import (
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

func sealClaim(t testing.TB, c *wire.Claim) []byte {
	t.Helper()
	b, err := wire.EncodeClaim(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClaimComesBackFromItsBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := &wire.Claim{
			Token: rapid.StringMatching(`[a-z0-9]{1,64}`).Draw(rt, "token"),
			Held:  rapid.Int64Range(0, 1<<53).Draw(rt, "held"),
			Host:  rapid.StringMatching(`[a-zé.-]{0,60}`).Draw(rt, "host"),
			PID:   rapid.Int64().Draw(rt, "pid"),
		}
		b := sealClaim(t, want)
		if got, err := wire.DecodeClaim(b); err != nil || !reflect.DeepEqual(got, want) {
			rt.Fatalf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	})
}

func TestClaimIsSmallWhateverTheHostIsCalled(t *testing.T) {
	b := sealClaim(t, &wire.Claim{Token: strings.Repeat("t", 64), Held: 1 << 53, Host: "x" + strings.Repeat("é", 1<<10), PID: math.MaxInt64})
	if len(b) > 256 {
		t.Errorf("%d bytes", len(b))
	}
	c, err := wire.DecodeClaim(b)
	if err != nil || !strings.HasPrefix(c.Host, "xéé") || !strings.HasSuffix(c.Host, "é") {
		t.Errorf("%v: %+v", err, c)
	}
}

func TestClaimThatMakesNoSenseIsRefused(t *testing.T) {
	for _, c := range []*wire.Claim{
		{}, {Token: strings.Repeat("t", 65)}, {Token: "\xff"}, {Token: "t", Held: -1}, {Token: "t", Held: 1<<53 + 1}, {Token: "t", Held: math.MaxInt64},
	} {
		if b, err := wire.EncodeClaim(c); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%+v: %x, %v", c, b, err)
		}
	}
	if c, err := wire.DecodeClaim(sealClaim(t, &wire.Claim{Token: "t", Host: "a b\r\nc\x1b"})); err != nil || c.Host != "a?b??c?" {
		t.Errorf("%+v, %v", c, err)
	}
	good := sealClaim(t, &wire.Claim{Token: "t", Held: 1, Host: "h", PID: 1})
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("ship1"), "no body": good[:3], "half": good[:len(good)-1], "more": append(good[:len(good):len(good)], 0),
		"no token": {'S', 1, 0, 0x84, 0x60, 1, 0x61, 'h', 1}, "below nothing": {'S', 1, 0, 0x84, 0x61, 't', 0x20, 0x61, 'h', 1},
		"three fields": {'S', 1, 0, 0x83, 0x61, 't', 1, 0x61, 'h'}, "2^32 fields": {'S', 1, 0, 0x9a, 0xff, 0xff, 0xff, 0xff},
		"two lines":   {'S', 1, 0, 0x84, 0x61, 't', 1, 0x61, '\n', 1},
		"a long host": append(append([]byte{'S', 1, 0, 0x84, 0x61, 't', 1, 0x78, 200}, strings.Repeat("h", 200)...), 1),
		"large":       append(good[:len(good):len(good)], make([]byte, 1<<10)...), "compressed": packed(t, good[3:]),
	} {
		if c, err := wire.DecodeClaim(b); !errors.Is(err, message.ErrInvalid) || errors.Is(err, wire.ErrVersion) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if _, err := wire.DecodeClaim([]byte{'S', 2, 0, 0x80}); !errors.Is(err, wire.ErrVersion) {
		t.Errorf("newer version: %v", err)
	}
}

func TestReadsTheClaimOfVersion1(t *testing.T) {
	want := &wire.Claim{Token: "k3q7", Held: 61_000, Host: "bridge", PID: 4711}
	got, err := wire.DecodeClaim(unhex(t, golden(t, "claim-v1.hex", hex.EncodeToString(sealClaim(t, want)))))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func FuzzDecodeClaim(f *testing.F) {
	f.Add(sealClaim(f, &wire.Claim{Token: "t", Held: 1, Host: "h", PID: 1}))
	f.Add(sign(sealClaim(f, &wire.Claim{Token: "t", Held: 1, Host: "h", PID: 1}), "a", "b", 1, 2))
	f.Add(packed(f, make([]byte, 1<<16)))
	f.Add([]byte{'S', 1, 0, 0x9a, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := wire.DecodeClaim(b)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) && !errors.Is(err, wire.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		again := sealClaim(t, got)
		if back, err := wire.DecodeClaim(again); err != nil || !reflect.DeepEqual(back, got) {
			t.Fatalf("%v\n%+v\n%+v", err, back, got)
		}
	})
}
