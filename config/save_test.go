package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"steward/config"
)

// full is a file with all settings, so that nothing is added to it.
func full(t *testing.T) string {
	t.Helper()
	dir := folder(t, "")
	start(t, dir, nil)
	return read(t, dir)
}

func TestFirstStartWritesFlagsButNotTheEnvironment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "etc")
	start(t, dir, []string{"-node=ship1", "-startPubREQHello=200"}, "STEWARD_LOG_LEVEL=debug")
	text := read(t, dir)
	for _, want := range []string{"\nnodeName = \"ship1\"\n", "\nstartPubREQHello = 200\n", "\nlogLevel = \"info\"\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	c := load(t, dir, nil)
	if c.NodeName != "ship1" || c.LogLevel != "info" {
		t.Errorf("next start: %s, %s", c.NodeName, c.LogLevel)
	}
}

func TestLoadWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	load(t, dir, []string{"-node=ship1"})
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder was made")
	}
}

func TestFlagsReplaceValuesAndNothingElse(t *testing.T) {
	all := full(t)
	swap := func(name, line string) string { // all, with another line for name
		t.Helper()
		at := strings.Index(all, "\n"+name+" = ") + 1
		return all[:at] + line + all[at+strings.Index(all[at:], "\n"):]
	}
	for _, tt := range []struct {
		name         string
		setting      string
		before, flag string
		after        string
	}{
		{"end comment", "logLevel", `logLevel="debug"   # while testing`, "warn", `logLevel="warn"   # while testing`},
		{"odd layout", "logLevel", "\t \"logLevel\"\t=\t'debug'\t", "warn", "\t \"logLevel\"\t=\t\"warn\"\t"},
		{"key with an equals sign in a comment", "maxParallel", "maxParallel = 3 # = 64", "7", "maxParallel = 7 # = 64"},
		{"same value in another spelling", "maxParallel", "maxParallel = 0x1_0", "16", "maxParallel = 0x1_0"},
		{"multi-line text", "socketFolder", "socketFolder = \"\"\"\n./t\\\n  mp\"\"\" # x", `/a"b\c`, `socketFolder = "/a\"b\\c" # x`},
		{"multi-line list", "startSubREQPing", "startSubREQPing = [\n  \"a\",\n  \"b\"\n]  # all", "c,*", "startSubREQPing = [\"c\", \"*\"]  # all"},
		{"comments in a list", "startSubREQPing", "startSubREQPing = [ # who\n  \"a\", # the first\n  # nobody else\n]",
			"b,c", "startSubREQPing = [\n  # who\n  # the first\n  # nobody else\n  \"b\",\n  \"c\",\n]"},
		{"comments in a list that goes", "startSubREQPing", "startSubREQPing = [\n  \"a\", # why\n]", "RST", "startSubREQPing = [\n  # why\n]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, swap(tt.setting, tt.before))
			start(t, dir, []string{"-" + tt.setting + "=" + tt.flag})
			if got, want := read(t, dir), swap(tt.setting, tt.after); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestMissingSettingsAreAddedAtTheTopLevel(t *testing.T) {
	const added = "\n# how it is logged: text or json. Default: \"text\"\nlogFormat = \"text\"\n"
	all := full(t)
	if strings.Count(all, added) != 1 {
		t.Fatalf("want one %q in\n%s", added, all)
	}
	most := strings.Replace(all, added, "", 1)
	for _, tt := range []struct{ name, before, after string }{
		{"at the end", most, most + added},
		{"no newline at the end", strings.TrimSuffix(most, "\n"), most + added},
		{"before a table", most + "\n# mine\n[x]\na = 1\n", most + added + "\n# mine\n[x]\na = 1\n"},
		{"right before a table", most + "[[x]]\na = 1\n", most + added + "\n[[x]]\na = 1\n"},
		{"carriage returns", strings.ReplaceAll(most, "\n", "\r\n"), strings.ReplaceAll(most+added, "\n", "\r\n")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.before)
			start(t, dir, nil, "STEWARD_LOG_FORMAT=json")
			if got := read(t, dir); got != tt.after {
				t.Errorf("got\n%s\nwant\n%s", got, tt.after)
			}
		})
	}
}

func TestTablesOfAPersonSurviveWithAWarning(t *testing.T) {
	const mine = "# notes\n# of mine\n[notes]\nowner = \"joe\" # call him\n"
	dir := folder(t, "# on top\n\n"+mine)
	c := start(t, dir, []string{"-node=ship1"})
	text := read(t, dir)
	if !strings.HasPrefix(text, "# on top\n\n") || !strings.HasSuffix(text, "\n\n"+mine) {
		t.Errorf("got\n%s", text)
	}
	if len(c.Warnings) != 1 || !strings.HasSuffix(c.Warnings[0], "config.toml:5:1: table [notes] is not read") {
		t.Errorf("warnings %q", c.Warnings)
	}
	if c := load(t, dir, nil); c.NodeName != "ship1" {
		t.Errorf("next start: %s", c.NodeName)
	}
}

func TestAFileThatStaysTheSameIsNotWritten(t *testing.T) {
	dir := folder(t, "")
	start(t, dir, []string{"-node=ship1"})
	before, err := os.Stat(filepath.Join(dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, dir, []string{"-node=ship1"}, "STEWARD_LOG_LEVEL=debug")
	if w := c.Save(); w != nil {
		t.Fatal(w)
	}
	after, err := os.Stat(filepath.Join(dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("the file was written")
	}
}

func TestTheFileKeepsItsModeAndNothingIsLeftBeside(t *testing.T) {
	dir := folder(t, "")
	start(t, dir, nil)
	if err := os.Chmod(filepath.Join(dir, "config.toml"), 0o640); err != nil {
		t.Fatal(err)
	}
	start(t, dir, []string{"-node=ship1"})
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Errorf("files %v", files)
	}
	info, err := files[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestASymbolicLinkStaysOne(t *testing.T) {
	for _, there := range []bool{true, false} {
		dir, other := t.TempDir(), t.TempDir()
		if there {
			write(t, other, "nodeName = \"a\"\n")
		}
		link := filepath.Join(dir, "config.toml")
		if err := os.Symlink(filepath.Join(other, "config.toml"), filepath.Join(other, "between")); err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(dir, filepath.Join(other, "between"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(rel, link); err != nil {
			t.Fatal(err)
		}
		start(t, dir, []string{"-node=ship1"})
		if info, err := os.Lstat(link); err != nil || info.Mode().Type() != os.ModeSymlink {
			t.Errorf("target there %v: the link is gone: %v, %v", there, info, err)
		}
		if text := read(t, other); !strings.Contains(text, "nodeName = \"ship1\"\n") {
			t.Errorf("target there %v: got\n%s", there, text)
		}
	}
}

func TestAFileThatCannotBeWrittenIsAWarning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	c := load(t, dir, []string{"-node=ship1"})
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the place of the folder
		t.Fatal(err)
	}
	w := c.Save()
	if len(w) != 1 || !strings.HasPrefix(w[0], "settings are not kept for the next start: ") || !strings.Contains(w[0], dir) {
		t.Errorf("got %q", w)
	}
}

func TestAReadOnlyFileIsLeftAlone(t *testing.T) {
	dir := folder(t, "nodeName = \"a\"\n")
	if err := os.Chmod(filepath.Join(dir, "config.toml"), 0o444); err != nil {
		t.Fatal(err)
	}
	if w := load(t, dir, []string{"-node=ship1"}).Save(); len(w) != 1 || !strings.HasSuffix(w[0], "config.toml is read-only") {
		t.Errorf("got %q", w)
	}
	if got := read(t, dir); got != "nodeName = \"a\"\n" {
		t.Errorf("got\n%s", got)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestAFileChangedSinceItWasReadIsNotOverwritten(t *testing.T) {
	for _, before := range []string{"", "nodeName = \"a\"\n"} {
		dir := folder(t, before)
		c := load(t, dir, []string{"-node=ship1"})
		const theirs = "nodeName = \"b\"\n"
		write(t, dir, theirs)
		if w := c.Save(); len(w) != 1 || !strings.Contains(w[0], "was changed since it was read") {
			t.Errorf("got %q", w)
		}
		if got := read(t, dir); got != theirs {
			t.Errorf("got\n%s", got)
		}
	}
}

func TestWhatIsNoFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	big := folder(t, strings.Repeat("# x\n", 1<<18+1))
	for dir, want := range map[string]string{dir: "is not a regular file", big: "is longer than 1048576 bytes"} {
		_, err := config.Load(nil, []string{"CONFIGFOLDER=" + dir}, methods)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
