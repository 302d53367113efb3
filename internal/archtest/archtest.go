// Package archtest keeps the rules of the house that a compiler does not know: which
// package may import which, where goroutines are started, and what is not used at all.
//
// It reads all Go files of the module, whatever their build tags, rather than ask go list,
// which sees one platform and one set of tags at a time. The rules are in rules.go, with
// the exceptions and the reason for each. It owns no state; nothing imports it.
package archtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Finding is one breach of a rule.
type Finding struct {
	Rule   string
	Where  string // file:line
	What   string
	Reason string // why there is such a rule
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s (%s)", f.Where, f.Rule, f.What, f.Reason)
}

// Check reads the module in fsys, whose import path is module, and returns all breaches,
// ordered by place.
func Check(fsys fs.FS, module string) ([]Finding, error) {
	files, err := load(fsys, module)
	if err != nil {
		return nil, err
	}
	var all []Finding
	for _, rule := range rules {
		rule.check(files, func(f *file, pos token.Pos, what string) {
			line := 1
			if pos.IsValid() {
				line = f.set.Position(pos).Line
			}
			all = append(all, Finding{
				Rule:   rule.name,
				Where:  fmt.Sprintf("%s:%d", f.name, line),
				What:   what,
				Reason: rule.reason,
			})
		})
	}
	slices.SortFunc(all, func(a, b Finding) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all), nil
}

// file is one Go file.
type file struct {
	name    string // slash-separated, from the root of the module
	dir     string // the package's folder, "." for the root
	test    bool
	lines   int
	set     *token.FileSet
	ast     *ast.File
	imports []imported
}

// imported is one import of a file.
type imported struct {
	path  string
	local string // within the module: the folder; else empty
	name  string // by which the file calls it
	pos   token.Pos
}

func load(fsys fs.FS, module string) ([]*file, error) {
	var files []*file
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			hidden := name != "." && (base[0] == '.' || base[0] == '_')
			if hidden || base == "testdata" || base == "vendor" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		f, err := parse(name, module, src)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	if len(files) == 0 {
		return nil, errors.New("read the module: no Go file in it")
	}
	return files, nil
}

func parse(name, module string, src []byte) (*file, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	f := &file{
		name:  name,
		dir:   path.Dir(name),
		test:  strings.HasSuffix(name, "_test.go"),
		lines: strings.Count(string(src), "\n"),
		set:   set,
		ast:   tree,
	}
	for _, spec := range tree.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		i := imported{path: p, name: path.Base(p), pos: spec.Pos()}
		if spec.Name != nil {
			i.name = spec.Name.Name
		}
		if rest, ok := strings.CutPrefix(p, module+"/"); ok {
			i.local = rest
		}
		f.imports = append(f.imports, i)
	}
	return f, nil
}

// uses calls found for each mention of one of names from the package at p.
func (f *file) uses(p string, names []string, found func(pos token.Pos, name string)) {
	for _, i := range f.imports {
		if i.path != p {
			continue
		}
		if i.name == "." {
			found(i.pos, "an import with a dot, which hides what is used,")
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			// An identifier with an object is a variable that hides the package.
			id, ok := sel.X.(*ast.Ident)
			if ok && id.Name == i.name && id.Obj == nil && slices.Contains(names, sel.Sel.Name) {
				found(sel.Pos(), i.name+"."+sel.Sel.Name)
			}
			return true
		})
	}
}

// under reports whether the slash-separated name is parent or below it.
func under(name, parent string) bool {
	return name == parent || strings.HasPrefix(name, parent+"/")
}

func underAny(name string, parents []string) bool {
	return slices.ContainsFunc(parents, func(p string) bool { return under(name, p) })
}
