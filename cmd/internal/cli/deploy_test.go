package cli

import (
	"encoding/xml"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"steward/config"
)

// unit returns the settings of a systemd unit, section by section.
func unit(t *testing.T, path string) map[string]map[string][]string {
	t.Helper()
	sections := map[string]map[string][]string{}
	var section map[string][]string
	for n, line := range strings.Split(read(t, path), "\n") {
		name, isSection := strings.CutPrefix(line, "[")
		key, value, isSetting := strings.Cut(line, "=")
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case isSection && strings.HasSuffix(name, "]"):
			section = map[string][]string{}
			sections[strings.TrimSuffix(name, "]")] = section
		case isSetting && section != nil && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == "":
			section[key] = append(section[key], value)
		default:
			t.Errorf("%s:%d: %q is no setting", path, n+1, line)
		}
	}
	return sections
}

// The unit starts a node with flags that there are, and its drop-ins know all of its sandbox.
func TestSystemdUnitFits(t *testing.T) {
	service := unit(t, filepath.Join(root, "deploy", "steward.service"))["Service"]
	dropIns, err := filepath.Glob(filepath.Join(root, "deploy", "steward.service.d", "*.conf"))
	if err != nil || len(dropIns) == 0 || len(service) < 20 {
		t.Fatalf("%q, %v; %d settings", dropIns, err, len(service))
	}
	starts := service["ExecStart"]
	for _, path := range dropIns {
		for key, values := range unit(t, path)["Service"] {
			if service[key] == nil {
				t.Errorf("%s: %s is not set in steward.service", path, key)
			}
			if key == "ExecStart" {
				starts = append(starts, values...)
			}
		}
	}
	for _, start := range starts {
		words := strings.Fields(start)
		if len(words) == 0 {
			continue // it takes back the one before
		}
		cfg, err := config.Load(append(words[1:], "-configFolder="+t.TempDir()), nil, configMethods(builtin(t))) // not one of this machine
		if err != nil || words[0] != "steward" || cfg.SocketFolder != "/run/"+service["RuntimeDirectory"][0] {
			t.Errorf("%q: %v", start, err)
		}
	}
	// What is not about the sandbox.
	others := []string{"Type", "TimeoutStartSec", "WatchdogSec", "Environment", "LimitCORE", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory", "RuntimeDirectoryMode", "ReadWritePaths", "WorkingDirectory",
		"UMask", "ExecStart", "ExecReload", "Restart", "RestartSec", "RestartPreventExitStatus", "KillMode", "TimeoutStopSec", "AmbientCapabilities", "SystemCallErrorNumber"}
	administer := unit(t, filepath.Join(root, "deploy", "steward.service.d", "administer.conf"))["Service"]
	for key := range service {
		if administer[key] == nil && !slices.Contains(others, key) {
			t.Errorf("administer.conf leaves %s as it is", key)
		}
	}
}

// plist returns the one dictionary of a property list: strings and numbers as text, true and false as such, and arrays.
func plist(t *testing.T, path string) map[string]any {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(read(t, path)))
	var value func(start xml.StartElement) any
	text := func(start xml.StartElement) (s string) {
		if err := d.DecodeElement(&s, &start); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return s
	}
	// within calls each for the elements of the one that has begun.
	within := func(each func(xml.StartElement)) {
		for {
			token, err := d.Token()
			if err != nil && err != io.EOF {
				t.Fatalf("%s: %v", path, err)
			}
			switch token := token.(type) {
			case xml.StartElement:
				each(token)
			case xml.EndElement, nil:
				return
			}
		}
	}
	value = func(start xml.StartElement) any {
		switch start.Name.Local {
		case "string", "integer":
			return text(start)
		case "true", "false":
			_ = text(start)
			return start.Name.Local == "true"
		case "array":
			var all []any
			within(func(e xml.StartElement) { all = append(all, value(e)) })
			return all
		case "dict":
			all, key := map[string]any{}, ""
			within(func(e xml.StartElement) {
				if e.Name.Local == "key" {
					key = text(e)
				} else if _, twice := all[key]; twice || key == "" {
					t.Fatalf("%s: the value of %q is there twice, or has no key", path, key)
				} else {
					all[key] = value(e)
				}
			})
			return all
		}
		t.Fatalf("%s: a %s in a property list", path, start.Name.Local)
		return nil
	}
	var all map[string]any
	within(func(e xml.StartElement) {
		if e.Name.Local != "plist" {
			t.Fatalf("%s: it is a %s", path, e.Name.Local)
		}
		within(func(e xml.StartElement) { all, _ = value(e).(map[string]any) })
	})
	return all
}

// The property list starts a node with flags that there are, in folders that it says how to make.
func TestLaunchdPropertyListFits(t *testing.T) {
	path := filepath.Join(root, "deploy", "launchd", "steward.plist")
	p := plist(t, path)
	start, _ := p["ProgramArguments"].([]any)
	var args []string
	for _, word := range start {
		args = append(args, word.(string))
	}
	if len(args) < 2 || args[0] != "/usr/local/bin/steward" || p["Label"] != "steward" || p["KeepAlive"] != true || p["UserName"] != "_steward" {
		t.Fatalf("%v", p)
	}
	cfg, err := config.Load(append(args[1:], "-configFolder="+t.TempDir()), nil, configMethods(builtin(t)))
	if err != nil {
		t.Fatal(err)
	}
	made, _, _ := strings.Cut(read(t, path), "<plist")
	for _, folder := range []string{cfg.SocketFolder, p["WorkingDirectory"].(string), strings.TrimPrefix(args[1], "-configFolder=")} {
		if !regexp.MustCompile(`(?m)install -d .* ` + regexp.QuoteMeta(folder) + `( |$)`).MatchString(made) {
			t.Errorf("nobody makes %s", folder)
		}
	}
}

// The service of Windows starts a node with flags that there are, and with all folders: it is started in that of the system.
func TestWindowsServiceFits(t *testing.T) {
	flags := regexp.MustCompile(`"-(\w+)=[^"]*"`).FindAllStringSubmatch(read(t, filepath.Join(root, "deploy", "windows", "install.ps1")), -1)
	var names, args []string
	for _, f := range flags {
		names = append(names, f[1])
		switch f[1] {
		case "configFolder":
		case "brokerAddress":
			args = append(args, "-brokerAddress=broker:4222")
		default:
			args = append(args, "-"+f[1]+"=x")
		}
	}
	if _, err := config.Load(append(args, "-configFolder="+t.TempDir()), nil, configMethods(builtin(t))); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"configFolder", "socketFolder", "databaseFolder", "subscribersDataFolder", "nodeName"} {
		if !slices.Contains(names, name) {
			t.Errorf("it does not name the %s", name)
		}
	}
}
