package methods

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// socketPatience bounds how long one call waits for whoever listens on a socket.
const socketPatience = 10 * time.Second

// toSocket writes each chunk to the unix socket at name, as a stream or as datagrams,
// whichever it takes. What was written cannot be taken back: after a crash or an error it
// may be written again.
func toSocket(ctx context.Context, root *os.Root, name string, chunks [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, socketPatience)
	defer cancel()
	file, release, err := socketPath(root, name)
	if err != nil {
		return err
	}
	defer release()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", file)
	if errors.Is(err, syscall.EPROTOTYPE) {
		conn, err = dialer.DialContext(ctx, "unixgram", file)
	}
	if err != nil {
		return socketReason(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for _, chunk := range chunks {
		if _, err := conn.Write(chunk); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return socketReason(err)
		}
	}
	return nil
}

// socketReason takes the path out of an error of package net.
func socketReason(err error) error {
	var e *net.OpError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
