package archtest_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"steward/internal/archtest"
)

// root finds the folder of the module, which is above the one in which a test runs.
func root(t *testing.T) fs.FS {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return os.DirFS(dir)
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

func TestTheHouseKeepsItsRules(t *testing.T) {
	found, err := archtest.Check(root(t), "steward")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// imports is the source of a file that imports what is given.
func imports(paths ...string) string {
	var b strings.Builder
	b.WriteString("package x\n")
	for _, p := range paths {
		fmt.Fprintf(&b, "import _ %q\n", p)
	}
	return b.String()
}

func long(lines int) string { return "package x\n" + strings.Repeat("\n", lines-1) }

func TestBreachesAreFound(t *testing.T) {
	type files map[string]string
	tests := []struct {
		name  string
		rule  string // the one that is broken, empty for none
		where string
		files files
	}{
		{"message knows nobody", "layers", "message/a.go:2", files{"message/a.go": imports("steward/errorkernel")}},
		{"siblings do not know each other", "layers", "kvstore/a.go:2", files{"kvstore/a.go": imports("steward/security")}},
		{"process does not know methods", "layers", "process/ingress/a.go:3",
			files{"process/ingress/a.go": imports("steward/message", "steward/methods")}},
		{"config is for cmd", "layers", "process/a.go:2", files{"process/a.go": imports("steward/config")}},
		{"config is for cmd, not even for methods", "layers", "methods/a.go:2", files{"methods/a.go": imports("steward/config")}},
		{"wire is not above config", "layers", "message/wire/a.go:2", files{"message/wire/a.go": imports("steward/config")}},
		{"cmd/internal stays in cmd", "layers", "methods/a.go:2", files{"methods/a.go": imports("steward/cmd/internal/node")}},
		{"internal does not know cmd", "layers", "internal/x/a.go:2", files{"internal/x/a.go": imports("steward/cmd/internal/node")}},
		{"internal is no way round", "layers", "kvstore/a.go:2", files{
			"kvstore/a.go":    imports("steward/internal/x"),
			"internal/x/a.go": imports("steward/internal/y"),
			"internal/y/a.go": imports("steward/process"),
		}},
		{"internal circles end", "", "", files{
			"internal/x/a.go": imports("steward/internal/y"),
			"internal/y/a.go": imports("steward/internal/x"),
			"process/a.go":    imports("steward/internal/x"),
		}},
		{"nobody imports bench", "layers", "cmd/steward/a.go:2", files{"cmd/steward/a.go": imports("steward/bench/load")}},
		{"no new rooms", "layers", "util/a.go:1", files{"util/a.go": imports()}},
		{"no code at the door", "layers", "a.go:1", files{"a.go": imports()}},
		{"all build tags are read", "layers", "message/a.go:3",
			files{"message/a.go": "//go:build never\npackage x\nimport _ \"steward/kvstore\"\n"}},
		{"arrows to the left", "", "", files{
			"message/wire/a.go":               imports("steward/message", "github.com/fxamacker/cbor/v2"),
			"config/a.go":                     imports("steward/message"),
			"errorkernel/a.go":                imports("steward/message", "steward/internal/logattr", "log/slog"),
			"internal/logattr/a.go":           imports("steward/message"),
			"internal/faults/a.go":            imports("steward/process"),
			"security/a.go":                   imports("steward/message", "steward/message/wire"),
			"kvstore/a.go":                    imports("go.etcd.io/bbolt", "steward/message"),
			"process/a.go":                    imports("steward/kvstore", "steward/errorkernel"),
			"process/transport/nats/a.go":     imports("steward/process", "github.com/nats-io/nats.go"),
			"methods/a.go":                    imports("steward/process", "steward/message"),
			"cmd/internal/node/a.go":          imports("steward/config", "steward/methods", "steward/process/transport/nats"),
			"cmd/steward/main.go":             imports("steward/cmd/internal/cli", "os"),
			"bench/a.go":                      imports("steward/cmd/internal/node", "github.com/nats-io/nats.go", "go.etcd.io/bbolt"),
			"process/a_test.go":               imports("steward/methods", "steward/internal/faults"),
			"process/testdata/broken/a.go":    "this is not Go",
			".cache/a.go":                     "this is not Go",
			"process/transport/memory/a.go":   imports("steward/process/transport/internal/mailbox"),
			"process/transport/internal/m.go": imports(),
		}},

		{"process does not know its transports", "parents", "process/a.go:2", files{"process/a.go": imports("steward/process/transport/nats")}},
		{"message does not know wire", "parents", "message/a.go:2", files{"message/a.go": imports("steward/message/wire")}},
		{"message has no libraries", "vocabulary", "message/a.go:2", files{"message/a.go": imports("golang.org/x/text")}},
		{"nor has what is below it", "vocabulary", "message/x/a.go:2", files{"message/x/a.go": imports("steward/internal/logattr")}},
		{"client has no libraries", "client", "client/a.go:3", files{"client/a.go": imports("steward/message", "github.com/fxamacker/cbor/v2")}},
		{"nor their users", "client", "client/a.go:2", files{"client/a.go": imports("steward/message/wire")}},
		{"kvstore does not log", "silent", "kvstore/a.go:2", files{"kvstore/a.go": imports("log/slog")}},
		{"nor by a detour", "silent", "security/a.go:2", files{"security/a.go": imports("steward/internal/logattr")}},
		{"NATS stays in the transport", "nats", "process/a.go:2", files{"process/a.go": imports("github.com/nats-io/nats.go")}},
		{"the server too", "nats", "cmd/internal/node/a.go:2", files{"cmd/internal/node/a.go": imports("github.com/nats-io/nats-server/v2/server")}},
		{"keys are not for all", "nats", "process/a.go:2", files{"process/a.go": imports("github.com/nats-io/nkeys")}},
		{"security knows keys, not NATS", "nats", "security/a.go:3", files{"security/a.go": imports("github.com/nats-io/nkeys", "github.com/nats-io/nats.go")}},
		{"test NATS", "", "", files{"internal/natstest/a.go": imports("github.com/nats-io/nats-server/v2/server")}},
		{"bbolt stays in kvstore", "bbolt", "process/a.go:2", files{"process/a.go": imports("go.etcd.io/bbolt")}},

		{"loose goroutine", "go", "process/publisher.go:2", files{"process/publisher.go": "package x\nfunc f() { go f() }\n"}},
		{"loose goroutine in a method", "go", "methods/req_x.go:2", files{"methods/req_x.go": "package x\nfunc f() { go f() }\n"}},
		{"loose goroutine in disguise", "go", "process/publisher.go:3",
			files{"process/publisher.go": "package x\nimport \"sync\"\nfunc f(wg *sync.WaitGroup) { wg.Go(func() {}) }\n"}},
		{"listed goroutines", "", "", files{
			"process/supervisor.go":       "package x\nfunc f() { go f() }\n",
			"kvstore/writer.go":           "package x\nfunc f() { go f() }\n",
			"process/transport/nats/x.go": "package x\nfunc f() { go f() }\n",
			"process/a_test.go":           "package x\nfunc f() { go f() }\n",
		}},
		{"a name that only begins like a listed one", "go", "kvstore/writer.go.go:2",
			files{"kvstore/writer.go.go": "package x\nfunc f() { go f() }\n"}},

		{"sleep", "sleep", "process/a.go:3", files{"process/a.go": "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"}},
		{"sleep in a test", "sleep", "process/a_test.go:3", files{"process/a_test.go": "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"}},
		{"sleep by another name", "sleep", "process/a.go:3", files{"process/a.go": "package x\nimport t \"time\"\nvar wait = t.Sleep\n"}},
		{"sleep in hiding", "sleep", "process/a.go:2", files{"process/a.go": "package x\nimport . \"time\"\nfunc f() { Sleep(1) }\n"}},
		{"another Sleep", "", "", files{"process/a.go": "package x\nimport _ \"time\"\ntype b struct{}\nfunc (b) Sleep() {}\nfunc f(time b) { time.Sleep() }\n"}},

		{"default logger", "default logger", "process/a.go:3", files{"process/a.go": "package x\nimport \"log/slog\"\nvar l = slog.Default()\n"}},
		{"default logger at work", "default logger", "errorkernel/a.go:3", files{"errorkernel/a.go": "package x\nimport \"log/slog\"\nfunc f() { slog.Info(\"x\") }\n"}},
		{"the old log", "default logger", "process/a.go:2", files{"process/a.go": imports("log")}},
		{"logger in cmd", "", "", files{"cmd/internal/cli/a.go": "package x\nimport \"log/slog\"\nvar l = slog.Default()\n"}},
		{"logger handed in", "", "", files{"process/a.go": "package x\nimport \"log/slog\"\nfunc f(l *slog.Logger) { l.Info(\"x\", slog.Int(\"a\", 1)) }\n"}},

		{"exit", "exit", "cmd/internal/cli/a.go:3", files{"cmd/internal/cli/a.go": "package x\nimport \"os\"\nfunc f() { os.Exit(1) }\n"}},
		{"exit with a word", "exit", "cmd/internal/cli/a.go:3", files{"cmd/internal/cli/a.go": "package x\nimport \"log\"\nfunc f() { log.Fatalf(\"x\") }\n"}},
		{"exit of main and of tests", "", "", files{
			"cmd/steward/main.go":  "package main\nimport \"os\"\nfunc main() { os.Exit(1) }\n",
			"bench/main.go":        "package main\nimport \"os\"\nfunc main() { os.Exit(1) }\n",
			"process/main_test.go": "package x\nimport \"os\"\nfunc f() { os.Exit(1) }\n",
		}},

		{"too long", "length", "process/a.go:1", files{"process/a.go": long(601)}},
		{"long enough, or a test, or generated", "", "", files{
			"process/a.go":      long(600),
			"process/a_test.go": long(2000),
			"process/b.go":      "// Code generated by hand. DO NOT EDIT.\n\n" + long(2000),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, src := range tt.files {
				fsys[name] = &fstest.MapFile{Data: []byte(src)}
			}
			found, err := archtest.Check(fsys, "steward")
			if err != nil {
				t.Fatal(err)
			}
			hit := false
			for _, f := range found {
				if f.Rule == tt.rule && f.Where == tt.where && f.What != "" && f.Reason != "" {
					hit = true
				} else if tt.rule == "" || f.Where != tt.where {
					t.Errorf("found what is no breach: %v", f)
				}
			}
			if !hit && tt.rule != "" {
				t.Errorf("not found; only %v", found)
			}
		})
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	for name, fsys := range map[string]fstest.MapFS{
		"no Go":     {"process/a.go": {Data: []byte("not Go")}},
		"no module": {"README": {}},
	} {
		if _, err := archtest.Check(fsys, "steward"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
