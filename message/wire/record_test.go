package wire_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

func encode(t testing.TB, m message.Message) []byte {
	t.Helper()
	b, err := wire.EncodeMessage(&m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, b []byte) *message.Message {
	t.Helper()
	m, err := wire.DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMessageComesBackFromItsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyMessage().Draw(t, "message")
		b, err := wire.EncodeMessage(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("got  %+v\nwant %+v", *got, want)
		}
		for i := range b { // shares no memory with what it was read from
			b[i] = 0xff
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatal("changes with the bytes it was read from")
		}
	})
}

func TestMessageLeavesOutWhatTheStreamSays(t *testing.T) {
	b := encode(t, message.Message{ID: message.ID{9}, From: "central", To: "ship1", Method: "REQCliCommand", Data: []string{"date"}})
	for _, s := range []string{"central", "ship1", "REQCliCommand"} {
		if strings.Contains(string(b), s) {
			t.Errorf("%q is on the wire", s)
		}
	}
	if len(b) > 32 {
		t.Errorf("a short command has %d bytes", len(b))
	}
}

func TestDurationsAreRoundedUpAndNegativeOnesAreForever(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, 500 * time.Microsecond: time.Millisecond, time.Second: time.Second, time.Second + 1: 1001 * time.Millisecond,
		message.Forever: message.Forever, -5 * time.Second: message.Forever, 1<<63 - 1: 9223372036854 * time.Millisecond,
	} {
		m := decode(t, encode(t, message.Message{ID: message.ID{9}, ACKTimeout: d, MethodTimeout: d}))
		if m.ACKTimeout != want || m.MethodTimeout != want {
			t.Errorf("%v comes back as %v", d, m.ACKTimeout)
		}
	}
}

func TestInvalidUTF8InAnyTextIsReplaced(t *testing.T) {
	bad := "a\xffb"
	m := message.Message{ID: message.ID{9}, Data: []string{"good", bad, "c", bad}, ReplyMethodArgs: []string{bad}, Directory: bad, FileName: bad,
		Headers: map[string]string{bad: bad, "k": "v"}, Body: []byte(bad),
		Result:    &message.Result{Code: message.Code(bad), Text: bad, Signal: bad, Stderr: []byte(bad)},
		Operation: &message.Operation{Cmd: bad, Arg: message.OperationArg{Method: message.Method(bad), Kind: bad, ReceivingNode: message.Node(bad), AllowedNodes: []message.Node{"n", message.Node(bad)}}},
	}
	before := m.Data
	got := decode(t, encode(t, m))
	if before[1] != bad || len(m.Headers) != 2 || m.Headers[bad] != bad {
		t.Error("the message itself was changed")
	}
	want := "a\uFFFDb"
	for i, s := range []string{got.Data[1], got.Data[3], got.ReplyMethodArgs[0], got.Directory, got.FileName, got.Headers[want],
		string(got.Result.Code), got.Result.Text, got.Result.Signal, got.Operation.Cmd, string(got.Operation.Arg.Method), got.Operation.Arg.Kind,
		string(got.Operation.Arg.ReceivingNode), string(got.Operation.Arg.AllowedNodes[1])} {
		if s != want {
			t.Errorf("text %d is %q", i, s)
		}
	}
	if got.Data[0] != "good" || got.Data[2] != "c" || got.Headers["k"] != "v" || string(got.Body) != bad || string(got.Result.Stderr) != bad {
		t.Errorf("what was sound has changed: %+v", got)
	}
}

func TestManyInvalidTextsTakeTimeByTheirNumber(t *testing.T) {
	data := make([]string, 1<<17)
	for i := range data {
		data[i] = "\xe9t\xe9"
	}
	// By the square this would take minutes and gigabytes.
	got := decode(t, encode(t, message.Message{ID: message.ID{9}, Data: data}))
	if len(got.Data) != len(data) || !utf8.ValidString(got.Data[len(data)-1]) {
		t.Error("not all came back")
	}
}

