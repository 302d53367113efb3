package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

// outcome is what one call of Next gave.
type outcome struct {
	drafts []wire.Draft
	refuse string // text of a RefusedError
	syntax string // text of a SyntaxError
}

// all reads a stream to its end.
func all(t testing.TB, r io.Reader, lim wire.Limits) []outcome {
	t.Helper()
	var got []outcome
	for dec := wire.NewDecoder(r, lim); ; {
		drafts, err := dec.Next()
		var syntax *wire.SyntaxError
		var refused *wire.RefusedError
		switch {
		case err == io.EOF:
			return got
		case errors.As(err, &syntax):
			if _, again := dec.Next(); again != err {
				t.Fatalf("after %v, Next gave %v", err, again)
			}
			return append(got, outcome{syntax: err.Error()})
		case errors.As(err, &refused):
			if !errors.Is(err, message.ErrInvalid) {
				t.Fatalf("%v is no ErrInvalid", err)
			}
			got = append(got, outcome{refuse: err.Error()})
		case err != nil:
			t.Fatalf("unexpected kind of error: %v", err)
		default:
			got = append(got, outcome{drafts: drafts})
		}
	}
}

func one(t testing.TB, text string) outcome {
	t.Helper()
	got := all(t, strings.NewReader(text), wire.Limits{})
	if len(got) != 1 {
		t.Fatalf("%q: %d values, want one: %+v", text, len(got), got)
	}
	return got[0]
}

func ptr[T any](v T) *T { return &v }

