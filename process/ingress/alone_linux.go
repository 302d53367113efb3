package ingress

import (
	"errors"
	"os"
	"syscall"
)

// holdAlone keeps others from opening a file until release is called, if nobody has it open
// besides. Some file systems cannot do that, nor can it be done to files of other users.
func holdAlone(f *os.File) (release func(), c company, err error) {
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
	err = lease(syscall.F_WRLCK)
	var no syscall.Errno
	switch {
	case err == nil:
		return func() { _ = lease(syscall.F_UNLCK) }, alone, nil
	case errors.Is(err, syscall.EAGAIN):
		return func() {}, crowded, nil
	case errors.As(err, &no):
		return func() {}, unseen, nil
	}
	return nil, unseen, err
}
