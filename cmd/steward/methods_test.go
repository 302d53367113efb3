package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"steward/methods"
)

// Each method has an example, and a script that runs it. A script about a method that there
// is no more is a mistake too.
func TestEveryMethodHasAnExampleAndAScript(t *testing.T) {
	registry, err := methods.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, spec := range registry.All() {
		name := fileOf(string(spec.Name))
		known[name+".txtar"] = true
		if _, err := os.Stat(filepath.Join("..", "..", "example", name+".json")); err != nil {
			t.Errorf("%s has no example: %v", spec.Name, err)
		}
		script, err := os.ReadFile(filepath.Join("testdata", "script", name+".txtar"))
		if err != nil {
			t.Errorf("%s has no script: %v", spec.Name, err)
		} else if want := "stdin $EXAMPLE/" + name + ".json\n"; !strings.Contains(string(script), want) {
			t.Errorf("%s.txtar does not run the example: it has no line %q", name, want)
		}
	}
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "req_*"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts about methods: %v, %v", scripts, err)
	}
	for _, path := range scripts {
		if !known[filepath.Base(path)] {
			t.Errorf("%s is about a method that there is not", path)
		}
	}
}

var words = regexp.MustCompile(`REQ|[A-Z][a-z]+|[a-z]+`)

// fileOf names the files of a method: those of REQnCliCommand begin with req_n_cli_command.
func fileOf(method string) string {
	return strings.ToLower(strings.Join(words.FindAllString(method, -1), "_"))
}
