// Package main lists what is linked into steward besides its own code: as a CycloneDX document on
// stdout, and as a table on stderr. It ends with status 1 when a module has a licence that is not
// allowed here, or one that it does not know.
//
//	go run ./internal/sbom > steward.cdx.json
//
// It asks the go command which modules the packages of the program come from, on each system that the
// program is built for, and looks for their licences in the module cache. So it knows what is
// linked and not what is merely required.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// allowed are the licences that a dependency may have: those that ask for no more than to be named.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// systems are those that the program is built for.
var systems = []string{"linux", "darwin", "windows"}

// module is one that is linked.
type module struct {
	path, version string
	licences      []string // SPDX identifiers, sorted
}

// linked returns the modules that the packages of program come from, sorted, the standard library as
// "std". dir is a folder of this module.
func linked(dir, program string) ([]module, error) {
	found := map[string]*module{}
	for _, system := range systems {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{.Dir}}\t{{with .Module}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{.Main}}{{end}}", program)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if len(f) != 5 || f[4] == "true" { // of the standard library, or our own
				continue
			}
			m := found[f[1]]
			if m == nil {
				m = &module{path: f[1], version: f[2]}
				found[f[1]] = m
			}
			// A package may be under another licence than the module around it.
			for folder := f[0]; ; folder = filepath.Dir(folder) {
				names, err := licencesIn(folder)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", f[1], err)
				}
				m.licences = append(m.licences, names...)
				if folder == f[3] || len(folder) <= len(f[3]) {
					break
				}
			}
		}
	}
	version, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	found["std"] = &module{path: "std", version: strings.TrimPrefix(strings.TrimSpace(string(version)), "go"), licences: []string{"BSD-3-Clause"}}
	var all []module
	for _, m := range found {
		slices.Sort(m.licences)
		m.licences = slices.Compact(m.licences)
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)([-.].*)?$`)

// licencesIn returns the licences whose texts are in a folder.
func licencesIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		names := licencesOf(string(b))
		if len(names) == 0 {
			return nil, fmt.Errorf("%s is a licence that is not known here: %w", filepath.Join(folder, e.Name()), errLicence)
		}
		all = append(all, names...)
	}
	return all, nil
}

// errLicence says that a dependency has a licence that is not allowed.
var errLicence = errors.New("look at it, and at what is allowed in internal/sbom")

var blanks = regexp.MustCompile(`[\s/#*]+`)

// licencesOf returns what licences a text holds, by sentences that others do not have.
func licencesOf(text string) (names []string) {
	text = strings.ToLower(blanks.ReplaceAllString(text, " "))
	has := func(sentences ...string) bool {
		return !slices.ContainsFunc(sentences, func(s string) bool { return !strings.Contains(text, s) })
	}
	if has("apache license", "version 2.0") {
		names = append(names, "Apache-2.0")
	}
	if has("redistribution and use in source and binary forms") {
		if has("endorse or promote products") {
			names = append(names, "BSD-3-Clause")
		} else {
			names = append(names, "BSD-2-Clause")
		}
	}
	if has("permission to use, copy, modify, and", "for any purpose with or without fee is hereby granted") {
		names = append(names, "ISC")
	}
	if has("permission is hereby granted, free of charge, to any person") {
		names = append(names, "MIT")
	}
	for _, other := range []struct{ sentence, name string }{
		{"mozilla public license", "MPL-2.0"}, {"gnu affero general public license", "AGPL-3.0"}, {"gnu lesser general public license", "LGPL-3.0"},
		{"gnu general public license", "GPL-3.0"}, {"eclipse public license", "EPL-2.0"}, {"server side public license", "SSPL-1.0"},
		{"business source license", "BUSL-1.1"}, {"creative commons", "CC"},
	} {
		if has(other.sentence) {
			names = append(names, other.name)
		}
	}
	return names
}

// check returns what of the licences of modules is not allowed.
func check(all []module) error {
	var errs []error
	for _, m := range all {
		if len(m.licences) == 0 {
			errs = append(errs, fmt.Errorf("%s %s has no licence: %w", m.path, m.version, errLicence))
		}
		for _, name := range m.licences {
			if !slices.Contains(allowed, name) {
				errs = append(errs, fmt.Errorf("%s %s is under %s: %w", m.path, m.version, name, errLicence))
			}
		}
	}
	return errors.Join(errs...)
}

// table is what modules there are, for people.
func table(all []module) string {
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintf(&b, "%-45s %-42s %s\n", m.path, m.version, strings.Join(m.licences, " AND "))
	}
	return b.String()
}

// What follows is the part of CycloneDX 1.5 that is used here.
type document struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type     string    `json:"type"`
	Ref      string    `json:"bom-ref"`
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"`
	URL      string    `json:"purl,omitempty"`
	Licences []licence `json:"licenses,omitempty"`
}

// licence is one identifier, or an expression of several.
type licence struct {
	ID         *identifier `json:"license,omitempty"`
	Expression string      `json:"expression,omitempty"`
}

type identifier struct {
	ID string `json:"id"`
}

// cyclonedx is what modules there are, for programs. The same modules give the same bytes.
func cyclonedx(all []module) ([]byte, error) {
	d := document{Format: "CycloneDX", Spec: "1.5", Version: 1, Components: []component{},
		Metadata: metadata{component{Type: "application", Ref: "steward", Name: "steward", Licences: licencesFor([]string{"MIT"})}}}
	for _, m := range all {
		url := "pkg:golang/" + m.path + "@" + m.version
		d.Components = append(d.Components, component{Type: "library", Ref: url, Name: m.path, Version: m.version, URL: url, Licences: licencesFor(m.licences)})
	}
	b, err := json.MarshalIndent(d, "", "  ")
	return append(b, '\n'), err
}

func licencesFor(names []string) []licence {
	if len(names) == 1 {
		return []licence{{ID: &identifier{names[0]}}}
	}
	return []licence{{Expression: strings.Join(names, " AND ")}}
}

func run() error {
	all, err := linked(".", "./cmd/steward")
	if err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, table(all))
	b, err := cyclonedx(all)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(b); err != nil {
		return err
	}
	return check(all)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}
