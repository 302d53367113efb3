package ingress

import (
	"fmt"
	"net"
)

// onLoopback checks an address and gives one without a host that of loopback.
func onLoopback(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("ingress socket: %w; want host:port, such as 127.0.0.1:4000", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// listenTCP opens a port.
func listenTCP(addr string) (*listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open TCP listener: %w", err)
	}
	return &listener{Listener: ln, name: ln.Addr().String()}, nil
}
