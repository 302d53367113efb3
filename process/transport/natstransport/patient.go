package natstransport

import (
	"net"
	"time"
)

// chunk is what a link has to take within the write timeout to count as alive.
const chunk = 16 << 10 // bytes

// patientConn gives up writing when nothing moves, not when much has to be moved: a frame
// of 1 MiB takes minutes on a link of 64 kbit/s, and has to get through.
type patientConn struct {
	net.Conn
	timeout time.Duration // for each chunk
}

// Write writes all of p, or returns an error once the link has not taken a chunk in time.
func (c patientConn) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:min(written+chunk, len(p))])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
