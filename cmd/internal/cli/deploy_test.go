package cli

import (
	"path/filepath"
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
