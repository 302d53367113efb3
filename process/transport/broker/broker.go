//go:build !nobroker

package broker

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	defaultMaxPayload = 1 << 20
	// A client that takes nothing of what is sent to it is cut off after this long, or
	// with this much waiting for it. One on a slow link that takes something is not.
	writeDeadline = 10 * time.Second
	maxPending    = 32 << 20 // bytes a client
	startTimeout  = 10 * time.Second
)

// Server is a running nats-server. All methods may be called by many goroutines at once.
type Server struct {
	server *server.Server
	addr   *net.TCPAddr
	url    string
	once   sync.Once
}

// Start listens and returns when clients can connect. An address that is taken is an
// error which names it.
func Start(o Options) (*Server, error) {
	so, err := o.server()
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	s, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	log := newLogger(o.Log)
	s.SetLoggerV2(log, log.debug(), false, false)
	s.Start()
	ready := log.fatal() == nil && s.ReadyForConnections(startTimeout)
	addr, _ := s.Addr().(*net.TCPAddr)
	if !ready || addr == nil {
		cause := log.fatal()
		if cause == nil {
			cause = fmt.Errorf("not ready after %v", startTimeout)
		}
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("embedded broker on %s (flag -embeddedBroker): %w", o.Addr, cause)
	}
	return &Server{server: s, addr: addr, url: clientURL(so, addr)}, nil
}

func (o Options) server() (*server.Options, error) {
	host, portText, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("address %q (flag -embeddedBroker): want host:port", o.Addr)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q (flag -embeddedBroker): the port is not a number below 65536", o.Addr)
	}
	if o.MaxPayload < 0 || o.MaxPayload > maxPending/2 {
		return nil, fmt.Errorf("largest frame of %d bytes: want at most %d", o.MaxPayload, maxPending/2)
	}
	so := &server.Options{}
	if o.ConfigFile != "" {
		if so, err = server.ProcessConfigFile(o.ConfigFile); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", o.ConfigFile, err)
		}
		if so.JetStream {
			return nil, fmt.Errorf("configuration %s: JetStream is not available here", o.ConfigFile)
		}
	}
	so.Host = host
	if host == "" {
		so.Host = server.DEFAULT_HOST
	}
	so.Port = int(port)
	if port == 0 {
		so.Port = server.RANDOM_PORT
	}
	if o.Name != "" {
		so.ServerName = o.Name
	}
	if o.MaxPayload != 0 {
		so.MaxPayload = int32(o.MaxPayload)
	}
	so.MaxPayload = cmp.Or(so.MaxPayload, defaultMaxPayload)
	so.MaxPending = cmp.Or(so.MaxPending, maxPending)
	so.WriteDeadline = cmp.Or(so.WriteDeadline, writeDeadline)
	if so.WriteTimeout == server.WriteTimeoutPolicyDefault {
		so.WriteTimeout = server.WriteTimeoutPolicyRetry
	}
	so.NoSigs = true
	// The system account costs memory and goroutines for statistics nobody reads here.
	so.NoSystemAccount = so.SystemAccount == ""
	return so, nil
}

func clientURL(so *server.Options, addr *net.TCPAddr) string {
	scheme, host := "nats", so.Host
	if so.TLSConfig != nil {
		scheme = "tls"
	}
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// Addr returns the address in use, "host:port".
func (s *Server) Addr() string { return s.addr.String() }

// ClientURL returns what a client on this machine connects to.
func (s *Server) ClientURL() string { return s.url }

// InProcessConn connects a client in this process without a socket. The caller closes
// the connection.
func (s *Server) InProcessConn() (net.Conn, error) {
	if !s.server.Running() {
		return nil, errors.New("embedded broker: it has been shut down")
	}
	return s.server.InProcessConn()
}

// Shutdown cuts all clients off and returns when the server is gone. It may be called
// twice.
func (s *Server) Shutdown() {
	s.once.Do(s.server.Shutdown)
	s.server.WaitForShutdown()
}
