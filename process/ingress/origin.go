package ingress

import (
	"fmt"
	"net"
)

// originOf says who is at the other end of a connection, for the audit log. What the system
// does not tell is left out.
func originOf(nc net.Conn) string {
	switch nc := nc.(type) {
	case *net.TCPConn:
		return "tcp " + nc.RemoteAddr().String()
	case *net.UnixConn:
		if raw, err := nc.SyscallConn(); err == nil {
			if uid, pid, ok := peerOf(raw); ok {
				return fmt.Sprintf("socket uid=%d pid=%d", uid, pid)
			}
		}
	}
	return "socket"
}
