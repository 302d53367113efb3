//go:build !nobroker

package broker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

const startTimeout = 10 * time.Second

// Server is a running nats-server. All methods may be called by many goroutines at once.
type Server struct {
	opts   Options
	log    *logger
	server *server.Server
	addr   *net.TCPAddr
	url    string
	tls    *tls.Config   // nil for none
	self   nkeys.KeyPair // nil without Access
	once   sync.Once
	users  sync.Mutex // held while they are changed
	// current are the users; guarded by users.
	current []User
	limited limited
}

// Start listens and returns when clients can connect. An address that is taken is an
// error which names it.
func Start(o Options) (*Server, error) {
	s, err := o.start()
	if err != nil {
		return nil, fmt.Errorf("embedded broker on %s (flag -embeddedBroker): %w", o.Addr, err)
	}
	return s, nil
}

func (o Options) start() (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	log := newLogger(o.Log, o.Refused)
	s := &Server{opts: o, log: log}
	var err error
	if s.tls, err = o.tls(log); err != nil {
		return nil, err
	}
	if o.Access != nil {
		if s.self, err = nkeys.CreateUser(); err != nil {
			return nil, err
		}
		s.current = o.Access.Users
	}
	so, err := s.options(o.Access)
	if err != nil {
		return nil, err
	}
	if err := o.door(so.TLSConfig != nil, asksForLogin(so)); err != nil {
		return nil, err
	}
	if s.server, err = server.NewServer(so); err != nil {
		return nil, err
	}
	s.server.SetLoggerV2(log, true, false, false) // also for debugging: see logger.Debugf
	s.server.Start()
	ready := log.fatal() == nil && s.server.ReadyForConnections(startTimeout)
	addr, _ := s.server.Addr().(*net.TCPAddr)
	if !ready || addr == nil {
		cause := log.fatal()
		if cause == nil {
			cause = fmt.Errorf("not ready after %v", startTimeout)
		}
		s.server.Shutdown()
		s.server.WaitForShutdown()
		return nil, cause
	}
	s.addr, s.url = addr, clientURL(so, addr)
	return s, nil
}

// options returns those of the server with users of its own.
func (s *Server) options(a *Access) (*server.Options, error) {
	o := s.opts
	host, portText, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, errors.New("want host:port")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, errors.New("the port is not a number below 65536")
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
	if o.MaxPayload != 0 || so.MaxPayload == 0 {
		so.MaxPayload = int32(o.maxPayload())
	}
	if o.MaxConnections != 0 {
		so.MaxConn = o.MaxConnections
	}
	so.MaxConn = cmp.Or(so.MaxConn, defaultMaxConnections)
	so.MaxControlLine = cmp.Or(so.MaxControlLine, maxControlLine)
	so.MaxSubs = cmp.Or(so.MaxSubs, maxSubscriptions)
	so.MaxPending = cmp.Or(so.MaxPending, maxPending)
	so.WriteDeadline = cmp.Or(so.WriteDeadline, writeDeadline)
	if so.WriteTimeout == server.WriteTimeoutPolicyDefault {
		so.WriteTimeout = server.WriteTimeoutPolicyRetry
	}
	so.AuthTimeout = cmp.Or(so.AuthTimeout, o.authTimeout, authTimeout)
	if s.tls != nil {
		so.TLS, so.TLSConfig, so.TLSTimeout, so.TLSVerify = true, s.tls, tlsTimeout, o.CAFile != ""
	}
	so.NoSigs = true
	// The system account costs memory and goroutines for statistics nobody reads here.
	so.NoSystemAccount = so.SystemAccount == ""
	if a != nil {
		if so.Nkeys, err = s.nkeys(*a); err != nil {
			return nil, err
		}
	}
	return so, nil
}

// asksForLogin reports whether nobody gets in who is not known.
func asksForLogin(so *server.Options) bool {
	return so.NoAuthUser == "" && (so.Nkeys != nil || so.Users != nil || so.Username != "" || so.Authorization != "" || so.TrustedOperators != nil)
}

// nkeys returns the users of the server, that of this process among them. There is one at
// least: a server without any would let everybody in.
func (s *Server) nkeys(a Access) ([]*server.NkeyUser, error) {
	own, err := s.self.PublicKey()
	if err != nil {
		return nil, err
	}
	a.Users = append(slices.Clone(a.Users), User{Node: s.opts.Self, Keys: []string{own}})
	grants, err := a.Grants()
	if err != nil {
		return nil, err
	}
	var list []*server.NkeyUser
	for _, g := range grants {
		u := &server.NkeyUser{Nkey: g.Key, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: g.Publish}, Subscribe: &server.SubjectPermission{Allow: g.Subscribe}}}
		if g.Key == own {
			u.AllowedConnectionTypes = map[string]struct{}{jwt.ConnectionTypeInProcess: {}}
		}
		list = append(list, u)
	}
	return list, nil
}

// SetUsers lets these nodes in, and no others, from now on. Who is connected with a key that
// is not among theirs is cut off before it returns; nobody else is. After an error all is as
// before.
func (s *Server) SetUsers(users []User) error {
	if s.opts.Access == nil {
		return errNoAccess
	}
	s.users.Lock()
	defer s.users.Unlock()
	a := *s.opts.Access
	a.Users = users
	so, err := s.options(&a)
	if err == nil {
		s.awaitLogins()
		s.log.changing.Store(true)
		err = s.server.ReloadOptions(so)
		s.log.changing.Store(false)
	}
	if err != nil {
		return fmt.Errorf("embedded broker: change who may log in: %w", err)
	}
	s.current = users
	return nil
}

// loginsWait bounds the wait of SetUsers: who connects and says nothing holds up no change for long.
const loginsWait = 500 * time.Millisecond

// awaitLogins waits until nobody is about to log in: a server that changes its users cuts off who has not yet shown
// a key. In nats-server 2.15 it reads, while it does that, what such a client may be about to write (a data race).
func (s *Server) awaitLogins() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(loginsWait); ; {
		all, err := s.server.Connz(&server.ConnzOptions{Username: true, State: server.ConnOpen, Limit: math.MaxInt32})
		if err != nil || !slices.ContainsFunc(all.Conns, func(c *server.ConnInfo) bool { return c.AuthorizedUser == "" }) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			return
		}
	}
}

// Login returns the key of the node in this process, or nil when there is no Access. It is
// of use on [Server.InProcessConn] only.
func (s *Server) Login() Login {
	if s.self == nil {
		return nil
	}
	return s.self
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
