//go:build nobroker

package broker

import (
	"errors"
	"net"
)

// Server stands for a nats-server that is not there.
type Server struct{}

// Start returns an error.
func Start(Options) (*Server, error) {
	return nil, errors.New("embedded broker (flag -embeddedBroker): this steward was built without one; use -brokerAddress")
}

// The other methods are never called: there is no Server.
func (*Server) Addr() string                     { return "" }
func (*Server) ClientURL() string                { return "" }
func (*Server) InProcessConn() (net.Conn, error) { return nil, errors.ErrUnsupported }
func (*Server) Login() Login                     { return nil }
func (*Server) SetUsers([]User) error            { return errNoAccess }
func (*Server) Limit(Limits) error               { return errNoAccess }
func (*Server) Shutdown()                        {}
