//go:build unix

package main

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// Whoever may not read the files of a node is told whose they are.
func TestCommandsSayWhoMayReadTheFilesOfANode(t *testing.T) {
	home := shortDir(t)
	path, err := exec.LookPath("steward")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(home, "etc"), 0),
		os.WriteFile(filepath.Join(home, "secret.json"), nil, 0),
		os.WriteFile(filepath.Join(home, "steward"), program, 0o700),
		os.Chmod(filepath.Join(home, "steward"), 0o755),
		os.Chmod(home, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// run runs the program as somebody whom the modes keep out, and returns what it says.
	run := func(args ...string) string {
		cmd := exec.Command(filepath.Join(home, "steward"), args...)
		cmd.Dir, cmd.Env = home, []string{"GORACE=atexit_sleep_ms=0"}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || err == nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	who := " belongs to " + regexp.QuoteMeta(me.Username) + ": run it as that user, as sudo does, or let this one in"
	settings := "read settings: stat etc/config.toml: permission denied\nhint: etc" + who
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"queue"}, `^steward: queue ls: ` + settings + "\n$"},
		{[]string{"keys", "show"}, `^steward: keys show: ` + settings + "\n$"},
		{[]string{"-nodeName=central"}, `^steward: ` + settings + "\n$"},
		{[]string{"doctor"}, `^fail +config +read settings: stat etc/config.toml: permission denied; etc` + who + "\n$"},
		{[]string{"send", "-configFolder=.", "secret.json"}, "^steward: send: secret.json: permission denied\nhint: secret.json" + who},
	} {
		if said := run(c.args...); !regexp.MustCompile(c.want).MatchString(said) {
			t.Errorf("%v says\n%swhich is not\n%s", c.args, said, c.want)
		}
	}
}
