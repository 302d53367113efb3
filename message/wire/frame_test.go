package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

var update = flag.Bool("update", false, "write the golden files of this version anew")

func TestPlainCodecDoesNotCompress(t *testing.T) {
	plain := wire.NewCodec()
	plain.Plain = true
	f := wire.Frame{From: "a", To: "b", Method: "REQPing", Epoch: 1, Base: 1, First: 1, End: 2,
		Entries: []wire.Entry{{Seq: 1, Message: bytes.Repeat([]byte("x"), 1000)}}}
	long, err := plain.EncodeFrame(&f)
	if err != nil || len(long) < 1000 {
		t.Fatalf("%d bytes, %v", len(long), err)
	}
	packed, err := wire.NewCodec().EncodeFrame(&f)
	if err != nil || len(packed) > 500 {
		t.Fatalf("%d bytes, %v", len(packed), err)
	}
	got, err := plain.DecodeFrame(packed)
	if err != nil || !reflect.DeepEqual(got, &f) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFrameComesBackFromItsBytes(t *testing.T) {
	c := wire.NewCodec()
	rapid.Check(t, func(t *rapid.T) {
		want := anyFrame().Draw(t, "frame")
		b, err := c.EncodeFrame(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.DecodeFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(want.Entries) == 0 {
			got.Entries = want.Entries
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("got  %+v\nwant %+v", *got, want)
		}
	})
}

func TestAckComesBackFromItsBytes(t *testing.T) {
	c := wire.NewCodec()
	rapid.Check(t, func(t *rapid.T) {
		want := anyAck().Draw(t, "ack")
		b, err := c.EncodeAck(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.DecodeAck(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(want.Refused) == 0 {
			got.Refused = want.Refused
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("got  %+v\nwant %+v", *got, want)
		}
	})
}

func TestFrameIsCompressedWhenThatMakesItSmaller(t *testing.T) {
	c := wire.NewCodec()
	f := frame(1, 2, wire.Entry{Seq: 1, Message: []byte(strings.Repeat("line\n", 1000))})
	if b := seal(t, c, f); len(b) > 500 {
		t.Errorf("5,000 bytes of text are %d on the wire", len(b))
	}
	noise := make([]byte, 5000)
	x := uint64(1)
	for i := range noise {
		x = x*6364136223846793005 + 1442695040888963407
		noise[i] = byte(x >> 56)
	}
	f = frame(1, 2, wire.Entry{Seq: 1, Message: noise})
	if b := seal(t, c, f); len(b) > 5100 {
		t.Errorf("5,000 bytes of noise are %d on the wire", len(b))
	}
}

func frame(first, end uint64, entries ...wire.Entry) *wire.Frame {
	return &wire.Frame{From: "central", To: "ship1", Method: "REQCliCommand", Epoch: 7, Base: 1, First: first, End: end, Sent: 1_700_000_000_000, Entries: entries}
}

func seal(t testing.TB, c *wire.Codec, f *wire.Frame) []byte {
	t.Helper()
	b, err := c.EncodeFrame(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeFrameChecksItsNumbers(t *testing.T) {
	c := wire.NewCodec()
	e := func(seqs ...uint64) (out []wire.Entry) {
		for _, s := range seqs {
			out = append(out, wire.Entry{Seq: s, Message: []byte{1}})
		}
		return out
	}
	tests := []struct {
		name   string
		change func(*wire.Frame)
		ok     bool
	}{
		{"as it should be", func(f *wire.Frame) { f.First, f.End, f.Entries = 3, 6, e(3, 4, 5) }, true},
		{"with gaps", func(f *wire.Frame) { f.First, f.End, f.Entries = 3, 9, e(4, 7) }, true},
		{"without messages", func(f *wire.Frame) { f.First, f.End = 3, 3 }, true},
		{"all given up", func(f *wire.Frame) { f.First, f.End = 3, 9 }, true},
		{"at the end of the numbers", func(f *wire.Frame) { f.First, f.End, f.Entries = math.MaxUint64-1, math.MaxUint64, e(math.MaxUint64-1) }, true},
		{"outside of a stream", func(f *wire.Frame) { f.Epoch, f.Base, f.First, f.End, f.Entries = 0, 0, 0, 0, e(0) }, true},
		{"base 0", func(f *wire.Frame) { f.Base, f.First, f.End = 0, 0, 1 }, false},
		{"first below base", func(f *wire.Frame) { f.Base, f.First, f.End, f.Entries = 5, 4, 6, e(4) }, false},
		{"end below first", func(f *wire.Frame) { f.First, f.End = 5, 4 }, false},
		{"a message below first", func(f *wire.Frame) { f.First, f.End, f.Entries = 3, 6, e(2) }, false},
		{"a message at end", func(f *wire.Frame) { f.First, f.End, f.Entries = 3, 6, e(3, 6) }, false},
		{"a message twice", func(f *wire.Frame) { f.First, f.End, f.Entries = 3, 6, e(3, 3) }, false},
		{"messages out of order", func(f *wire.Frame) { f.First, f.End, f.Entries = 3, 6, e(4, 3) }, false},
		{"no sender", func(f *wire.Frame) { f.From = "" }, false},
		{"a sender that is no name", func(f *wire.Frame) { f.From = "a.>" }, false},
		{"a receiver that is no name", func(f *wire.Frame) { f.To = "a b" }, false},
		{"a method that is no name", func(f *wire.Frame) { f.Method = "REQ\r\n" }, false},
		{"a method with dots", func(f *wire.Frame) { f.Method = "a.b" }, false},
		{"no names outside of a stream", func(f *wire.Frame) { f.Epoch, f.From = 0, "" }, false},
	}
	for _, tt := range tests {
		f := frame(1, 2, e(1)...)
		f.Entries = nil
		tt.change(f)
		_, err := c.DecodeFrame(seal(t, c, f))
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && (!errors.Is(err, message.ErrInvalid) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %q", tt.name, err)
		}
	}
}

func TestNewerFormatsAreTold(t *testing.T) {
	c := wire.NewCodec()
	good := seal(t, c, frame(1, 1))
	ack, err := c.EncodeAck(&wire.Ack{By: "a", To: "b", Method: "REQPing"})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(b []byte){func(b []byte) { b[1] = 2 }, func(b []byte) { b[1] = 255 }, func(b []byte) { b[2] |= 4 }, func(b []byte) { b[2] |= 0x80 }} {
		f, a := append([]byte(nil), good...), append([]byte(nil), ack...)
		change(f)
		change(a)
		if _, err := c.DecodeFrame(f); !errors.Is(err, wire.ErrVersion) {
			t.Errorf("frame: %v", err)
		}
		if _, err := c.DecodeAck(a); !errors.Is(err, wire.ErrVersion) {
			t.Errorf("ack: %v", err)
		}
	}
	for _, b := range [][]byte{nil, {'S'}, {'S', 1}, {'X', 1, 0, 0x80}, {'S', 0, 0}, []byte("hello world")} {
		if _, err := c.DecodeFrame(b); !errors.Is(err, message.ErrInvalid) || errors.Is(err, wire.ErrVersion) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// packed is what a peer could make of body: the envelope around it, compressed.
func packed(t testing.TB, bodies ...[]byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	out := []byte{'S', 1, 1}
	for _, b := range bodies {
		out = enc.EncodeAll(b, out)
	}
	return out
}

func TestDecompressionBombIsRefused(t *testing.T) {
	c := wire.NewCodec()
	one := make([]byte, wire.MaxFrame)
	many := make([][]byte, 40)
	for i := range many {
		many[i] = one[:1<<20]
	}
	stream := func() []byte { // no size stated
		var b strings.Builder
		b.WriteString("S\x01\x01")
		enc, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		for range 64 {
			if _, err := enc.Write(one[:1<<20]); err != nil {
				t.Fatal(err)
			}
		}
		if err := enc.Close(); err != nil {
			t.Fatal(err)
		}
		return []byte(b.String())
	}()
	claim := []byte{'S', 1, 1, 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0} // 2^40 bytes follow
	window := []byte{'S', 1, 1, 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8}                  // needs a window of 2 TB
	for name, b := range map[string][]byte{
		"a large frame": packed(t, make([]byte, wire.MaxFrame+1)), "64 MiB": packed(t, make([]byte, 64<<20)),
		"many small ones": packed(t, many...), "a stream": stream, "a claimed size": claim, "a claimed window": window,
	} {
		if len(b) > 1<<17 {
			t.Fatalf("%s: the bomb itself has %d bytes", name, len(b))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.DecodeFrame(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 8*wire.MaxFrame { // in all, by growing: not at once
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
	if _, err := c.DecodeFrame(append([]byte{'S', 1, 0}, make([]byte, wire.MaxFrame+1)...)); !errors.Is(err, message.ErrInvalid) {
		t.Errorf("uncompressed: %v", err)
	}
}

func TestClaimedLengthsTakeNoMemory(t *testing.T) {
	c := wire.NewCodec()
	for name, body := range map[string][]byte{
		"2^32 fields":   {0x9a, 0xff, 0xff, 0xff, 0xff},
		"2^40 entries":  {0x89, 0x61, 'a', 0x61, 'b', 0x61, 'c', 1, 1, 1, 2, 0, 0x9b, 0, 0, 1, 0, 0, 0, 0, 0},
		"2^40 bytes":    {0x89, 0x61, 'a', 0x61, 'b', 0x61, 'c', 1, 1, 1, 2, 0, 0x81, 0x82, 1, 0x5b, 0, 0, 1, 0, 0, 0, 0, 0},
		"a name of 4 G": {0x89, 0x7a, 0xff, 0xff, 0xff, 0xff},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, ferr := c.DecodeFrame(append([]byte{'S', 1, 0}, body...))
		_, aerr := c.DecodeAck(append([]byte{'S', 1, 0}, body...))
		runtime.ReadMemStats(&after)
		if !errors.Is(ferr, message.ErrInvalid) || !errors.Is(aerr, message.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, ferr, aerr)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
}

func TestEncodeFrameRefusesWhatNobodyWouldTake(t *testing.T) {
	c := wire.NewCodec()
	if b, err := c.EncodeFrame(frame(1, 2, wire.Entry{Seq: 1, Message: make([]byte, wire.MaxFrame)})); !errors.Is(err, message.ErrInvalid) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestTextsOfAnAckAreBounded(t *testing.T) {
	c := wire.NewCodec()
	long := strings.Repeat("é", 1<<20)
	b, err := c.EncodeAck(&wire.Ack{By: "a", To: "b", Method: "REQPing", Code: message.CodeInvalid, Text: long,
		Refused: []wire.Refusal{{Seq: 1, Code: message.CodeDenied, Text: long}, {Seq: 2, Text: "short"}}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.DecodeAck(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Text) > 1100 || len(a.Refused[0].Text) > 1100 || !strings.HasSuffix(a.Text, "é…") || a.Refused[1].Text != "short" {
		t.Errorf("%d and %d bytes", len(a.Text), len(a.Refused[0].Text))
	}
}

func TestCodecServesManyAtOnce(t *testing.T) {
	c := wire.NewCodec()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				f := frame(1, 2, wire.Entry{Seq: 1, Message: []byte(strings.Repeat(fmt.Sprint(i, j), 200))})
				b, err := c.EncodeFrame(f)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := c.DecodeFrame(b)
				if err != nil || string(got.Entries[0].Message) != string(f.Entries[0].Message) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
}

// golden compares text with a file of testdata. What an earlier version wrote must be read
// for ever: the files are only added to.
func golden(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenMessage() message.Message {
	at := time.UnixMilli(1_700_000_000_123)
	m := message.Message{ID: message.NewID(at, 7, 0xabcdef), Accepted: at, Data: []string{"/bin/echo", "hello"}, Body: []byte("out\n"),
		ReplyMethod: "REQToFile", ReplyMethodArgs: []string{"x"}, ACKTimeout: 5 * time.Second, Retries: 3, RetryWait: time.Second,
		ReplyACKTimeout: 6 * time.Second, ReplyRetries: 4, MethodTimeout: message.Forever, ReplyMethodTimeout: 7 * time.Second, MethodRetries: 2,
		TTL: time.Hour, Directory: "a/b", FileName: "c", Headers: map[string]string{"k": "v"},
		InReplyTo: message.NewID(at, 6, 0xabcdef), RequestMethod: "REQCliCommand", Part: 1,
		Result: &message.Result{Code: message.CodeFailed, Text: "exit status 3", Exit: 3, Signal: "SIGTERM", Stderr: []byte("no"), StderrSize: 2,
			Started: at, Took: 1500 * time.Microsecond, Attempt: 1},
		Operation: &message.Operation{Cmd: "startProc", Arg: message.OperationArg{Method: "REQHello", Kind: "subscriber", ReceivingNode: "ship1", ID: 9, AllowedNodes: []message.Node{"central"}}},
		Schedule:  &message.Schedule{Every: 5 * time.Second, For: 20 * time.Second}}
	return m
}

func TestReadsTheRecordOfVersion1(t *testing.T) {
	want := goldenMessage()
	got := decode(t, unhex(t, golden(t, "record-v1.hex", hex.EncodeToString(encode(t, want)))))
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

func TestReadsTheFrameOfVersion1(t *testing.T) {
	c := wire.NewCodec()
	m := goldenMessage()
	for name, want := range map[string]*wire.Frame{
		"frame-v1.hex":      frame(3, 5, wire.Entry{Seq: 4, Message: []byte("plain")}),
		"frame-v1-zstd.hex": frame(3, 5, wire.Entry{Seq: 3, Message: encode(t, m)}, wire.Entry{Seq: 4, Message: encode(t, m)}),
	} {
		got, err := c.DecodeFrame(unhex(t, golden(t, name, hex.EncodeToString(seal(t, c, want)))))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "zstd") { // what was written is a record of that version
			if !reflect.DeepEqual(*decode(t, got.Entries[1].Message), m) {
				t.Errorf("%s: %+v", name, got)
			}
			got.Entries, want.Entries = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

func TestReadsTheAckOfVersion1(t *testing.T) {
	c := wire.NewCodec()
	want := &wire.Ack{By: "ship1", To: "central", Method: "REQCliCommand", Epoch: 7, Next: 5, Gap: true, Busy: true,
		Refused: []wire.Refusal{{Seq: 3, Code: message.CodeDenied, Text: "central may not"}}, Code: message.CodeInvalid, Text: "no"}
	b, err := c.EncodeAck(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.DecodeAck(unhex(t, golden(t, "ack-v1.hex", hex.EncodeToString(b))))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	c := wire.NewCodec()
	f.Add(seal(f, c, frame(3, 5, wire.Entry{Seq: 4, Message: []byte("x")})))
	f.Add(seal(f, c, frame(3, 5, wire.Entry{Seq: 4, Message: []byte(strings.Repeat("x", 500))})))
	f.Add(sign(seal(f, c, frame(3, 5, wire.Entry{Seq: 4, Message: []byte(strings.Repeat("x", 500))})), "a", "b", 1, 2))
	f.Add(packed(f, make([]byte, 1<<16)))
	f.Add([]byte{'S', 1, 1, 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Add([]byte{'S', 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := c.DecodeFrame(b)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) && !errors.Is(err, wire.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if got.From.Check() != nil || got.To.Check() != nil || got.Method.Check() != nil {
			t.Fatalf("%+v is accepted", got)
		}
		again, err := c.EncodeFrame(got)
		if err != nil {
			t.Fatal(err)
		}
		back, err := c.DecodeFrame(again)
		if err != nil || !reflect.DeepEqual(back, got) {
			t.Fatalf("%v\n%+v\n%+v", err, back, got)
		}
	})
}

func FuzzDecodeAck(f *testing.F) {
	c := wire.NewCodec()
	b, err := c.EncodeAck(&wire.Ack{By: "ship1", To: "central", Method: "REQPing", Next: 5, Refused: []wire.Refusal{{Seq: 3, Text: "no"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(packed(f, make([]byte, 1<<16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := c.DecodeAck(b)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) && !errors.Is(err, wire.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if len(got.Text) > 1100 {
			t.Fatalf("a text of %d bytes", len(got.Text))
		}
		if _, err := c.EncodeAck(got); err != nil {
			t.Fatal(err)
		}
	})
}

func benchFrame(n int) *wire.Frame {
	f := frame(1, uint64(n)+1)
	for i := range n {
		m := message.Message{ID: message.NewID(time.UnixMilli(1_700_000_000_000), uint32(i), 99), Data: []string{"/bin/echo", strings.Repeat("x", 80)},
			ReplyMethod: "REQToFileAppend", ACKTimeout: 5 * time.Second, Retries: 3, ReplyACKTimeout: 5 * time.Second, ReplyRetries: 3, MethodTimeout: 10 * time.Second}
		b, err := wire.EncodeMessage(&m)
		if err != nil {
			panic(err)
		}
		f.Entries = append(f.Entries, wire.Entry{Seq: uint64(i) + 1, Message: b})
	}
	return f
}

func BenchmarkEncodeFrame(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, f := wire.NewCodec(), benchFrame(n)
			b.ReportAllocs()
			var size int
			for b.Loop() {
				size = len(seal(b, c, f))
			}
			b.ReportMetric(float64(size)/float64(n), "wire-B/msg")
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func BenchmarkDecodeFrame(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := wire.NewCodec()
			data := seal(b, c, benchFrame(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.DecodeFrame(data); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func BenchmarkAck(b *testing.B) {
	c := wire.NewCodec()
	ack := wire.Ack{By: "ship1", To: "central", Method: "REQCliCommand", Epoch: 7, Next: 1_000_000}
	data, err := c.EncodeAck(&ack)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.EncodeAck(&ack); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.DecodeAck(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMessage(b *testing.B) {
	m := goldenMessage()
	m.Operation, m.Schedule = nil, nil
	data := encode(b, m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encode(b, m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decode(b, data)
		}
	})
}
