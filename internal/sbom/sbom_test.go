package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is linked is under licences that are allowed.
func TestLicencesAreAllowed(t *testing.T) {
	all, err := linked("../..", "./cmd/steward")
	if err != nil {
		t.Fatal(err)
	}
	if err := check(all); err != nil {
		t.Error(err)
	}
	versions := map[string]string{}
	for _, m := range all {
		versions[m.path] = m.version
	}
	for _, path := range []string{"std", "go.etcd.io/bbolt", "github.com/nats-io/nats-server/v2", "golang.org/x/sys"} {
		if versions[path] == "" {
			t.Errorf("%s is not in the list", path)
		}
	}
	for _, path := range []string{"steward", "pgregory.net/rapid", "honnef.co/go/tools"} { // ourselves, and what only tests and tools need
		if versions[path] != "" {
			t.Errorf("%s is in the list", path)
		}
	}
	if text := table(all); strings.Count(text, "\n") != len(all) {
		t.Errorf("%d modules as\n%s", len(all), text)
	}

	b, err := cyclonedx(all)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		BOMFormat, SpecVersion string
		Components             []struct {
			Name, Version, PURL string
			Licenses            []struct {
				License    struct{ ID string }
				Expression string
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.BOMFormat != "CycloneDX" || doc.SpecVersion != "1.5" || len(doc.Components) != len(all) {
		t.Fatalf("%v, %s", err, b)
	}
	for i, c := range doc.Components {
		if c.PURL != "pkg:golang/"+all[i].path+"@"+all[i].version || len(c.Licenses) != 1 || (c.Licenses[0].License.ID == "") == (c.Licenses[0].Expression == "") {
			t.Errorf("%+v", c)
		}
	}
}

func TestLicencesAreToldApart(t *testing.T) {
	const (
		mit = "Permission is hereby granted, free of charge, to any person obtaining a copy"
		bsd = "Redistribution and use in source and binary forms, with or without\nmodification"
	)
	for text, want := range map[string]string{
		mit: "MIT", bsd: "BSD-2-Clause", bsd + "\n// * may be used to endorse or\n// promote products": "BSD-3-Clause",
		"   Apache License\n  Version 2.0, January 2004": "Apache-2.0", "GNU GENERAL PUBLIC LICENSE\nVersion 3": "GPL-3.0",
		mit + "\n\nApache License\nVersion 2.0": "Apache-2.0 MIT", "Mozilla Public License Version 2.0": "MPL-2.0", "All rights reserved.": "",
		"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted": "ISC",
	} {
		if got := strings.Join(licencesOf(text), " "); got != want {
			t.Errorf("%.30q: got %q, want %q", text, got, want)
		}
	}
}

func TestOtherLicencesAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "LICENSE.md"), []byte("GNU Affero General Public License"), 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := licencesIn(dir)
	if err != nil || !slices.Equal(names, []string{"AGPL-3.0"}) {
		t.Fatal(names, err)
	}
	for _, m := range []module{{"x", "v1", names}, {"y", "v1", nil}, {"z", "v1", []string{"MIT", "MPL-2.0"}}} {
		if err := check([]module{m}); err == nil || !strings.Contains(err.Error(), m.path+" v1") {
			t.Errorf("%v: %v", m, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "COPYING"), []byte("Pay me."), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := licencesIn(dir); err == nil || !strings.Contains(err.Error(), "COPYING is a licence that is not known here") {
		t.Error(err)
	}
}
