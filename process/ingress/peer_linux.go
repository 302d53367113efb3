package ingress

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// peerOf returns who has opened the other end of a unix socket.
func peerOf(raw syscall.RawConn) (uid uint32, pid int, ok bool) {
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, pid, ok = cred.Uid, int(cred.Pid), true
		}
	})
	return uid, pid, ok
}
