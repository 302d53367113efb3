package ingress

import (
	"errors"
	"os"
	"syscall"
)

// holdAlone keeps others from opening a file until release is called. It returns nil when
// somebody has it open. Where there is no such thing, on some file systems and on files of
// other users, it does nothing.
func holdAlone(f *os.File) (release func(), err error) {
	lease := func(kind uintptr) error {
		conn, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var no syscall.Errno
		err = conn.Control(func(fd uintptr) {
			_, _, no = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_SETLEASE, kind)
		})
		if err == nil && no != 0 {
			err = no
		}
		return err
	}
	switch err := lease(syscall.F_WRLCK); {
	case err == nil:
		return func() { _ = lease(syscall.F_UNLCK) }, nil
	case errors.Is(err, syscall.EAGAIN):
		return nil, nil
	}
	return func() {}, nil
}
