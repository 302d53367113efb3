package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

// allocated returns how many bytes f allocated, kept or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A field's name and a value for it, good or bad, for both languages.
func anyText() *rapid.Generator[map[string]any] {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "5", "true", "null", "~", "- a", "a: b", "#", "---", "\n", "é", "1e3", "0x1f", "2024-01-02", "*a", "&a", "!a", "yes", " x ", "'", `"`, "\t", "\u0085", "\u2028"}))
	texts := rapid.SliceOfN(text, 0, 4)
	value := rapid.OneOf(
		rapid.Map(text, func(s string) any { return s }),
		rapid.Map(texts, func(s []string) any { return s }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.IntRange(-2, 100), func(n int) any { return n }),
		rapid.SampledFrom([]any{nil, true, false, 1.5, []any{1, 2}, []any{"a", 1}, map[string]any{}, map[string]any{"opCmd": "ps", "opArg": map[string]any{"id": 1}}}),
	)
	key := rapid.SampledFrom([]string{"toNode", "toNodes", "method", "data", "methodArgs", "replyMethod", "replyMethodArgs", "ACKTimeout", "acktimeout", "retries", "retryWait", "replyACKTimeout", "replyRetries", "methodTimeout", "replyMethodTimeout", "methodRetries", "ttl", "schedule", "directory", "fileName", "operation", "fromNode", "commandOrEvent", "bogus"})
	good := rapid.Custom(func(t *rapid.T) map[string]any {
		m := map[string]any{}
		add := func(name string, v any) {
			if rapid.Bool().Draw(t, name) {
				m[name] = v
			}
		}
		add("toNode", text.Draw(t, "toNode"))
		add("toNodes", texts.Draw(t, "toNodes"))
		add("method", text.Draw(t, "method"))
		add("data", texts.Draw(t, "data"))
		add("fileName", text.Draw(t, "fileName"))
		add("retries", rapid.Int64().Draw(t, "retries"))
		return m
	})
	return rapid.OneOf(good, rapid.MapOfN(key, value, 0, 6))
}

func TestJSONAndYAMLOfTheSameValueGiveTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.SliceOfN(anyText(), 1, 3).Draw(rt, "messages")
		asJSON, err := json.Marshal(value)
		if err != nil {
			rt.Fatal(err)
		}
		asYAML, err := yaml.Marshal(value)
		if err != nil {
			rt.Fatal(err)
		}
		// The library writes some texts (of leading blank lines) in a form that it cannot read.
		var back any
		if err := yaml.Unmarshal(asYAML, &back); err != nil {
			return
		}
		if same, err := json.Marshal(back); err != nil || !bytes.Equal(same, asJSON) {
			return
		}
		j := all(t, bytes.NewReader(asJSON), wire.Limits{})
		y := all(t, bytes.NewReader(asYAML), wire.Limits{})
		// The keys of a map come in another order in each, so the first fault may be another one.
		for _, o := range [][]outcome{j, y} {
			for i := range o {
				if o[i].refuse != "" {
					o[i].refuse = "refused"
				}
			}
		}
		if !reflect.DeepEqual(j, y) {
			rt.Fatalf("JSON %s\n%+v\nYAML %s\n%+v", asJSON, j, asYAML, y)
		}
	})
}

// FuzzText holds the promises of the decoder against any bytes: it ends, it does not
// panic, memory stays in proportion, read sizes do not matter, and what is accepted passes
// the checks.
func FuzzText(f *testing.F) {
	files, _ := filepath.Glob("testdata/seed/*.json")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, uint64(1))
	}
	for _, s := range []string{"- toNode: a\n  method: REQPing\n---\n[]", "\x00", `[{"data":["\ud83d\ude00"]}]`, "a: &a [*a]", "\xEF\xBB\xBF{}", "!!int a: b", "? a", "<<: {a: b}", "- |\n a\n...", "--- |\n"} {
		f.Add([]byte(s), uint64(7))
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		lim := wire.Limits{Array: 1 << 14, YAML: 1 << 12, Messages: 50}
		got := all(t, bytes.NewReader(text), lim)
		rnd := rand.New(rand.NewPCG(seed, 0))
		rest := text
		again := all(t, readerFunc(func(p []byte) (int, error) {
			if len(rest) == 0 {
				return 0, io.EOF
			}
			n := copy(p[:min(len(p), 1+rnd.IntN(8))], rest)
			rest = rest[n:]
			return n, nil
		}), lim)
		if !reflect.DeepEqual(got, again) {
			t.Fatalf("%q\nat once  %+v\nin parts %+v", text, got, again)
		}
		for _, o := range got {
			if len(o.refuse)+len(o.syntax) > 2000 {
				t.Errorf("an error of %d bytes", len(o.refuse)+len(o.syntax))
			}
			if len(o.drafts) > 50 {
				t.Errorf("%d messages", len(o.drafts))
			}
			def := defaults()
			def.OnlySelf = seed%2 == 0
			messages, err := wire.ResolveAll(o.drafts, def)
			if err != nil {
				if len(err.Error()) > 2000 || !errors.Is(err, message.ErrInvalid) {
					t.Errorf("error %.3000v", err)
				}
				continue
			}
			for _, m := range messages {
				checkMessage(t, &m, def)
			}
		}
	})
}

