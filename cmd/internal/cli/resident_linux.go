package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// letGoOfProgram tells the system that the pages of this program's file need not stay mapped into memory. Its start
// touches most of them, and a node that runs less than half. They are in the system's cache all the same, and come
// back when they are looked at; but they count as memory of this process until then.
//
// Only mappings are let go of that nothing has ever changed in memory: no loader, and no debugger. See madvise(2) and
// proc_pid_smaps(5).
func letGoOfProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	var from, to uintptr // of the mapping whose lines are read; to is 0 when it is none of the program's that cannot be written
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		fields := strings.Fields(line)
		if len(fields) >= 5 && !strings.HasSuffix(fields[0], ":") { // from-to rights offset device inode [path]
			from, to = 0, 0
			if !strings.Contains(fields[1], "w") && strings.HasSuffix(line, " "+program) {
				if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
					return fmt.Errorf("smaps: %q: %w", line, err)
				}
			}
		}
		if to != 0 && fields[0] == "Anonymous:" && fields[1] == "0" {
			if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("madvise: %w", errno)
			}
		}
	}
	return lines.Err()
}
