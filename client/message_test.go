package client_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"steward/client"
	"steward/message"
	"steward/message/wire"
	"steward/methods"
)

// resolved is what a node makes of a message.
func resolved(t *testing.T, m client.Message) (message.Message, error) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	drafts, err := wire.NewDecoder(strings.NewReader(string(text)), wire.Limits{}).Next()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	registry, err := methods.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	all, err := wire.ResolveAll(drafts, wire.Defaults{Self: "central", Catalog: catalog{registry}, ACKTimeout: 5 * time.Second, Retries: 3, MethodTimeout: 10 * time.Second})
	if err != nil {
		return message.Message{}, err
	}
	return all[0], nil
}

func TestWhatIsNotSaidIsLeftToTheNode(t *testing.T) {
	got, err := resolved(t, client.Message{To: nodes("ship1"), Method: "REQPing"})
	if err != nil || got.ACKTimeout != 5*time.Second || got.Retries != 3 || got.ReplyRetries != 3 || got.MethodTimeout != 10*time.Second || got.ReplyMethod != "REQPong" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMessageArrivesAsItWasSaid(t *testing.T) {
	m := client.Message{
		To: nodes("ship1"), Method: message.MethodOpCommand, Data: []string{"a", "<b>"},
		ReplyMethod: "REQCliCommand", ReplyMethodArgs: []string{"cat"},
		ACKTimeout: 2 * time.Second, Retries: client.Unlimited, RetryWait: 3 * time.Second,
		ReplyACKTimeout: client.NoACK, ReplyRetries: 4, MethodTimeout: message.Forever, ReplyMethodTimeout: 6 * time.Second, MethodRetries: 7,
		TTL: 7500 * time.Millisecond, Schedule: &message.Schedule{Every: 9 * time.Second, For: message.Forever}, Directory: "d", FileName: "f",
		Operation: &message.Operation{Cmd: message.OpStartProc, Arg: message.OperationArg{Method: "REQPing", Kind: message.KindSubscriber, AllowedNodes: nodes("x", "y")}},
	}
	got, err := resolved(t, m)
	if err != nil {
		t.Fatal(err)
	}
	want := message.Message{
		From: "central", To: "ship1", Method: m.Method, Data: m.Data, ReplyMethod: m.ReplyMethod, ReplyMethodArgs: m.ReplyMethodArgs,
		ACKTimeout: 2 * time.Second, Retries: 0, RetryWait: 3 * time.Second, ReplyACKTimeout: 0, ReplyRetries: 4,
		MethodTimeout: message.Forever, ReplyMethodTimeout: 6 * time.Second, MethodRetries: 7, TTL: 8 * time.Second, Schedule: m.Schedule, Directory: "d", FileName: "f",
		Operation: m.Operation,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	m.To, m.From = nodes(message.Local), "ship2"
	m.Operation = &message.Operation{Cmd: message.OpClearQueue, Arg: message.OperationArg{MessageID: message.NewID(time.Now(), 1, 2), OlderThan: time.Minute}}
	m.Schedule = &message.Schedule{Every: time.Second, For: time.Minute}
	if got, err = resolved(t, m); err != nil || !reflect.DeepEqual(got.Operation, m.Operation) || *got.Schedule != *m.Schedule || got.To != "central" || got.Headers[message.HeaderFrom] != "ship2" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A mistake is refused, and does not become a default.
func TestTimesThatMakeNoSenseAreRefused(t *testing.T) {
	for name, change := range map[string]func(*client.Message){
		"ACKTimeout":    func(m *client.Message) { m.ACKTimeout = -time.Second },
		"retries":       func(m *client.Message) { m.Retries = -2 },
		"methodTimeout": func(m *client.Message) { m.MethodTimeout = -2 * time.Second },
		"ttl":           func(m *client.Message) { m.TTL = -time.Minute },
		"methodRetries": func(m *client.Message) { m.MethodRetries = -1 },
	} {
		m := client.Message{To: nodes("ship1"), Method: "REQPing"}
		change(&m)
		if got, err := resolved(t, m); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
