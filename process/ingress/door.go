package ingress

import (
	"errors"
	"net"
)

// Door is a unix socket for another protocol than that of messages. It is made, and refused when
// another node has it, as the one for messages.
type Door struct{ l *listener }

// CheckDoor says whether a socket can be made there at all.
func CheckDoor(path string) error { return checkPath(path) }

// OpenDoor makes the socket, for those whom access lets in.
func OpenDoor(path string, access Access) (*Door, error) {
	l, err := listen(path, access)
	if err != nil {
		return nil, err
	}
	return &Door{l}, nil
}

// Accept waits for the next connection.
func (d *Door) Accept() (net.Conn, error) { return d.l.Accept() }

// Addr is where connections are taken.
func (d *Door) Addr() net.Addr { return d.l.Addr() }

// Close ends it and takes the socket file away. It may be called twice.
func (d *Door) Close() error {
	err := d.l.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, d.l.remove())
}