func TestEncodeMessageRefusesWhatNobodyCouldDecode(t *testing.T) {
	headers := map[string]string{}
	for i := range 1<<10 + 1 {
		headers[strings.Repeat("h", i)] = ""
	}
	for name, m := range map[string]message.Message{
		"body":                 {Body: make([]byte, wire.MaxMessage)},
		"data":                 {Data: []string{strings.Repeat("x", wire.MaxMessage)}},
		"many arguments":       {Data: make([]string, 1<<17+1)},
		"many reply arguments": {ReplyMethodArgs: make([]string, 1<<17+1)},
		"many headers":         {Headers: headers},
		"many nodes":           {Operation: &message.Operation{Arg: message.OperationArg{AllowedNodes: make([]message.Node, 1<<17+1)}}},
		"reply method":         {ReplyMethod: "REQ.>"},
		"request method":       {RequestMethod: "REQ\r\nPUB"},
	} {
		m.ID = message.ID{9}
		if b, err := wire.EncodeMessage(&m); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	m := message.Message{ID: message.ID{9}, Body: make([]byte, wire.MaxMessage-64)}
	c := wire.NewCodec()
	data, err := c.EncodeFrame(&wire.Frame{From: "a", To: "b", Method: "REQPing", Epoch: 1, Base: 1, First: 1, End: 2, Entries: []wire.Entry{{Seq: 1, Message: encode(t, m)}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.DecodeFrame(data)
	if err != nil {
		t.Fatal(err)
	}
	decode(t, f.Entries[0].Message)
}

func mustCBOR(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeMessageRefusesWhatIsNone(t *testing.T) {
	id := make([]byte, 16)
	id[0] = 1
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"garbage":               []byte("\xff\xff\xff"),
		"text":                  []byte(`{"method":"REQPing"}`),
		"an array":              mustCBOR(t, []int{1}),
		"no id":                 mustCBOR(t, map[int]any{2: []string{"x"}}),
		"a zero id":             mustCBOR(t, map[int]any{1: make([]byte, 16)}),
		"a short id":            mustCBOR(t, map[int]any{1: id[:15]}),
		"a long id":             mustCBOR(t, map[int]any{1: append(id[:16:16], 0)}),
		"a short inReplyTo":     mustCBOR(t, map[int]any{1: id, 18: id[:3]}),
		"a bad reply method":    mustCBOR(t, map[int]any{1: id, 4: "a.>"}),
		"a subject as reply":    mustCBOR(t, map[int]any{1: id, 4: "REQ\r\nPUB x 0\r\n"}),
		"a bad request method":  mustCBOR(t, map[int]any{1: id, 19: "../x"}),
		"invalid UTF-8":         append(mustCBOR(t, map[int]any{1: id})[:0:0], append([]byte{0xa2, 1, 0x50}, append(id[:16:16], 15, 0x61, 0xff)...)...),
		"bytes behind the end":  append(mustCBOR(t, map[int]any{1: id}), 0),
		"a tag":                 {0xc1, 0xa1, 1, 0},
		"an indefinite length":  {0xbf, 0xff},
		"a claim of 2^40 texts": append([]byte{0xa2, 1, 0x50}, append(id[:16:16], 2, 0x9b, 0, 0, 1, 0, 0, 0, 0, 0)...),
		"a claim of 2^40 bytes": append([]byte{0xa2, 1, 0x50}, append(id[:16:16], 3, 0x5b, 0, 0, 1, 0, 0, 0, 0, 0)...),
		"a key twice":           append([]byte{0xa2, 1, 0x50}, append(id[:16:16], append([]byte{1, 0x50}, id...)...)...),
		"deep nesting":          []byte(strings.Repeat("\x81", 100) + "\x00"),
	} {
		if m, err := wire.DecodeMessage(b); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestDecodeMessageKeepsTimesFromOutsidePrintable(t *testing.T) {
	id := make([]byte, 16)
	id[0] = 1
	for _, n := range []int64{1<<63 - 1, -1 << 63, 253402300800000, -1} {
		m := decode(t, mustCBOR(t, map[int]any{1: id, 6: n, 14: n, 21: map[int]any{1: "done", 7: n, 8: n}}))
		if m.ACKTimeout < -1 || m.TTL < -1 || m.Result.Took < 0 {
			t.Errorf("%d becomes %v, %v, %v", n, m.ACKTimeout, m.TTL, m.Result.Took)
		}
		if _, err := json.Marshal(m.Result.Started); err != nil {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func TestDecodeMessagePassesOverKeysOfLaterVersions(t *testing.T) {
	id := make([]byte, 16)
	id[0] = 1
	m := decode(t, mustCBOR(t, map[int]any{1: id, 2: []string{"x"}, 99: map[int]any{1: "new"}, 21: map[int]any{1: "done", 77: 1}}))
	if len(m.Data) != 1 || m.Data[0] != "x" || m.Result.Code != message.CodeDone {
		t.Errorf("%+v", m)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(encode(f, message.Message{ID: message.ID{9}, Data: []string{"date", "-u"}, ReplyMethod: "REQToFile", ACKTimeout: time.Second, Headers: map[string]string{"a": "b"}}))
	f.Add(encode(f, message.Message{ID: message.ID{9}, InReplyTo: message.ID{8}, RequestMethod: "REQPing", Part: 3, Body: []byte("x"),
		Result: &message.Result{Code: message.CodeFailed, Exit: -1, Stderr: []byte("no"), Started: time.UnixMilli(5), Attempt: 1}}))
	f.Add(encode(f, message.Message{ID: message.ID{9}, Operation: &message.Operation{Cmd: "ps"}, Schedule: &message.Schedule{Every: 1, For: 2}}))
	f.Add([]byte{0xa1, 1, 0x5b, 0, 0, 1, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.DecodeMessage(b)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) {
				t.Fatalf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		again, err := wire.EncodeMessage(m)
		if err != nil {
			t.Fatalf("cannot be encoded again: %v", err)
		}
		back, err := wire.DecodeMessage(again)
		if err != nil {
			t.Fatalf("cannot be decoded again: %v", err)
		}
		twice, err := wire.EncodeMessage(back)
		if err != nil || len(m.Headers) < 2 && string(twice) != string(again) {
			t.Fatalf("changes on its way: %x, then %x, %v", again, twice, err)
		}
	})
}
