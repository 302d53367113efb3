package wire_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/message/wire"
)

type catalog map[message.Method]wire.MethodInfo

func (c catalog) Method(name message.Method) (wire.MethodInfo, bool) {
	info, ok := c[name]
	return info, ok
}

func (c catalog) Methods() []message.Method {
	var all []message.Method
	for name := range c {
		all = append(all, name)
	}
	return all
}

func defaults() wire.Defaults {
	return wire.Defaults{
		Self: "central",
		Catalog: catalog{
			"REQCliCommand":   {Kind: message.CommandACK, Reply: "REQToFileAppend", Args: "COMMAND [ARG ...]", MinArgs: 1},
			"REQTailFile":     {Kind: message.EventACK, Reply: "REQToFileAppend", MinArgs: 1},
			"REQPing":         {Kind: message.EventACK, Reply: "REQPong"},
			"REQPong":         {Kind: message.EventACK, Reply: "REQNone"},
			"REQToFileAppend": {Kind: message.EventACK, Reply: "REQNone"},
			"REQOpCommand":    {Kind: message.CommandACK, Reply: "REQToFileAppend"},
		},
		ACKTimeout: 5 * time.Second, Retries: 3, RetryWait: time.Second, MethodTimeout: 10 * time.Second,
		MaxSize: 1 << 20,
	}
}

func resolve(t *testing.T, text string, def wire.Defaults) ([]message.Message, error) {
	t.Helper()
	got := one(t, text)
	if got.drafts == nil {
		t.Fatalf("%s: %+v", text, got)
	}
	return wire.ResolveAll(got.drafts, def)
}

