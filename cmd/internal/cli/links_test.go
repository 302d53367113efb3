package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link   = regexp.MustCompile(`\[([^\]]+)\]\(([^)\s]+)\)`)
	isTest = regexp.MustCompile("^`?((?:Test|Fuzz)[A-Za-z0-9_]+)`?$")
	fence  = regexp.MustCompile("(?ms)^```.*?^```$")
)

// Links lead to files and headings that there are, and a link with the name of a test leads to
// the file with that test.
func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	var documents []string
	for _, pattern := range []string{"*.md", "doc/*.md", "doc/decisions/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	links, tests := 0, 0
	for _, document := range documents {
		text := read(t, document)
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			name, target := m[1], m[2]
			if strings.Contains(target, "://") {
				continue
			}
			links++
			path, anchor, _ := strings.Cut(target, "#")
			path = filepath.Join(filepath.Dir(document), path)
			if strings.HasPrefix(target, "#") {
				path = document
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s: %v", document, m[0], err)
				continue
			}
			if anchor != "" && !headings(read(t, path))[anchor] {
				t.Errorf("%s: %s: no heading %s", document, m[0], anchor)
			}
			if test := isTest.FindStringSubmatch(name); test != nil {
				tests++
				if !strings.Contains(read(t, path), "\nfunc "+test[1]+"(") {
					t.Errorf("%s: there is no %s in %s", document, test[1], target)
				}
			}
		}
	}
	if links == 0 || tests == 0 {
		t.Errorf("%d links found in %q, %d of them to tests", links, documents, tests)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// headings returns the anchors of a document.
func headings(text string) map[string]bool {
	anchors := make(map[string]bool)
	for line := range strings.SplitSeq(fence.ReplaceAllString(text, ""), "\n") {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		anchors[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(strings.TrimLeft(line, "#")))] = true
	}
	return anchors
}
