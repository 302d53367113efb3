package methods

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mayBecome says whether this program may start and end commands of other users. What makes
// that possible is taken from the commands: capabilities that are handed down would let any of
// them become root.
func mayBecome() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("see what this program may do: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_SETUID, "CAP_SETUID"}, {unix.CAP_SETGID, "CAP_SETGID"}, {unix.CAP_KILL, "CAP_KILL"}} {
		if sets[0].Effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("that takes root, or the capabilities CAP_SETUID, CAP_SETGID and CAP_KILL; missing: %s", strings.Join(missing, ", "))
	}
	_, _, no := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	if no != 0 && no != unix.ENOTSUP { // built with cgo, as tests are
		return fmt.Errorf("keep the capabilities from commands: %w", no)
	}
	if no == 0 {
		return nil
	}
	for bit := range uintptr(unix.CAP_LAST_CAP + 1) {
		if set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, bit, 0, 0); err == nil && set == 1 {
			return errors.New("commands would inherit its capabilities: use a program that was built with CGO_ENABLED=0")
		}
	}
	return nil
}
