package cli

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"steward/message/wire"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := messageSchema(builtin(t))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("message.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("message.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// Every file of example is as the schema says.
func TestSchemaTakesTheExamples(t *testing.T) {
	s := compiled(t)
	files, err := filepath.Glob(filepath.Join(root, "example", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What the node would refuse, as far as the schema knows.
func TestSchemaRefusesMistakes(t *testing.T) {
	s := compiled(t)
	for _, c := range []struct {
		text string
		good bool
	}{
		{`{"toNode":"a","method":"REQPing"}`, true},
		{`[{"toNodes":["a","b"],"method":"REQCliCommand","methodArgs":["ls"],"methodTimeout":-1,"schedule":[1,-1]}]`, true},
		{`{"toNode":"a","method":"REQOpCommand","operation":{"opCmd":"ps"}}`, true},
		{`{"toNode":"a"}`, false},
		{`{"toNode":"a","method":"REQPingg"}`, false},
		{`{"toNode":"a","method":"REQPing","retrys":3}`, false},
		{`{"toNode":"a","method":"REQPing","retries":-1}`, false},
		{`{"toNode":"a","method":"REQPing","retries":"3"}`, false},
		{`{"toNode":"a","method":"REQPing","methodTimeout":0}`, false},
		{`{"toNode":"a","method":"REQPing","schedule":[1]}`, false},
		{`{"toNode":"a","method":"REQPing","data":"x"}`, false},
		{`{"toNode":"a","method":"REQPing","operation":{"opCmd":"ps"}}`, false},
		{`{"toNode":"a","method":"REQCliCommand"}`, false},
		{`{"toNode":"a","method":"REQCliCommand","data":[]}`, false},
		{`{"toNode":"a","method":"REQOpCommand"}`, false},
		{`{"toNode":"a","method":"REQOpCommand","operation":{"opCmd":"pss"}}`, false},
		{`[{"toNode":"a","method":"REQPing"},{"toNode":"b"}]`, false},
		{`"REQPing"`, false},
	} {
		if err := validate(t, s, []byte(c.text)); (err == nil) != c.good {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

// The schema has the keys that the node reads.
func TestSchemaHasAllKeys(t *testing.T) {
	s := compiled(t).AnyOf[0].Ref
	keys, operation, arguments := wire.Keys()
	keys = append(keys, "MethodTimeout") // see there
	for _, c := range []struct {
		what string
		have map[string]*jsonschema.Schema
		want []string
	}{
		{"message", s.Properties, keys},
		{"operation", s.Properties["operation"].Properties, operation},
		{"arguments", s.Properties["operation"].Properties["opArg"].Properties, arguments},
	} {
		slices.Sort(c.want)
		if have := slices.Sorted(maps.Keys(c.have)); !slices.Equal(have, c.want) {
			t.Errorf("%s: the schema has %q, the node reads %q", c.what, have, c.want)
		}
	}
}
