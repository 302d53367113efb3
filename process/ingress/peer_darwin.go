package ingress

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// peerOf returns who has opened the other end of a unix socket.
func peerOf(raw syscall.RawConn) (uid uint32, pid int, ok bool) {
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			return
		}
		if pid, err = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, pid, ok
}
