package methods

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/windows"

	"steward/process"
)

// ownGroup keeps a Ctrl-C at the daemon's console from the command.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// runAs does nothing: LookupUser knows nobody here.
func runAs(*exec.Cmd, *process.User) {}

// askGroup asks the command and all its descendants to end. Programs without a window may
// not hear it.
func askGroup(p *os.Process) { taskkill(p) }

// killGroup ends the command and all its descendants.
func killGroup(p *os.Process) { taskkill(p, "/F") }

func taskkill(p *os.Process, more ...string) {
	_ = exec.Command("taskkill", append([]string{"/T", "/PID", strconv.Itoa(p.Pid)}, more...)...).Run()
}

// groupGone cannot be told here: a tree of processes has no name of its own.
func groupGone(*os.Process) bool { return false }

func signalOf(*os.ProcessState) string { return "" }

// tooLong reports whether the system refused a command for the size of its arguments.
func tooLong(err error) bool {
	return errors.Is(err, windows.ERROR_FILENAME_EXCED_RANGE) || errors.Is(err, syscall.E2BIG)
}
