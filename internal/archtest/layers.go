package archtest

import (
	"fmt"
	"go/token"
	"strings"
)

// layer is one folder at the top, with its place from left to right.
type layer struct {
	folder string
	rank   int
	// onlyFor, if set, is the one folder that may import this one, whatever the ranks.
	onlyFor string
}

var layers = []layer{
	{folder: "message", rank: 0},
	{folder: "client", rank: 1},
	{folder: "config", rank: 1, onlyFor: "cmd"},
	{folder: "errorkernel", rank: 1},
	{folder: "security", rank: 1},
	{folder: "kvstore", rank: 1},
	{folder: "process", rank: 2},
	{folder: "methods", rank: 3},
	{folder: "cmd", rank: 4},
}

// outside are the other folders that the module may have. Code in bench stands above all
// layers, examples and documents hold none that is imported; what is imported from
// internal counts as if its own imports were the importer's.
var outside = []string{"internal", "bench", "deploy", "doc", "example"}

func layerOf(dir string) (layer, bool) {
	for _, l := range layers {
		if under(dir, l.folder) {
			return l, true
		}
	}
	return layer{}, false
}

func checkLayers(files []*file, report func(*file, token.Pos, string)) {
	below := make(map[string][]string) // folder below internal -> what it imports of the module
	for _, f := range files {
		if !f.test && under(f.dir, "internal") {
			for _, i := range f.imports {
				if i.local != "" {
					below[f.dir] = append(below[f.dir], i.local)
				}
			}
		}
	}
	for _, f := range files {
		from, inLayer := layerOf(f.dir)
		if !inLayer && !underAny(f.dir, outside) {
			report(f, f.ast.Package, fmt.Sprintf("the folder %s is not in the plan of the house", f.dir))
			continue
		}
		if f.test {
			continue // a test may join what it likes
		}
		for _, i := range f.imports {
			if i.local == "" {
				continue
			}
			for _, to := range through(i.local, below, nil) {
				why := forbidden(from, inLayer, f.dir, to)
				if why == "" {
					continue
				}
				if to != i.local {
					why += " by way of " + i.local
				}
				report(f, i.pos, why)
			}
		}
	}
}

// through returns what an import of dir means: dir itself, or for a folder below internal
// that and everything that it imports.
func through(dir string, below map[string][]string, seen []string) []string {
	for _, s := range seen {
		if s == dir {
			return nil
		}
	}
	all := []string{dir}
	for _, next := range below[dir] {
		all = append(all, through(next, below, append(seen, dir))...)
	}
	return all
}

// forbidden says what is wrong with an import of the folder to in the folder dir.
func forbidden(from layer, inLayer bool, dir, to string) string {
	target, ok := layerOf(to)
	switch {
	case !inLayer && under(dir, "bench"):
		return ""
	case under(to, "bench"):
		return fmt.Sprintf("%s imports %s: nothing imports a benchmark", dir, to)
	case !ok:
		return ""
	case target.folder == "cmd" && from.folder != "cmd":
		return fmt.Sprintf("%s imports %s: what is in cmd stays in cmd", dir, to)
	case !inLayer || target.folder == from.folder:
		return ""
	case target.onlyFor != "" && target.onlyFor != from.folder:
		return fmt.Sprintf("%s imports %s: it is imported by %s alone; a package has options of its own", dir, to, target.onlyFor)
	case target.rank >= from.rank:
		return fmt.Sprintf("%s imports %s, which is not to its left", strings.TrimSuffix(dir, "/"), to)
	}
	return ""
}
