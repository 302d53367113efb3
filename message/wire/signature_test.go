package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

// signer is a key that is always the same.
var signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// sign signs with it, without a purpose: that is not the business of this package.
func sign(data []byte, subject, reply string, mine, yours uint64) []byte {
	s := wire.Signature{Mine: mine, Yours: yours, Key: [32]byte(signer.Public().(ed25519.PublicKey))}
	return wire.Sign(bytes.Clone(data), subject, reply, s, func(text []byte) []byte { return ed25519.Sign(signer, text) })
}

// verify reports whether data bears a signature that fits.
func verify(data []byte, subject, reply string) bool {
	s, text, ok, err := wire.ReadSignature(data, subject, reply)
	return err == nil && ok && ed25519.Verify(s.Key[:], text, s.Sum[:])
}

func TestSignedFrameIsReadWithAndWithoutItsSignature(t *testing.T) {
	c := wire.NewCodec()
	rapid.Check(t, func(rt *rapid.T) {
		want := anyFrame().Draw(rt, "frame")
		plain, err := c.EncodeFrame(&want)
		if err != nil {
			rt.Fatal(err)
		}
		mine, yours := rapid.Uint64().Draw(rt, "mine"), rapid.Uint64().Draw(rt, "yours")
		b := sign(plain, "ship1.REQPing.EventACK", "central.ACK.x", mine, yours)
		if len(b) != len(plain)+112 {
			rt.Fatalf("%d bytes more", len(b)-len(plain))
		}
		s, _, ok, err := wire.ReadSignature(b, "ship1.REQPing.EventACK", "central.ACK.x")
		if err != nil || !ok || s.Mine != mine || s.Yours != yours || !bytes.Equal(s.Key[:], signer.Public().(ed25519.PublicKey)) {
			rt.Fatalf("%+v, %v, %v", s, ok, err)
		}
		if !verify(b, "ship1.REQPing.EventACK", "central.ACK.x") {
			rt.Fatal("the signature does not fit")
		}
		got, err := c.DecodeFrame(b)
		if err != nil {
			rt.Fatal(err)
		}
		if unsigned, err := c.DecodeFrame(plain); err != nil || !reflect.DeepEqual(got, unsigned) {
			rt.Fatalf("%v\nsigned  %+v\nwithout %+v", err, got, unsigned)
		}
		if _, _, ok, err := wire.ReadSignature(plain, "a", "b"); ok || err != nil {
			rt.Fatalf("without a signature: %v, %v", ok, err)
		}
	})
}

func TestSignatureCoversAllThereIs(t *testing.T) {
	c := wire.NewCodec()
	for _, plain := range [][]byte{
		seal(t, c, frame(3, 5, wire.Entry{Seq: 4, Message: []byte("x")})),
		seal(t, c, frame(3, 5, wire.Entry{Seq: 4, Message: bytes.Repeat([]byte("x"), 500)})),
		sealClaim(t, &wire.Claim{Token: "t", Held: 1, Host: "h", PID: 1}),
	} {
		b := sign(plain, "ship1.REQPing.EventACK", "central.ACK.x", 1, 2)
		for at := range b {
			for bit := range 8 {
				bad := bytes.Clone(b)
				bad[at] ^= 1 << bit
				if verify(bad, "ship1.REQPing.EventACK", "central.ACK.x") {
					t.Errorf("bit %d of byte %d of %d is not covered", bit, at, len(b))
				}
			}
		}
		for _, other := range [][2]string{{"ship2.REQPing.EventACK", "central.ACK.x"}, {"ship1.REQPing.EventACK", "central.ACK.y"},
			{"ship1.REQPing.EventACK", ""}, {"ship1.REQPing.EventACKcentral", ".ACK.x"}, {"", "ship1.REQPing.EventACKcentral.ACK.x"}} {
			if verify(b, other[0], other[1]) {
				t.Errorf("it fits on %q with answers to %q", other[0], other[1])
			}
		}
		for n := range b {
			if verify(b[:n], "ship1.REQPing.EventACK", "central.ACK.x") {
				t.Errorf("it fits with %d of %d bytes", n, len(b))
			}
		}
	}
}

func TestSignedClaimAndAckAreReadAsOthers(t *testing.T) {
	claim := &wire.Claim{Token: "t", Held: 1, Host: "h", PID: 1}
	if got, err := wire.DecodeClaim(sign(sealClaim(t, claim), "ship1.NAME", "ship1.NAME.x", 1, 0)); err != nil || !reflect.DeepEqual(got, claim) {
		t.Errorf("%+v, %v", got, err)
	}
	c := wire.NewCodec()
	ack := &wire.Ack{By: "ship1", To: "central", Method: "REQPing", Epoch: 7, Next: 5, Refused: []wire.Refusal{}}
	b, err := c.EncodeAck(ack)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.DecodeAck(sign(b, "central.ACK.x", "", 1, 2)); err != nil || !reflect.DeepEqual(got, ack) {
		t.Errorf("%+v, %v", got, err)
	}
	// The flag alone makes no signature.
	b[2] |= 2
	if _, err := c.DecodeAck(b); !errors.Is(err, message.ErrInvalid) {
		t.Error(err)
	}
	if _, _, ok, err := wire.ReadSignature(b, "central.ACK.x", ""); ok || !errors.Is(err, message.ErrInvalid) {
		t.Errorf("%v, %v", ok, err)
	}
	if _, _, ok, err := wire.ReadSignature([]byte{'S', 2, 2}, "", ""); ok || !errors.Is(err, wire.ErrVersion) {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestReadsTheSignedFrameOfVersion1(t *testing.T) {
	c := wire.NewCodec()
	want := frame(3, 5, wire.Entry{Seq: 4, Message: []byte("plain")})
	b := unhex(t, golden(t, "frame-v1-signed.hex", hex.EncodeToString(sign(seal(t, c, want), "ship1.REQCliCommand.CommandACK", "central.ACK.x", 1, 2))))
	if got, err := c.DecodeFrame(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	if !verify(b, "ship1.REQCliCommand.CommandACK", "central.ACK.x") {
		t.Error("the signature does not fit")
	}
	if s, _, _, _ := wire.ReadSignature(b, "", ""); s.Mine != 1 || s.Yours != 2 {
		t.Errorf("%+v", s)
	}
}

func FuzzReadSignature(f *testing.F) {
	c := wire.NewCodec()
	plain := seal(f, c, frame(3, 5, wire.Entry{Seq: 4, Message: []byte("x")}))
	f.Add(plain, "a", "b")
	f.Add(sign(plain, "a", "b", 1, 2), "a", "b")
	f.Add(sign(sealClaim(f, &wire.Claim{Token: "t"}), "ship1.NAME", "ship1.NAME.x", 1, 0), "ship1.NAME", "ship1.NAME.x")
	f.Add(append([]byte{'S', 1, 2}, make([]byte, 112)...), "", "")
	f.Add([]byte{'S', 1, 3}, "", "")
	f.Fuzz(func(t *testing.T, b []byte, subject, reply string) {
		s, text, ok, err := wire.ReadSignature(b, subject, reply)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) && !errors.Is(err, wire.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if !ok {
			return
		}
		// What was read, signed again, is the same.
		body := bytes.Clone(b[:len(b)-112])
		again := wire.Sign(body, subject, reply, s, func(signed []byte) []byte {
			if !bytes.Equal(signed, text) {
				t.Fatalf("signed %x\nread   %x", signed, text)
			}
			return s.Sum[:]
		})
		if !bytes.Equal(again, b) {
			t.Fatalf("%x\n%x", again, b)
		}
	})
}
