package node

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"steward/config"
	"steward/methods"
)

// load returns a configuration with folders of its own in dir, and those of args.
func load(t *testing.T, dir string, args ...string) *config.Config {
	t.Helper()
	cfg, err := config.Load(append([]string{"-configFolder=" + dir + "/etc", "-socketFolder=" + dir + "/tmp", "-databaseFolder=" + dir + "/lib",
		"-subscribersDataFolder=" + dir + "/var"}, args...), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestNothingThatOthersWriteIsAFileOfTheNode(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string // D is the folder of the node
		want []string // the settings that are named
	}{
		{"folders of their own", []string{"-readFolder=D/in", "-inFile=D/inmsg.txt"}, nil},
		{"a name that begins as that of the data folder", []string{"-readFolder=D/var2", "-databaseFolder=D/var.db"}, nil},
		{"the data folder in another one", []string{"-subscribersDataFolder=D/lib/var"}, nil},
		{"read folder", []string{"-readFolder=D/var/in"}, []string{"readFolder"}},
		{"the data folder itself", []string{"-readFolder=D/var"}, []string{"readFolder"}},
		{"a path that comes back", []string{"-readFolder=D/etc/../var/in"}, []string{"readFolder"}},
		{"in file", []string{"-inFile=D/var/central/inmsg.txt"}, []string{"inFile"}},
		{"startup folder", []string{"-startupFolder=D/var/startup"}, []string{"startupFolder"}},
		{"the startup folder of the config folder", []string{"-subscribersDataFolder=D/etc/startup"}, []string{"startupFolder"}},
		{"the tokens", []string{"-subscribersDataFolder=D/etc/tokens"}, []string{"tokens of configFolder"}},
		{"config folder", []string{"-configFolder=D/var/etc"}, []string{"configFolder"}},
		{"socket folder", []string{"-socketFolder=D/var/tmp"}, []string{"socketFolder"}},
		{"database folder", []string{"-databaseFolder=D/var"}, []string{"databaseFolder"}},
		{"lists and keys", []string{"-aclFile=D/var/acl.toml", "-trustedNodesFile=D/var/a/trusted", "-nodeKeyFile=D/var/key"}, []string{"aclFile", "trustedNodesFile", "nodeKeyFile"}},
		{"all in one", []string{"-subscribersDataFolder=D"}, []string{"configFolder", "socketFolder", "databaseFolder"}},
		{"a link into it", []string{"-readFolder=D/link-to-var/in"}, []string{"readFolder"}},
		{"a link to what is not there yet", []string{"-aclFile=D/link-to-acl"}, []string{"aclFile"}},
		{"a link in it that leads out", []string{"-readFolder=D/var/link-out/in"}, []string{"readFolder"}},
		{"a data folder by a link", []string{"-subscribersDataFolder=D/link-to-etc"}, []string{"configFolder"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{"var", "etc", "out"} {
				if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for from, to := range map[string]string{"link-to-var": "var", "link-to-etc": "etc", "link-to-acl": filepath.Join(dir, "var", "acl.toml"), "var/link-out": "../out"} {
				if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
					t.Fatal(err)
				}
			}
			var args []string
			for _, a := range tt.args {
				args = append(args, strings.ReplaceAll(a, "=D", "="+dir))
			}
			cfg := load(t, dir, args...)
			err := CheckFolders(cfg)
			var lines []string
			if err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(tt.want) {
				t.Fatalf("got %q, want %q", lines, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want+": ") || !strings.Contains(lines[i], cfg.SubscribersDataFolder) {
					t.Errorf("got %q, want one about %s", lines[i], want)
				}
			}
		})
	}
}

func TestNodeDoesNotStartWithAFolderThatOthersWriteTo(t *testing.T) {
	registry, err := methods.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n, err := New(Options{Config: load(t, dir, "-readFolder="+dir+"/var/in"), Registry: registry, Log: slog.New(slog.DiscardHandler), Stdout: io.Discard, Stderr: io.Discard})
	if err == nil {
		t.Fatal("it starts", n.Close())
	}
	if !strings.Contains(err.Error(), "readFolder: "+dir+"/var/in is inside of subscribersDataFolder") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lib")); !os.IsNotExist(err) {
		t.Error("it has made folders before it looked")
	}
}
