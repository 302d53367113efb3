package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

const (
	exampleDir = "../../example"
	seedDir    = "../../message/wire/testdata/seed"
)

// Each message of the first documents, and each example, is fed to a node by a script as it stands.
func TestEveryMessageOfTheDocumentsIsRunByAScript(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{} // the words of all commands
	for _, path := range scripts {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(archive.Comment), "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				for _, word := range strings.Fields(line) {
					used[strings.Trim(word, "'")] = true
				}
			}
		}
	}
	for name, dir := range map[string]string{"$EXAMPLE": exampleDir, "$SEED": seedDir} {
		for _, file := range files(t, dir) {
			// A script may have a link to the folder, to send a file as the documents do.
			if base := filepath.Base(file); !used[name+"/"+base] && !used[filepath.Base(dir)+"/"+base] {
				t.Errorf("no script runs %s", file)
			}
		}
	}
}

// Each message of the first documents is among the examples, with the same keys and values.
func TestEveryMessageOfTheDocumentsIsAnExample(t *testing.T) {
	var examples []any
	for _, file := range files(t, exampleDir) {
		examples = append(examples, decoded(t, file))
	}
	for _, file := range files(t, seedDir) {
		found, want := false, decoded(t, file)
		for _, example := range examples {
			found = found || reflect.DeepEqual(example, want)
		}
		if !found {
			t.Errorf("no example holds %s", file)
		}
	}
}

var (
	links = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)
	names = regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w*|\w+\.txtar`)
)

// Each promise names what shows it, and what it names is there, in the file to which it links.
func TestPromisesNameWhatThereIs(t *testing.T) {
	const doc = "../../doc/promises.md"
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	promises := 0
	for i, line := range strings.Split(string(text), "\n") {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && !strings.HasSuffix(line, " shown by |") {
			promises++
			if len(cells) != 2 || !links.MatchString(cells[1]) && !strings.HasPrefix(cells[1], "Not ") {
				t.Errorf("%s:%d: nothing shows it, and it does not say so", doc, i+1)
			}
		}
		for _, link := range links.FindAllStringSubmatch(line, -1) {
			label, target := link[1], filepath.Join(filepath.Dir(doc), link[2])
			content, err := os.ReadFile(target)
			switch {
			case err != nil:
				t.Errorf("%s:%d: %v", doc, i+1, err)
			case strings.HasSuffix(label, ".txtar") && filepath.Base(target) != label,
				strings.HasSuffix(target, ".go") && !strings.Contains(string(content), "\nfunc "+label+"("):
				t.Errorf("%s:%d: %s is not in %s", doc, i+1, label, target)
			}
		}
		if name := names.FindString(links.ReplaceAllString(line, "")); name != "" {
			t.Errorf("%s:%d: %s without a link", doc, i+1, name)
		}
	}
	if promises == 0 {
		t.Errorf("%s holds no promise", doc)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(found), err)
	}
	var paths []string
	for _, f := range found {
		paths = append(paths, filepath.Join(dir, f.Name()))
	}
	return paths
}

func decoded(t *testing.T, file string) (v any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}
