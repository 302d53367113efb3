package methods

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"steward/process"
)

// passed are the variables of the node's environment that every command gets. The others may
// hold what is not for commands: the settings of the node, or what whoever started it had in
// his session.
var passed = []string{"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"}

// passedWindows is what programs do not work without on Windows.
var passedWindows = []string{"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERNAME", "USERPROFILE",
	"USERDOMAIN", "COMPUTERNAME", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)", "COMMONPROGRAMFILES",
	"PROCESSOR_ARCHITECTURE", "NUMBER_OF_PROCESSORS", "OS"}

// environment returns what of the node's own environment a command gets.
func environment(own []string, how process.Commands) []string {
	env := make([]string, 0, len(passed)+len(how.Environment)+4)
	for _, pair := range own {
		name, _, _ := strings.Cut(pair, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name) // its names have no case
		}
		switch {
		case how.User != nil && slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"}, name):
			continue // those of another user
		case slices.Contains(passed, name), strings.HasPrefix(name, "LC_"), slices.Contains(how.Environment, name),
			runtime.GOOS == "windows" && slices.Contains(passedWindows, name):
			env = append(env, pair)
		}
	}
	if u := how.User; u != nil {
		env = append(env, "PATH="+pathOf(u), "HOME="+u.Home, "USER="+u.Name, "LOGNAME="+u.Name, "SHELL="+u.Shell)
	}
	return env
}

// pathOf is where a user's commands are looked for: what login gives to a user who says nothing.
func pathOf(u *process.User) string {
	if u.UID == 0 {
		return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return "/usr/local/bin:/usr/bin:/bin"
}

// homeOf is where a user's commands begin. Many a user of a service has no home.
func homeOf(u *process.User) string {
	if fi, err := os.Stat(u.Home); err == nil && fi.IsDir() {
		return u.Home
	}
	return "/"
}

// lookIn finds a command in the folders of path, and not in those of the node's own.
func lookIn(path, command string) (string, error) {
	if strings.ContainsRune(command, '/') {
		return command, nil
	}
	forbidden := false
	for _, folder := range filepath.SplitList(path) {
		file, err := exec.LookPath(filepath.Join(folder, command))
		if err == nil {
			return file, nil
		}
		if info, err := os.Stat(filepath.Join(folder, command)); err == nil && !info.IsDir() {
			forbidden = true
		}
	}
	if forbidden {
		return "", &exec.Error{Name: command, Err: fs.ErrPermission}
	}
	return "", &exec.Error{Name: command, Err: exec.ErrNotFound}
}
