package config_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"steward/config"
)

func TestSocketModeIsThatOfChmod(t *testing.T) {
	for text, want := range map[string]fs.FileMode{"0600": 0o600, "660": 0o660, "0666": 0o666} {
		if c := load(t, folder(t, ""), []string{"-socketMode=" + text}); c.SocketMode != want {
			t.Errorf("%s: %v", text, c.SocketMode)
		}
	}
	for _, text := range []string{"", "rw", "0800", "0060", "0400", "01777", "-1", "0x180"} {
		_, err := config.Load([]string{"-socketMode=" + text}, []string{"CONFIGFOLDER=" + folder(t, "")}, methods)
		if err == nil || !strings.Contains(err.Error(), "is not a mode from 0600 to 0777") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCommandEnvironmentIsAListOfNames(t *testing.T) {
	c := load(t, folder(t, ""), []string{"-commandEnvironment=HTTPS_PROXY, no_proxy"})
	if !slices.Equal(c.CommandEnvironment, []string{"HTTPS_PROXY", "no_proxy"}) {
		t.Errorf("%q", c.CommandEnvironment)
	}
	for text, want := range map[string]string{"A=1": "is not the name", "A,,B": "is not the name", "A B": "is not the name",
		"STEWARD_NKEY_SEED_FILE": "not passed on"} {
		if _, err := config.Load([]string{"-commandEnvironment=" + text}, []string{"CONFIGFOLDER=" + folder(t, "")}, methods); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
