package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

// What AppendText writes is read again as the same message.
func TestWrittenMessagesAreReadAgain(t *testing.T) {
	seconds := func(least int64) *rapid.Generator[time.Duration] {
		return rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(least, 1e6).Draw(t, "s")) * time.Second
		})
	}
	run := rapid.OneOf(seconds(1), rapid.Just(message.Forever))
	rapid.Check(t, func(t *rapid.T) {
		m := message.Message{
			From: "central", To: rapid.OneOf(rapid.Just(message.Node("central")), anyNode()).Draw(t, "to"), Method: "REQCliCommand",
			Data: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "data"), ReplyMethod: rapid.SampledFrom([]message.Method{"REQNone", "REQToFileAppend", "REQPong"}).Draw(t, "reply"),
			ReplyMethodArgs: rapid.SliceOf(rapid.String()).Draw(t, "args"),
			ACKTimeout:      seconds(1).Draw(t, "ack"), Retries: rapid.IntRange(0, 9).Draw(t, "retries"), RetryWait: seconds(0).Draw(t, "wait"),
			ReplyACKTimeout: seconds(0).Draw(t, "reply ack"), ReplyRetries: rapid.IntRange(0, 9).Draw(t, "reply retries"),
			MethodTimeout: run.Draw(t, "run"), ReplyMethodTimeout: run.Draw(t, "reply run"), MethodRetries: rapid.IntRange(0, 9).Draw(t, "runs"),
			TTL: seconds(0).Draw(t, "ttl"), Directory: rapid.SampledFrom([]string{"", "a/b", "/var/x", "\"quoted\""}).Draw(t, "dir"), FileName: rapid.SampledFrom([]string{"", "f", "<&>"}).Draw(t, "file"),
		}
		if rapid.Bool().Draw(t, "again") {
			m.Schedule = &message.Schedule{Every: 5 * time.Second, For: rapid.SampledFrom([]time.Duration{5 * time.Second, time.Hour, message.Forever}).Draw(t, "for")}
		}
		if rapid.Bool().Draw(t, "operation") {
			m.Method, m.Operation = "REQOpCommand", rapid.SampledFrom([]*message.Operation{
				{Cmd: "ps"},
				{Cmd: "stopProc", Arg: message.OperationArg{Method: "REQPing", Kind: "publisher", ReceivingNode: "ship1", ID: 7}},
				{Cmd: "startProc", Arg: message.OperationArg{Method: "REQPing", AllowedNodes: []message.Node{"*", "ship1"}}},
				{Cmd: "clearQueue", Arg: message.OperationArg{MessageID: message.ID{5, 15: 6}, OlderThan: time.Minute}},
			}).Draw(t, "which")
		}
		if m.To == "central" && rapid.Bool().Draw(t, "in the name of") {
			m.Headers = map[string]string{message.HeaderFrom: "ship7"}
		}
		text := wire.AppendText([]byte("x"), &m)
		if text[0] != 'x' || bytes.IndexByte(text, '\n') >= 0 {
			t.Fatalf("%q", text)
		}
		drafts, err := wire.NewDecoder(bytes.NewReader(text[1:]), wire.Limits{}).Next()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		// Nothing is left to the defaults of the node that it is handed to.
		def := defaults()
		def.ACKTimeout, def.Retries, def.RetryWait, def.MethodTimeout, def.MaxSize = 99*time.Second, 99, 0, 99*time.Second, 0
		got, err := wire.ResolveAll(drafts, def)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if len(got[0].ReplyMethodArgs) == 0 && len(m.ReplyMethodArgs) == 0 {
			got[0].ReplyMethodArgs, m.ReplyMethodArgs = nil, nil
		}
		if !reflect.DeepEqual(got, []message.Message{m}) {
			t.Fatalf("%s\ngot  %+v\nwant %+v", text, got, m)
		}
	})
}

func TestWrittenMessageReadsLikeTheDocuments(t *testing.T) {
	m := message.Message{From: "central", To: "ship1", Method: "REQCliCommand", Data: []string{"bash", "-c", "a <b> & c"},
		ReplyMethod: "REQToFileAppend", ACKTimeout: 1500 * time.Millisecond, Retries: 3, MethodTimeout: message.Forever}
	got := wire.AppendText(nil, &m)
	want := `{"toNode":"ship1","method":"REQCliCommand","data":["bash","-c","a <b> & c"],"replyMethod":"REQToFileAppend",` +
		`"ACKTimeout":2,"retries":3,"replyACKTimeout":0,"replyRetries":0,"methodTimeout":-1}`
	if string(got) != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// What is quoted is JSON, whatever it holds, and means the same.
func FuzzAppendQuoted(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\n\t\r\x00\x7f", "<&>", "\xff\xc3", "sk\u00e6r\u2028\u2029\U0001F6A2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		b := wire.AppendQuoted(nil, s)
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %s: %v", s, b, err)
		}
		// Each byte that is not UTF-8 becomes a character of its own, as a conversion to runes has it.
		if want := string([]rune(s)); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	})
}