// checkMessage says what every accepted message is like.
func checkMessage(t testing.TB, m *message.Message, def wire.Defaults) {
	t.Helper()
	for _, err := range []error{m.To.Check(), m.From.Check(), m.Method.Check(), m.ReplyMethod.Check(), message.CheckDirectory(m.Directory)} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := m.File(); err != nil {
		t.Error(err)
	}
	if _, ok := def.Catalog.Method(m.Method); !ok || m.To == message.Local {
		t.Errorf("to %s, method %s", m.To, m.Method)
	}
	if m.ACKTimeout < 0 || m.RetryWait < 0 || m.ReplyACKTimeout < 0 || m.TTL < 0 || m.Retries < 0 || m.ReplyRetries < 0 || m.MethodRetries < 0 {
		t.Errorf("something is negative: %+v", m)
	}
	if m.MethodTimeout <= 0 && m.MethodTimeout != message.Forever || m.ReplyMethodTimeout <= 0 && m.ReplyMethodTimeout != message.Forever {
		t.Errorf("method timeouts %v, %v", m.MethodTimeout, m.ReplyMethodTimeout)
	}
}

func BenchmarkDecodeAndResolve(b *testing.B) {
	message := `{"toNode":"ship1","method":"REQToFileAppend","directory":"bench","fileName":"out.log","ACKTimeout":5,"retries":3,"data":["` + strings.Repeat("x", 100) + `"]}`
	text := "[" + strings.Repeat(message+",", 999) + message + "]\n"
	dec := wire.NewDecoder(endless(text, 1<<62), wire.Limits{})
	def := defaults()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		drafts, err := dec.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := wire.ResolveAll(drafts, def); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "messages/s")
}

// FuzzTextAgreesWithEncodingJSON holds the decoder against the standard one: what it takes
// for JSON is JSON, and its texts are the same texts.
func FuzzTextAgreesWithEncodingJSON(f *testing.F) {
	f.Add([]byte(`[{"toNode":"a","method":"REQPing","data":["\u00e9\ud83d\ude00\n\"\\\/","x"]}]`))
	f.Add([]byte(`{"data":["\b\f\t"],"ACKTimeout":-0}`))
	f.Add([]byte(`[{"data":[ ]} , {}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		trimmed := bytes.TrimSpace(b)
		if len(trimmed) == 0 || (trimmed[0] != '[' && trimmed[0] != '{') {
			return
		}
		dec := wire.NewDecoder(bytes.NewReader(b), wire.Limits{})
		drafts, err := dec.Next()
		if err != nil {
			return
		}
		std := json.NewDecoder(bytes.NewReader(b))
		var raw json.RawMessage
		if err := std.Decode(&raw); err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		type fields struct{ Data, MethodArgs []string }
		var want []fields
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &want)
		} else {
			want = make([]fields, 1)
			err = json.Unmarshal(raw, &want[0])
		}
		if err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		if len(want) != len(drafts) {
			t.Fatalf("%d messages, encoding/json finds %d", len(drafts), len(want))
		}
		for i, d := range drafts {
			if w := slices.Concat(want[i].Data, want[i].MethodArgs); !slices.Equal(d.Data, w) {
				t.Fatalf("data %q, encoding/json reads %q", d.Data, w)
			}
		}
	})
}