func TestEveryFieldIsRead(t *testing.T) {
	want := wire.Draft{
		Position: 1, ToNodes: []string{"ship1", "ship2", "ship3"}, FromNode: ptr("central"),
		Method: "REQOpCommand", Data: []string{"a", "é\n😀"}, ReplyMethod: ptr("REQToFile"), ReplyMethodArgs: []string{},
		ACKTimeout: ptr(int64(0)), Retries: ptr(int64(1)), RetryWait: ptr(int64(2)),
		ReplyACKTimeout: ptr(int64(3)), ReplyRetries: ptr(int64(4)),
		MethodTimeout: ptr(int64(-1)), ReplyMethodTimeout: ptr(int64(5)), MethodRetries: ptr(int64(6)), TTL: ptr(int64(7)),
		Schedule: &[2]int64{8, 9}, Directory: ptr("d"), FileName: ptr(""),
		Operation: &wire.DraftOperation{Cmd: "stopProc", Method: "REQHttpGet", Kind: "subscriber", ReceivingNode: "ship2", ID: 127, AllowedNodes: []string{"*"}},
	}
	for name, text := range map[string]string{
		"JSON": `[{"toNode":"ship1","toNodes":["ship2","ship3"],"fromNode":"central","method":"REQOpCommand","data":["a","\u00e9\n\ud83d\ude00"],
			"replyMethod":"REQToFile","replyMethodArgs":[],"ACKTimeout":0,"retries":1,"retryWait":2,"replyACKTimeout":3,"replyRetries":4,
			"methodTimeout":-1,"replyMethodTimeout":5,"methodRetries":6,"ttl":7,"schedule":[8,9],"directory":"d","fileName":"",
			"operation":{"opCmd":"stopProc","opArg":{"method":"REQHttpGet","kind":"subscriber","receivingNode":"ship2","id":127,"allowedNodes":["*"]}},
			"commandOrEvent":"command"}]`,
		"JSON, other case, one object": `{"TONODE":"ship1","tonodes":["ship2","ship3"],"FromNode":"central","Method":"REQOpCommand","methodArgs":["a","é\u000A😀"],
			"ReplyMethod":"REQToFile","ReplyMethodArgs":[],"acktimeout":0,"Retries":1,"RetryWait":2,"ReplyAckTimeout":3,"ReplyRetries":4,
			"MethodTimeout":-1,"ReplyMethodTimeout":5,"MethodRetries":6,"TTL":7,"Schedule":[8,9],"Directory":"d","FileName":"",
			"Operation":{"OpCmd":"stopProc","opARG":{"Method":"REQHttpGet","Kind":"subscriber","ReceivingNode":"ship2","ID":127,"AllowedNodes":["*"]}},
			"CommandOrEvent":"event"}`,
		"YAML": `
  - toNode: ship1
    toNodes: [ship2, "ship3"]
    fromNode: central
    method: REQOpCommand
    data:
      - a
      - "é\n😀"
    replyMethod: REQToFile
    replyMethodArgs: []
    ACKTimeout: 0
    retries: 1
    retryWait: 2
    replyACKTimeout: 3
    replyRetries: 4
    methodTimeout: -1 # as long as the node runs
    replyMethodTimeout: 5
    methodRetries: 6
    ttl: 7
    schedule: [8, 9]
    directory: d
    fileName: ''
    operation:
      opCmd: stopProc
      opArg: {method: REQHttpGet, kind: subscriber, receivingNode: ship2, id: 127, allowedNodes: ["*"]}
`,
	} {
		t.Run(name, func(t *testing.T) {
			got := one(t, text)
			if len(got.drafts) != 1 || !reflect.DeepEqual(got.drafts[0], want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestAbsentFieldsAreNotZero(t *testing.T) {
	got := one(t, `[{"toNode":"a","method":"REQPing"}]`)
	want := []wire.Draft{{Position: 1, ToNodes: []string{"a"}, Method: "REQPing"}}
	if !reflect.DeepEqual(got.drafts, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSeedMessagesDecodeAndResolve(t *testing.T) {
	files, err := filepath.Glob("testdata/seed/*.json")
	if err != nil || len(files) != 14 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := one(t, string(text))
		if len(got.drafts) == 0 {
			t.Errorf("%s: %+v", file, got)
			continue
		}
		if _, err := wire.ResolveAll(got.drafts, defaults()); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct{ text, want string }{
		{`[{"toNod":"a"}]`, `message 1: unknown key "toNod", did you mean "toNode"?`},
		{`[{},{"RETRY":1}]`, `message 2: unknown key "RETRY", did you mean "retries"?`},
		{`[{"` + long + `":1}]`, `message 1: unknown key "` + long[:64] + `"… (100000 bytes)`},
		{`[{"toNode":"a","method":"x","TONODE":"b"}]`, `message 1: toNode: given twice`},
		{`[{"data":[],"methodArgs":[]}]`, `message 1: methodArgs: given beside "data", which means the same`},
		{`[{"operation":{"opArg":{"id":1,"Id":2}}}]`, `message 1: operation.opArg.id: given twice`},
		{`[{"operation":{"opArg":{"metod":"x"}}}]`, `message 1: unknown key "operation.opArg.metod", did you mean "method"?`},
		{`[{"data":["sleep",5]}]`, `message 1: data: element 2: found the number 5, want a text in quotes`},
		{`[{"data":"ls"}]`, `message 1: data: found the text "ls", want an array of texts`},
		{`[{"toNode":["a"]}]`, `message 1: toNode: found an array, want a text`},
		{`[{"toNodes":"a"}]`, `message 1: toNodes: found the text "a", want an array of texts`},
		{`[{"retries":"3"}]`, `message 1: retries: found the text "3", want a whole number`},
		{`[{"retries":null}]`, `message 1: retries: found null, want a whole number`},
		{`[{"retries":1.5}]`, `message 1: retries: found the number 1.5, want a whole number`},
		{`[{"retries":1e2}]`, `message 1: retries: found the number 1e2, want a whole number`},
		{`[{"retries":99999999999999999999}]`, `message 1: retries: found the number 99999999999999999999, want a smaller one`},
		{`[{"method":true}]`, `message 1: method: found true, want a text`},
		{`[{"fileName":{}}]`, `message 1: fileName: found an object, want a text`},
		{`[{"schedule":[1]}]`, `message 1: schedule: want an array of two whole numbers: every, for (seconds)`},
		{`[{"schedule":[1,2,3]}]`, `message 1: schedule: want an array of two whole numbers: every, for (seconds)`},
		{`[{"schedule":[1,"2"]}]`, `message 1: schedule: element 2: found the text "2", want a whole number`},
		{`[{"schedule":5}]`, `message 1: schedule: found the number 5, want an array of two whole numbers: every, for (seconds)`},
		{`[{"operation":"ps"}]`, `message 1: operation: found the text "ps", want an object`},
		{`[{"commandOrEvent":"Command"}]`, `message 1: commandOrEvent: found "Command", want "command" or "event"`},
		{`[{},7]`, `message 2: found the number 7, want an object`},
		{`[[]]`, `message 1: found an array, want an object`},
		{"- toNode: a\n  data: [sleep, 5]\n", `message 1: data: element 2: found the number 5, want a text in quotes`},
		{"retries: 010\n", `message 1: retries: found the number 010, want a whole number`},
		{"retries: 0x10\n", `message 1: retries: found the number 0x10, want a whole number`},
		{"retries:\n", `message 1: retries: found null, want a whole number`},
		{"ToNode: a\ntonode: b\n", `message 1: toNode: given twice`},
		{"hello world\n", `found the text "hello world", want a message or an array of messages`},
		{"~\n", `found null, want a message or an array of messages`},
		{"data: &a [x]\nreplyMethodArgs: *a\n", `line 2 of the document: anchors and aliases are not supported`},
		{"method: !mine x\n", `line 1 of the document: the tag "!mine" is not supported`},
		{"? [a]\n: b\n", `line 1 of the document: a key that is not a text`},
	} {
		if got := one(t, c.text); got.refuse != c.want {
			t.Errorf("%.60q: got %+v\nwant %s", c.text, got, c.want)
		}
	}
}

func TestDatesInYAMLAreText(t *testing.T) {
	got := one(t, "data: [2024-01-02, yes, 12:30:45, !!str 5]\n")
	if want := []string{"2024-01-02", "yes", "12:30:45", "5"}; len(got.drafts) != 1 || !reflect.DeepEqual(got.drafts[0].Data, want) {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestSyntaxErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct {
		text   string
		offset int64
		line   int
		want   string
	}{
		{"\x00", 0, 1, "0x00"},
		{"\n\n [{}]\x01", 7, 3, "0x01"},
		{"[\x00", 1, 1, "0x00"},
		{"[{}\n,]", 5, 2, `unexpected ']', want something after ","`},
		{`[{"a":1,}]`, 8, 1, `unexpected '}'`},
		{`[{"a" 1}]`, 6, 1, `want ":"`},
		{`[{a:1}]`, 2, 1, "a key in double quotes"},
		{`[{"data":["a" "b"]}]`, 14, 1, `want "," or "]"`},
		{`[{"data":["a"}`, 13, 1, `want "," or "]"`},
		{`{"a":1]`, 6, 1, `want "," or "}"`},
		{`[{}]]`, 4, 1, `unexpected ']'`},
		{`[{}],[{}]`, 4, 1, `unexpected ','`},
		{"[\"a\nb\"]", 3, 1, "0x0a in a text"},
		{`["\x"]`, 3, 1, "escape"},
		{`["\ud800"]`, 8, 1, `unexpected '"'`},
		{`["\ud800\u0041"]`, 14, 1, "surrogate"},
		{"[\"\xff\"]", 2, 1, "not UTF-8"},
		{`[01]`, 3, 1, "not a number"},
		{`[-]`, 2, 1, "not a number"},
		{`[1.]`, 3, 1, "not a number"},
		{`[tru]`, 4, 1, "want true"},
		{"[{\n", 3, 2, "the stream ends in the middle of a message"},
		{`[{"data":["abc`, 14, 1, "the stream ends in the middle of a message"},
		{strings.Repeat("[", 40), 32, 1, "nested more than 32 deep"},
		{"a: b\n\x00", 5, 2, "0x00"},
		{"a: b\n\xc3(", 5, 2, "not UTF-8"},
		{"\n\na: b\n c: d\n e\n", 7, 4, "YAML"},
		{"  a: b\n   c: d\n", 7, 2, "YAML"},
		{"a: [\n---\n[]", 0, 1, "YAML"},
		{"--- a: b\n", 0, 1, "YAML"},
		{strings.Repeat("- ", 40) + "a", 0, 1, "nested more than 32 deep"},
		{"%YAML 1.2\n", 0, 1, "'%'"},
	} {
		dec := wire.NewDecoder(strings.NewReader(c.text), wire.Limits{})
		var err error
		for err == nil || errors.Is(err, message.ErrInvalid) {
			_, err = dec.Next()
		}
		var syntax *wire.SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%.40q: got %v, want a syntax error", c.text, err)
			continue
		}
		if syntax.Offset != c.offset || syntax.Line != c.line || !strings.Contains(syntax.Text, c.want) {
			t.Errorf("%.40q: offset %d, line %d, %s\nwant offset %d, line %d, %s", c.text, syntax.Offset, syntax.Line, syntax.Text, c.offset, c.line, c.want)
		}
	}
}

// never is a stream that goes on after its text, but nothing comes.
type never struct {
	r io.Reader
	t testing.TB
}

func (n never) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err == io.EOF {
		n.t.Error("the decoder waits for more")
	}
	return k, err
}

func TestGarbageAndCompleteArraysNeedNoMoreInput(t *testing.T) {
	for _, text := range []string{"\x00", "[\x00", "abc\x07", "\xff", "a\xff", "[{\"a\":\"\xff", "[nul\x00", "[}"} {
		_, err := wire.NewDecoder(never{strings.NewReader(text), t}, wire.Limits{}).Next()
		if syntax := (*wire.SyntaxError)(nil); !errors.As(err, &syntax) {
			t.Errorf("%q: got %v", text, err)
		}
	}
	for _, text := range []string{"[{}]", "{}", "- {}\n---\n", "a: b\n...\n"} {
		_, err := wire.NewDecoder(never{strings.NewReader(text), t}, wire.Limits{}).Next()
		if err != nil && !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestStreamGoesOnAfterARefusedArray(t *testing.T) {
	text := "\xEF\xBB\xBF\n" + `[{"toNode":"a"}]` + "\r\n\n" + `{"toNode":"b"}[{"bad":[[{"x":"\n"}]],"toNode":3},{}] ["x"]` +
		"\n# a comment\n---\ntoNode: c\n--- # next\n- toNode: d\n...\n---\n" + `[{"toNode":"e"},{"toNode":"f"}]` + "\ntoNode: g"
	var got []string
	for _, o := range all(t, strings.NewReader(text), wire.Limits{}) {
		names := o.refuse + o.syntax
		for _, d := range o.drafts {
			names += d.ToNodes[0]
		}
		got = append(got, names)
	}
	want := []string{"a", "b", `message 1: unknown key "bad", did you mean "data"?`, `message 1: found the text "x", want an object`, "c", "d", "ef", "g"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// endless repeats a text until so many bytes have been read.
func endless(text string, size int64) io.Reader {
	text, at := strings.Repeat(text, 1+(64<<10)/len(text)), 0
	return io.LimitReader(readerFunc(func(p []byte) (int, error) {
		n := 0
		for n < len(p) {
			k := copy(p[n:], text[at:])
			n, at = n+k, (at+k)%len(text)
		}
		return n, nil
	}), size)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestTooLargeArraysAreRefusedAndPassedOver(t *testing.T) {
	lim := wire.Limits{Array: 1 << 19, YAML: 1 << 16, Messages: 10}
	const huge = 4 << 20
	good := `[{"toNode":"a"}]`
	for name, c := range map[string]struct {
		r    io.Reader
		want string
	}{
		"one text":           {io.MultiReader(strings.NewReader(`[{"data":["`), endless("abcdefgh", huge), strings.NewReader(`"]}]`)), "larger than the limit of 524288 bytes"},
		"one text, escaped":  {io.MultiReader(strings.NewReader(`[{"data":["`), endless(`\n`, huge), strings.NewReader(`"]}]`)), "larger than the limit of 524288 bytes"},
		"one key":            {io.MultiReader(strings.NewReader(`[{"`), endless(`é`, huge), strings.NewReader(`":1}]`)), "larger than the limit of 524288 bytes"},
		"white space":        {io.MultiReader(strings.NewReader(`[`), endless(` `, huge), strings.NewReader(`]`)), "larger than the limit of 524288 bytes"},
		"many texts":         {io.MultiReader(strings.NewReader(`[{"data":["a"`), endless(`,"a"`, huge/4*4), strings.NewReader(`]}]`)), "larger than the limit of 524288 bytes"},
		"many messages":      {io.MultiReader(strings.NewReader(`[{}`), endless(`,{}`, huge/3*3), strings.NewReader(`]`)), "more than 10 messages"},
		"unknown, then huge": {io.MultiReader(strings.NewReader(`[{"x":"`), endless(`aa`, huge), strings.NewReader(`"}]`)), `unknown key "x"`},
		"YAML":               {io.MultiReader(strings.NewReader("data:\n"), endless("- abcdefghijklmno\n", huge/18*18), strings.NewReader("\n---\n")), "YAML document is larger than the limit of 65536 bytes"},
		"YAML, one line":     {io.MultiReader(strings.NewReader("a: "), endless("b", huge), strings.NewReader("\n---\n")), "YAML document is larger than the limit of 65536 bytes"},
		"YAML, indented":     {io.MultiReader(endless(" ", huge), strings.NewReader("a: b\n---\n")), "YAML document is larger than the limit of 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []outcome
			bytesUsed := allocated(func() {
				got = all(t, io.MultiReader(c.r, strings.NewReader(good)), lim)
			})
			if len(got) != 2 || !strings.Contains(got[0].refuse, c.want) || len(got[1].drafts) != 1 {
				t.Errorf("got %.500q", fmt.Sprint(got))
			}
			if bytesUsed > 12<<20 {
				t.Errorf("%d bytes were allocated for an array of at most half a MiB", bytesUsed)
			}
		})
	}
}

func TestReaderErrorsArePassedOn(t *testing.T) {
	broken := errors.New("broken")
	dec := wire.NewDecoder(io.MultiReader(strings.NewReader(`[{}] [{"a`), iotest.ErrReader(broken)), wire.Limits{})
	if _, err := dec.Next(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := dec.Next(); !errors.Is(err, broken) || !dec.Pending() {
			t.Errorf("got %v, pending %v", err, dec.Pending())
		}
	}
	dec = wire.NewDecoder(readerFunc(func([]byte) (int, error) { return 0, nil }), wire.Limits{})
	if _, err := dec.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
}

func TestPendingTellsAHalfArrayFromSilence(t *testing.T) {
	var dec *wire.Decoder
	var pending []bool
	parts := []string{" \n", " [", "{", "}", "] ", "\n", "toNode: ", "a\n", "---\n", "\n"}
	dec = wire.NewDecoder(readerFunc(func(p []byte) (int, error) {
		pending = append(pending, dec.Pending())
		if len(parts) == 0 {
			return 0, io.EOF
		}
		n := copy(p, parts[0])
		parts = parts[1:]
		return n, nil
	}), wire.Limits{})
	var err error
	for err == nil {
		_, err = dec.Next()
	}
	want := []bool{false, false, true, true, true, false, false, true, true, false, false}
	if !reflect.DeepEqual(pending, want) {
		t.Errorf("got  %v\nwant %v", pending, want)
	}
}

func TestReadSizesDoNotMatter(t *testing.T) {
	value := rapid.SampledFrom([]string{
		`[{"toNode":"ship1","data":["é\ud83d\ude00😀","x"],"retries":12}]`, `[]`, `{"method":"a"}`, "\n", " ", "\n---\n",
		"\ntoNode: é\n---\n", "\n- data: [a,\n   b]\n...\n", `[{"x":1}]`, `["`, "\x00", "\xff", `[{"data":[5]}]`, "# c\n", "plain",
		`[{"fileName":"` + strings.Repeat("aé", 5000) + `"}]`,
	})
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Join(rapid.SliceOfN(value, 0, 8).Draw(rt, "text"), "")
		whole := all(t, strings.NewReader(text), wire.Limits{})
		sizes := rapid.SliceOfN(rapid.IntRange(1, 9000), 1, 5).Draw(rt, "sizes")
		rest, i := []byte(text), 0
		parts := all(t, readerFunc(func(p []byte) (int, error) {
			if len(rest) == 0 {
				return 0, io.EOF
			}
			n := copy(p[:min(len(p), sizes[i%len(sizes)])], rest)
			rest = rest[n:]
			i++
			return n, nil
		}), wire.Limits{})
		if !reflect.DeepEqual(whole, parts) {
			rt.Fatalf("%q\nwhole %+v\nparts %+v", text, whole, parts)
		}
		if bytewise := all(t, iotest.OneByteReader(bytes.NewReader([]byte(text))), wire.Limits{}); !reflect.DeepEqual(whole, bytewise) {
			rt.Fatalf("%q\nwhole    %+v\nbytewise %+v", text, whole, bytewise)
		}
	})
}
