//go:build unix

package methods_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/methods"
	"steward/process"
)

// commandMethods are all that run a command.
var commandMethods = []message.Method{"REQCliCommand", "REQnCliCommand", "REQnCliCommandCont"}

// output runs a script and returns its lines.
func (b *bench) output(t *testing.T, method message.Method, script string) []string {
	t.Helper()
	b.emitted = nil
	o, err := b.run(t, method, message.Message{Data: []string{"sh", "-c", script}})
	if err != nil {
		t.Fatalf("%s: %v: %s", method, err, o.Stderr)
	}
	var all []byte
	for _, part := range b.emitted {
		all = append(all, part...)
	}
	return strings.Split(strings.TrimSpace(string(append(all, o.Body...))), "\n")
}

func TestCommandGetsNothingOfTheNodesEnvironmentThatItDoesNotNeed(t *testing.T) {
	for name, value := range map[string]string{"STEWARD_NKEY_SEED_FILE": "/secret", "STEWARD_BROKER_ADDRESS": "nats://me:secret@x:1",
		"AWS_SECRET_ACCESS_KEY": "secret", "LD_PRELOAD_NOT": "secret", "LC_TIME": "C", "TZ": "UTC", "WANTED": "yes", "TMPDIR": "/tmp"} {
		t.Setenv(name, value)
	}
	b := newBench(t)
	b.Commands.Environment = []string{"WANTED"}
	for _, method := range commandMethods {
		lines := b.output(t, method, "env")
		var names []string
		for _, line := range lines {
			name, _, _ := strings.Cut(line, "=")
			names = append(names, name)
			known := []string{"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "WANTED",
				"STEWARD_NODE", "STEWARD_FROM", "STEWARD_MESSAGE_ID", "STEWARD_ATTEMPT",
				"PWD", "OLDPWD", "SHLVL", "_"} // of the shell
			if strings.Contains(line, "secret") || !slices.Contains(known, name) && !strings.HasPrefix(name, "LC_") {
				t.Errorf("%s: a command sees %s", method, line)
			}
		}
		for _, name := range []string{"PATH", "LC_TIME", "TZ", "TMPDIR", "WANTED", "STEWARD_NODE", "STEWARD_FROM", "STEWARD_MESSAGE_ID", "STEWARD_ATTEMPT"} {
			if !slices.Contains(names, name) {
				t.Errorf("%s: a command does not see %s", method, name)
			}
		}
	}
}

// nobody returns the user nobody as one that commands run as, if this program may do that. Who
// may not is told so, and the test is over: the second value is false.
func nobody(t *testing.T) (*process.User, bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		if _, err := methods.LookupUser("root"); err == nil || !strings.Contains(err.Error(), `run commands as user "root": that takes root`) {
			t.Errorf("another user, without being root: %v", err)
		}
		return nil, false
	}
	u, err := methods.LookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	return u, true
}

func TestCommandRunsAsAnotherUser(t *testing.T) {
	u, may := nobody(t)
	if !may {
		return
	}
	b := newBench(t)
	t.Setenv("PATH", "/no/such/folder:"+os.Getenv("PATH"))
	t.Setenv("TMPDIR", "/of/the/node")
	b.Commands.User = u
	for _, method := range commandMethods {
		lines := b.output(t, method, `id -un; id -u; id -ru; id -G; echo "$USER $LOGNAME $HOME $SHELL"; echo "$PATH"; echo "${TMPDIR-none}"; cat /etc/shadow >/dev/null 2>&1 || echo kept out; touch `+b.dir+`/x 2>/dev/null || echo kept out`)
		want := []string{"nobody", "nobody nobody " + u.Home + " " + u.Shell, "/usr/local/bin:/usr/bin:/bin", "none", "kept out", "kept out"}
		if len(lines) != 9 || lines[0] != want[0] || lines[1] != lines[2] || lines[1] == "0" || slices.Contains(strings.Fields(lines[3]), "0") ||
			!slices.Equal(lines[4:], want[1:]) {
			t.Errorf("%s: %q, want %q", method, lines, want)
		}
	}
	for command, part := range map[string]string{"no-such-command": "not found", b.dir + "/x": "may not be executed"} {
		if _, err := b.run(t, "REQCliCommand", message.Message{Data: []string{command}}); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", command, err, part)
		}
	}
}

func TestCommandOfAnotherUserIsEndedAtItsTimeout(t *testing.T) {
	u, may := nobody(t)
	if !may {
		return
	}
	b := newBench(t)
	b.Commands.User = u
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c := b.call(message.Message{Method: "REQCliCommand", Data: []string{"sh", "-c", "echo $$; sleep 600 & wait"}})
	o, err := spec(t, "REQCliCommand").Run(ctx, c)
	if err == nil || !strings.Contains(err.Error(), "cut off at its timeout") {
		t.Errorf("%q, %v", o.Body, err)
	}
}

func TestUserForCommandsMustExist(t *testing.T) {
	if _, err := methods.LookupUser("no-such-user-here"); err == nil || !strings.Contains(err.Error(), `user "no-such-user-here"`) {
		t.Error(err)
	}
}
