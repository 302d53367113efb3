//go:build unix

package methods

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"steward/process"
)

// ownGroup makes the command the leader of a process group of its own.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithNode(cmd.SysProcAttr)
}

// runAs has the command run as another user. The system does not change the groups of who may
// not: the node's own user keeps what it has.
func runAs(cmd *exec.Cmd, u *process.User) {
	if int(u.UID) == os.Geteuid() {
		return
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// askGroup asks all processes of the group that p leads to end.
func askGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) }

// killGroup ends all processes of the group.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// groupGone reports whether no process of the group is left, its leader included.
func groupGone(p *os.Process) bool { return errors.Is(syscall.Kill(-p.Pid, 0), syscall.ESRCH) }

// signalOf names the signal that ended a process, "" if none did.
func signalOf(s *os.ProcessState) string {
	ws, ok := s.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return ""
	}
	if name := unix.SignalName(ws.Signal()); name != "" {
		return name
	}
	return ws.Signal().String()
}

// tooLong reports whether the system refused a command for the size of its arguments.
func tooLong(err error) bool { return errors.Is(err, syscall.E2BIG) }