func TestResolveFillsInDefaults(t *testing.T) {
	got, err := resolve(t, `{"toNode":"ship1","method":"REQCliCommand","data":["ls"]}`, defaults())
	want := []message.Message{{
		From: "central", To: "ship1", Method: "REQCliCommand", Data: []string{"ls"}, ReplyMethod: "REQToFileAppend",
		ACKTimeout: 5 * time.Second, Retries: 3, RetryWait: time.Second,
		ReplyACKTimeout: 5 * time.Second, ReplyRetries: 3,
		MethodTimeout: 10 * time.Second, ReplyMethodTimeout: 10 * time.Second,
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestResolveTakesWhatIsGiven(t *testing.T) {
	got, err := resolve(t, `{"toNode":"local","method":"REQOpCommand","methodArgs":["x"],"replyMethod":"REQNone","replyMethodArgs":["y"],
		"ACKTimeout":0,"retries":0,"retryWait":7,"replyACKTimeout":8,"replyRetries":9,"methodTimeout":-1,"replyMethodTimeout":11,
		"methodRetries":12,"ttl":13,"directory":"/a/b","fileName":"c","fromNode":"other",
		"operation":{"opCmd":"startProc","opArg":{"method":"REQPing","kind":"subscriber","receivingNode":"ship2","allowedNodes":["*","ship3"]}}}`,
		func() wire.Defaults { d := defaults(); d.Start = "start 7"; return d }())
	want := []message.Message{{
		From: "central", To: "central", Method: "REQOpCommand", Headers: map[string]string{message.HeaderFrom: "other", message.HeaderStart: "start 7"}, Data: []string{"x"}, ReplyMethod: "REQNone", ReplyMethodArgs: []string{"y"},
		RetryWait: 7 * time.Second, ReplyACKTimeout: 8 * time.Second, ReplyRetries: 9,
		MethodTimeout: message.Forever, ReplyMethodTimeout: 11 * time.Second, MethodRetries: 12, TTL: 13 * time.Second,
		Directory: "/a/b", FileName: "c",
		Operation: &message.Operation{Cmd: "startProc", Arg: message.OperationArg{Method: "REQPing", Kind: "subscriber", ReceivingNode: "ship2", AllowedNodes: []message.Node{"*", "ship3"}}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestResolveTakesASchedule(t *testing.T) {
	got, err := resolve(t, `[{"toNode":"a","method":"REQPing","schedule":[2,5]},{"toNode":"a","method":"REQPing","schedule":[60,-1]}]`, defaults())
	if err != nil || *got[0].Schedule != (message.Schedule{Every: 2 * time.Second, For: 5 * time.Second}) ||
		*got[1].Schedule != (message.Schedule{Every: time.Minute, For: message.Forever}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOneMessagePerReceiver(t *testing.T) {
	got, err := resolve(t, `[{"toNode":"ship1","method":"REQPing"},
		{"toNodes":["b","local","a","b","central"],"toNode":"a","method":"REQPong"}]`, defaults())
	var to []string
	for _, m := range got {
		to = append(to, string(m.Method)+" "+string(m.To))
	}
	want := []string{"REQPing ship1", "REQPong b", "REQPong central", "REQPong a"}
	if err != nil || !reflect.DeepEqual(to, want) {
		t.Errorf("got %q, %v, want %q", to, err, want)
	}
}

func TestOldMethodNamesAreUnderstood(t *testing.T) {
	got, err := resolve(t, `[{"toNode":"a","method":"shellCommand","data":["ls"],"replyMethod":"textLogging"},{"toNode":"a","method":"textLogging"}]`, defaults())
	if err != nil || got[0].Method != "REQCliCommand" || got[0].ReplyMethod != "REQToFileAppend" || got[1].Method != "REQToFileAppend" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestResolveRefuses(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, c := range []struct{ fields, want string }{
		{`"method":"REQFoo"`, `message 2: unknown method "REQFoo", did you mean "REQPong"?`},
		{`"method":"reqclicommand"`, `message 2: unknown method "reqclicommand", did you mean "REQCliCommand"?`},
		{`"method":"` + long + `"`, `message 2: unknown method "` + long[:64] + `"… (1000 bytes)`},
		{`"method":""`, `message 2: no method: set "method"`},
		{`"replyMethod":"REQPongg"`, `message 2: replyMethod: unknown method "REQPongg", did you mean "REQPong"?`},
		{`"toNode":"../x"`, `message 2: toNode: invalid node name "../x": blanks, control characters, "*", ">", "/" and "\" are not allowed`},
		{`"toNode":">"`, `message 2: toNode: invalid node name ">": blanks, control characters, "*", ">", "/" and "\" are not allowed`},
		{`"toNodes":["a","b c"]`, `message 2: toNode: invalid node name "b c": blanks, control characters, "*", ">", "/" and "\" are not allowed`},
		{`"toNodes":[]`, `message 2: no receiver: set "toNode" or "toNodes"`},
		{`"toNode":""`, `message 2: toNode: invalid node name: it is empty`},
		{`"method":"REQCliCommand"`, `message 2: data: REQCliCommand wants COMMAND [ARG ...]; found 0 of at least 1 elements`},
		{`"fromNode":"central"`, `message 2: fromNode: filled in by the node, leave it out; only a message to the node itself can have another one`},
		{`"schedule":[0,2]`, `message 2: schedule: found every 0, want seconds from 1 to 315360000 (ten years)`},
		{`"schedule":[3,2]`, `message 2: schedule: found every 3, for 2; for is seconds in all, from every to 315360000 (ten years), or -1 for without end`},
		{`"schedule":[3,-2]`, `message 2: schedule: found every 3, for -2; for is seconds in all, from every to 315360000 (ten years), or -1 for without end`},
		{`"schedule":[1,2],"ACKTimeout":0`, `message 2: schedule: a message without ACK is not kept, so it cannot be run again`},
		{`"ACKTimeout":-1`, `message 2: ACKTimeout: found -1, want seconds from 0 on`},
		{`"replyACKTimeout":-1`, `message 2: replyACKTimeout: found -1, want seconds from 0 on`},
		{`"retryWait":-1`, `message 2: retryWait: found -1, want seconds from 0 on`},
		{`"ttl":-1`, `message 2: ttl: found -1, want seconds from 0 on`},
		{`"ttl":315360001`, `message 2: ttl: found 315360001, want at most 315360000 seconds (ten years)`},
		{fmt.Sprintf(`"methodTimeout":%d`, math.MaxInt64), `message 2: methodTimeout: found 9223372036854775807, want at most 315360000 seconds (ten years)`},
		{`"methodTimeout":0`, `message 2: methodTimeout: found 0, want seconds from 1 on, or -1 for as long as the node runs`},
		{`"replyMethodTimeout":-2`, `message 2: replyMethodTimeout: found -2, want seconds from 1 on, or -1 for as long as the node runs`},
		{`"retries":-1`, `message 2: retries: found -1, want a number from 0 to 2147483647`},
		{`"replyRetries":-1`, `message 2: replyRetries: found -1, want a number from 0 to 2147483647`},
		{`"methodRetries":2147483648`, `message 2: methodRetries: found 2147483648, want a number from 0 to 2147483647`},
		{`"directory":"a/../../b"`, `message 2: directory: invalid directory "a/../../b": it leaves the data folder`},
		{`"fileName":"a/b"`, `message 2: fileName: invalid fileName "a/b": want a plain name; folders go into "directory"`},
		{`"operation":{"opCmd":"ps"}`, `message 2: operation: only REQOpCommand takes one`},
		{`"method":"REQOpCommand"`, `message 2: operation: REQOpCommand wants one`},
		{`"method":"REQOpCommand","operation":{}`, `message 2: operation.opCmd: it is empty or missing`},
		{`"method":"REQOpCommand","operation":{"opCmd":"x","opArg":{"id":-1}}`, `message 2: operation.opArg.id: found -1, want a number from 0 to 2147483647`},
		{`"method":"REQOpCommand","operation":{"opCmd":"x","opArg":{"receivingNode":"*"}}`, `message 2: operation.opArg.receivingNode: invalid node name "*": blanks, control characters, "*", ">", "/" and "\" are not allowed`},
		{`"method":"REQOpCommand","operation":{"opCmd":"x","opArg":{"method":"a.b"}}`, `message 2: operation.opArg.method: invalid method "a.b": no dots`},
		{`"method":"REQOpCommand","operation":{"opCmd":"x","opArg":{"allowedNodes":["*",">"]}}`, `message 2: operation.opArg.allowedNodes: invalid node name ">": blanks, control characters, "*", ">", "/" and "\" are not allowed`},
		{`"method":"REQOpCommand","operation":{"opCmd":"startproc"}`, `message 2: operation: invalid opCmd "startproc", did you mean "startProc"?`},
		{`"method":"REQOpCommand","operation":{"opCmd":"ps","opArg":{"id":5}}`, `message 2: operation: invalid opArg: ps takes no id`},
		{`"method":"REQOpCommand","operation":{"opCmd":"clearQueue","opArg":{"method":"REQPing","id":5}}`, `message 2: operation: invalid opArg: clearQueue takes no id, did you mean "method"?`},
		{`"method":"REQOpCommand","operation":{"opCmd":"clearQueue"}`, `message 2: operation: invalid opArg of clearQueue: one of messageID, receivingNode, method and olderThan has to say what to remove`},
		{`"method":"REQOpCommand","operation":{"opCmd":"clearQueue","opArg":{"messageID":"x"}}`, `message 2: operation.opArg.messageID: found "x", want the id that was given at acceptance`},
		{`"method":"REQOpCommand","operation":{"opCmd":"clearQueue","opArg":{"olderThan":0}}`, `message 2: operation.opArg.olderThan: found 0, want seconds from 1 to 315360000`},
		{`"method":"REQOpCommand","operation":{"opCmd":"stopProc","opArg":{"method":"REQPing"}}`, `message 2: operation: invalid opArg of stopProc: kind is missing: subscriber or publisher`},
		{`"method":"REQOpCommand","operation":{"opCmd":"stopProc","opArg":{"method":"REQPing","kind":"Publisher"}}`, `message 2: operation: invalid kind "Publisher", did you mean "publisher"?`},
		{`"method":"REQOpCommand","operation":{"opCmd":"stopProc","opArg":{"method":"REQPing","kind":"publisher"}}`, `message 2: operation: invalid opArg of stopProc: receivingNode is missing: a publisher is that of a method and a node`},
		{`"method":"REQOpCommand","operation":{"opCmd":"startProc","opArg":{"allowedNodes":["a"]}}`, `message 2: operation: invalid opArg of startProc: method is missing`},
		{`"data":["` + strings.Repeat("x", 1<<20) + `"]`, `message 2: it is too large: about 1048866 bytes, the limit is 1048576`},
		{`"toNodes":[` + strings.Repeat(`"a",`, 10_000) + `"b"]`, `message 2: toNodes: 10001 receivers, at most 10000 are allowed`},
	} {
		fields := c.fields
		if !strings.Contains(fields, `"method":`) {
			fields += `,"method":"REQPing"`
		}
		if !strings.Contains(fields, `"toNode`) {
			fields += `,"toNode":"ship1"`
		}
		got, err := resolve(t, `[{"toNode":"a","method":"REQPing"},{`+fields+`}]`, defaults())
		if err == nil || err.Error() != c.want {
			t.Errorf("%.80s: got %v\nwant %s", c.fields, err, c.want)
		}
		if got != nil {
			t.Errorf("%.80s: refused, and yet %d messages", c.fields, len(got))
		}
	}
}

func TestReceiversOfAWholeArrayAreBounded(t *testing.T) {
	def := defaults()
	def.MaxMessages = 5
	message := `{"toNodes":["a","b","c"],"method":"REQPing"}`
	if _, err := resolve(t, "["+message+"]", def); err != nil {
		t.Error(err)
	}
	want := "message 2: with its receivers the array has more than 5 messages; send it in parts"
	if _, err := resolve(t, "["+message+","+message+"]", def); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestResolveOfOneDraftSaysWhereItStood(t *testing.T) {
	if _, err := (wire.Draft{Position: 7}).Resolve(defaults()); err == nil || err.Error() != `message 7: no method: set "method"` {
		t.Error(err)
	}
	if _, err := (wire.Draft{}).Resolve(defaults()); err == nil || err.Error() != `no method: set "method"` {
		t.Error(err)
	}
	got, err := wire.Draft{Method: "REQPing", ToNodes: []string{"local"}}.Resolve(defaults())
	if err != nil || len(got) != 1 || got[0].To != "central" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := wire.ResolveAll(nil, wire.Defaults{}); err == nil {
		t.Error("no error without a catalog")
	}
}

// What the startup folder holds is for the node itself, which need not be named.
func TestOnlySelfRefusesOtherReceivers(t *testing.T) {
	own := defaults()
	own.OnlySelf = true
	for _, text := range []string{`{"method":"REQPing"}`, `{"method":"REQPing","toNode":"local"}`, `{"method":"REQPing","toNodes":["central"]}`} {
		if got, err := resolve(t, text, own); err != nil || len(got) != 1 || got[0].To != "central" {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if got, err := resolve(t, `{"method":"REQPing","toNodes":["local","ship1"]}`, own); err == nil || !strings.Contains(err.Error(), "for this node itself") {
		t.Errorf("%+v, %v", got, err)
	}
}
