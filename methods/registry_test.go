package methods_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"steward/message"
	"steward/methods"
	"steward/process"
)

func builtin(t testing.TB) *methods.Registry {
	t.Helper()
	r, err := methods.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func spec(t testing.TB, name message.Method) process.Spec {
	t.Helper()
	s, ok := builtin(t).Lookup(name)
	if !ok {
		t.Fatalf("%s is not registered", name)
	}
	return s
}

// fileOf makes req_n_cli_command of REQnCliCommand.
func fileOf(m message.Method) string {
	name := strings.TrimPrefix(string(m), "REQ")
	var b strings.Builder
	b.WriteString("req")
	for i, r := range name {
		if i == 0 || unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func TestEveryMethodIsCompleteAndHasAnExample(t *testing.T) {
	for _, s := range builtin(t).All() {
		t.Run(string(s.Name), func(t *testing.T) {
			if s.Summary == "" || s.Access == 0 || s.Kind == 0 || s.Crash == 0 || s.Reply == "" {
				t.Errorf("incomplete: %+v", s)
			}
			if _, err := os.Stat(fileOf(s.Name) + ".go"); err != nil {
				t.Error(err)
			}
			b, err := os.ReadFile(filepath.Join("..", "example", fileOf(s.Name)+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var messages []struct {
				Method message.Method
				ToNode message.Node
				Data   []string
			}
			if err := json.Unmarshal(b, &messages); err != nil {
				t.Fatal(err)
			}
			if len(messages) == 0 {
				t.Fatal("the example holds no message")
			}
			for _, m := range messages {
				if m.Method != s.Name {
					t.Errorf("the example is about %s", m.Method)
				}
				if err := m.ToNode.Check(); err != nil {
					t.Error(err)
				}
				if len(m.Data) < s.MinArgs {
					t.Errorf("the example has %d arguments, want %d or more", len(m.Data), s.MinArgs)
				}
			}
		})
	}
}

func TestMethodsAreWhatWasPromised(t *testing.T) {
	const none, appended = message.MethodNone, message.MethodToFileAppend
	for _, want := range []process.Spec{
		{Name: "REQCliCommand", Kind: message.CommandACK, Access: process.AccessCentral, Ordered: true, Crash: process.Once, Reply: appended, MinArgs: 1},
		{Name: "REQnCliCommand", Kind: message.CommandACK, Access: process.AccessCentral, Crash: process.Once, Reply: appended, MinArgs: 1},
		{Name: "REQnCliCommandCont", Kind: message.CommandACK, Access: process.AccessCentral, Crash: process.Once, Reply: appended, MinArgs: 1},
		{Name: "REQTailFile", Kind: message.EventACK, Access: process.AccessCentral, Crash: process.Resume, Reply: appended, MinArgs: 1},
		{Name: "REQHttpGet", Kind: message.EventACK, Access: process.AccessCentral, Crash: process.Once, Reply: appended, MinArgs: 1},
		{Name: "REQOpCommand", Kind: message.CommandACK, Access: process.AccessCentral, Ordered: true, Crash: process.Once, Reply: appended},
		{Name: "REQToFile", Kind: message.EventACK, Access: process.AccessAll, Ordered: true, Crash: process.Exact, Reply: none},
		{Name: "REQToFileAppend", Kind: message.EventACK, Access: process.AccessAll, Ordered: true, Crash: process.Exact, Reply: none},
		{Name: "REQToConsole", Kind: message.EventACK, Access: process.AccessAll, Ordered: true, Crash: process.Repeat, Reply: none},
		{Name: "REQNone", Kind: message.EventACK, Access: process.AccessAll, Crash: process.Repeat, Reply: none},
		{Name: "REQPing", Kind: message.EventACK, Access: process.AccessAll, Ordered: true, Crash: process.Repeat, Reply: "REQPong"},
		{Name: "REQPong", Kind: message.EventACK, Access: process.AccessAll, Ordered: true, Crash: process.Repeat, Reply: none},
		{Name: "REQHello", Kind: message.EventNACK, Access: process.AccessAll, Ordered: true, Crash: process.Repeat, Reply: none},
		{Name: "REQErrorLog", Kind: message.EventACK, Access: process.AccessAll, Ordered: true, Crash: process.Exact, Reply: none, MinArgs: 1},
	} {
		got := spec(t, want.Name)
		if got.Kind != want.Kind || got.Access != want.Access || got.Ordered != want.Ordered ||
			got.Crash != want.Crash || got.Reply != want.Reply || got.MinArgs != want.MinArgs {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
}

func TestRegistryRefusesWhatIsIncompleteOrThereTwice(t *testing.T) {
	good := func() process.Spec {
		return process.Spec{
			Name: "REQGood", Summary: "does good", Kind: message.EventACK, Access: process.AccessAll,
			Crash: process.Repeat, Reply: "REQGood",
			Run: func(context.Context, *process.Call) (process.Outcome, error) { return process.Outcome{}, nil },
		}
	}
	with := func(change func(s *process.Spec)) []process.Spec {
		s := good()
		change(&s)
		return []process.Spec{s}
	}
	if _, err := methods.New(good()); err != nil {
		t.Fatal(err)
	}
	twin := good()
	twin.Summary = "does it too"
	for name, tc := range map[string]struct {
		specs []process.Spec
		want  []string
	}{
		"twice":      {[]process.Spec{good(), twin}, []string{"REQGood", "does good", "does it too"}},
		"bad name":   {with(func(s *process.Spec) { s.Name, s.Reply = "REQ.Good", "REQ.Good" }), []string{"REQ.Good"}},
		"no summary": {with(func(s *process.Spec) { s.Summary = "" }), []string{"REQGood", "summary"}},
		"details":    {with(func(s *process.Spec) { s.Details = "one line\nand another" }), []string{"REQGood", "details"}},
		"no kind":    {with(func(s *process.Spec) { s.Kind = 0 }), []string{"REQGood", "kind"}},
		"bad kind":   {with(func(s *process.Spec) { s.Kind = 99 }), []string{"REQGood", "kind"}},
		"no access":  {with(func(s *process.Spec) { s.Access = 0 }), []string{"REQGood", "access"}},
		"no crash":   {with(func(s *process.Spec) { s.Crash = 0 }), []string{"REQGood", "crash"}},
		"no run":     {with(func(s *process.Spec) { s.Run = nil }), []string{"REQGood", "Run"}},
		"exact":      {with(func(s *process.Spec) { s.Crash = process.Exact }), []string{"REQGood", "Undo"}},
		"no reply":   {with(func(s *process.Spec) { s.Reply = "" }), []string{"REQGood", "REQNone"}},
		"lost reply": {with(func(s *process.Spec) { s.Reply = "REQLost" }), []string{"REQGood", "REQLost"}},
		"no args":    {with(func(s *process.Spec) { s.MinArgs = 1 }), []string{"REQGood", "arguments"}},
		"half exact": {with(func(s *process.Spec) {
			s.RunAll = func(context.Context, []*process.Call) []error { return nil }
		}), []string{"REQGood", "RunAll"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := methods.New(tc.specs...)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
		})
	}
}

func TestRegistryIsSortedAndItsOwn(t *testing.T) {
	r := builtin(t)
	names := r.Names()
	if !slices.IsSorted(names) || len(names) != len(r.All()) {
		t.Errorf("names %v", names)
	}
	names[0], r.All()[0].Name = "REQChanged", "REQChanged"
	if slices.Contains(r.Names(), "REQChanged") || slices.Contains(builtin(t).Names(), "REQChanged") {
		t.Error("a caller changed the registry")
	}
	if _, ok := r.Lookup("REQMissing"); ok {
		t.Error("found a method that is not there")
	}
}
