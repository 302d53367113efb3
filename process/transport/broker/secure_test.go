//go:build !nobroker

package broker

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"steward/internal/certtest"
	"steward/message"
)

const limit = 20 * time.Second

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("nothing came in %v", limit)
		panic("unreachable")
	}
}

// user makes a node with a key.
func user(t *testing.T, n message.Node) (nkeys.KeyPair, User) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, User{Node: n, Keys: []string{public}}
}

func withKey(key Login) nats.Option {
	public, _ := key.PublicKey()
	return nats.Nkey(public, key.Sign)
}

// raw is a client that does what it likes.
type raw struct {
	*nats.Conn
	t      *testing.T
	errs   chan error
	closed chan struct{}
}

func connect(t *testing.T, s *Server, key Login, opts ...nats.Option) *raw {
	t.Helper()
	return connectTo(t, s.ClientURL(), key, opts...)
}

func connectTo(t *testing.T, url string, key Login, opts ...nats.Option) *raw {
	t.Helper()
	r := &raw{t: t, errs: make(chan error, 100), closed: make(chan struct{})}
	opts = append(opts, withKey(key), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.errs <- err }),
		nats.ClosedHandler(func(*nats.Conn) { close(r.closed) }))
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	r.Conn = nc
	t.Cleanup(func() {
		nc.Close()
		receive(t, r.closed)
	})
	return r
}

// refused is what the broker says no to, of what was done since it was asked last. It asks
// for something that is always refused, to know that there is no more to come.
func (r *raw) refused() []string {
	r.t.Helper()
	const last = "the.last.one"
	if err := r.Publish(last, nil); err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for {
		err := receive(r.t, r.errs)
		if !errors.Is(err, nats.ErrPermissionViolation) {
			r.t.Fatalf("got %v", err)
		}
		if strings.Contains(err.Error(), last) {
			return list
		}
		list = append(list, err.Error())
	}
}

func (r *raw) publish(subject string) {
	r.t.Helper()
	if err := r.Publish(subject, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) subscribe(subject string) *nats.Subscription {
	r.t.Helper()
	sub, err := r.SubscribeSync(subject)
	if err == nil {
		err = r.Flush()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return sub
}

func TestNodeCanDoNothingInTheNameOfAnother(t *testing.T) {
	key, ship1 := user(t, "ww.ship1")
	_, central := user(t, "ww.central")
	_, ship2 := user(t, "ww.ship2")
	_, above := user(t, "ww")
	access := &Access{Central: "ww.central", Users: []User{central, ship1, ship2, above}}
	t.Run("embedded", func(t *testing.T) {
		attack(t, connect(t, start(t, Options{Self: "ww.central", Access: access}), key))
	})
	t.Run("configured", func(t *testing.T) {
		a := authority(t)
		cert, certKey := issue(t, a, "broker")
		s := startConfigured(t, Options{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: certKey, Access: access})
		attack(t, connect(t, s, key, nats.RootCAs(a.File)))
	})
}

// startConfigured runs a nats-server with the configuration for o.
func startConfigured(t *testing.T, o Options) *Server {
	t.Helper()
	text, err := Configuration(o)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	write(t, file, text)
	return start(t, Options{ConfigFile: file})
}

// attack is what ww.ship1 may do besides ww.central and ww.ship2, and what it may not.
func attack(t *testing.T, evil *raw) {
	for _, tt := range []struct {
		publish, subscribe string
		allowed            bool
	}{
		{publish: "ww.ship1.HERE", allowed: true},
		{publish: "ww.ship1.NAME", allowed: true},
		{publish: "ww.ship1.NAME.word", allowed: true},
		{publish: "ww.central.REQHello.EventNACK", allowed: true},
		{publish: "ww.central.REQErrorLog.EventACK", allowed: true},
		{publish: "ww.central.ACK.token", allowed: true},
		{publish: "ww.central.OPEN.EventACK", allowed: true},
		{subscribe: "ww.ship1.REQCliCommand.CommandACK", allowed: true},
		{subscribe: "ww.ship1.REQHello.EventNACK", allowed: true},
		{subscribe: "ww.ship1.ACK.*", allowed: true},
		{subscribe: "ww.ship1.OPEN.EventACK", allowed: true},
		{subscribe: "ww.ship1.NAME", allowed: true},
		{subscribe: "ww.ship1.NAME.*", allowed: true},
		{subscribe: "ww.central.HERE", allowed: true},

		{publish: "ww.central.REQCliCommand.CommandACK"},
		{publish: "ww.central.REQCliCommand.CommandNACK"},
		{publish: "ww.central.HERE"},
		{publish: "ww.central.NAME"},
		{publish: "ww.central.NAME.word"},
		{publish: "ww.central.ACK"},
		{publish: "ww.central.ACK.a.b"},
		{publish: "ww.ship2.REQPing.EventACK"},
		{publish: "ww.ship2.REQCliCommand.CommandACK"},
		{publish: "ww.ship2.ACK.token"},
		{publish: "ww.ship2.OPEN.EventACK"},
		{publish: "ww.ship2.HERE"},
		{publish: "ww.ship2.NAME.word"},
		{publish: "ww.HERE"},
		{publish: "ww.ship3.REQPing.EventACK"},
		{publish: ">"},
		{publish: "*.*.*.EventACK"},
		{publish: "$SYS.REQ.SERVER.PING"},
		{publish: "$JS.API.INFO"},
		{publish: "_INBOX.x"},
		{subscribe: ">"},
		{subscribe: "*"},
		{subscribe: "*.>"},
		{subscribe: "ww.>"},
		{subscribe: "ww.central.>"},
		{subscribe: "ww.central.ACK.*"},
		{subscribe: "ww.central.*.EventACK"},
		{subscribe: "ww.central.REQErrorLog.EventACK"},
		{subscribe: "ww.*.ACK.*"},
		{subscribe: "ww.*.HERE"},
		{subscribe: "ww.ship2.HERE"},
		{subscribe: "ww.ship2.NAME"},
		{subscribe: "ww.ship2.REQCliCommand.CommandACK"},
		{subscribe: "ww.*.EventACK"},
		{subscribe: "$SYS.>"},
		{subscribe: "_INBOX.>"},
	} {
		if tt.publish != "" {
			evil.publish(tt.publish)
		} else {
			evil.subscribe(tt.subscribe)
		}
		switch refused := evil.refused(); {
		case tt.allowed && len(refused) != 0, !tt.allowed && len(refused) != 1:
			t.Errorf("%+v: refused is %q", tt, refused)
		case !tt.allowed && !strings.Contains(refused[0], `"`+tt.publish+tt.subscribe+`"`):
			t.Errorf("%+v: got %q", tt, refused)
		}
	}
	if _, err := evil.QueueSubscribeSync("ww.central.REQErrorLog.EventACK", "queue"); err != nil {
		t.Fatal(err)
	}
	traced := nats.NewMsg("ww.central.REQHello.EventNACK")
	traced.Header.Set("Nats-Trace-Dest", "ww.ship2.REQCliCommand.CommandACK")
	if err := evil.PublishMsg(traced); err != nil {
		t.Fatal(err)
	}
	if refused := evil.refused(); len(refused) != 2 {
		t.Errorf("a queue on what is for another and the trace of a message: refused is %q", refused)
	}
}

func TestCentralReachesAllNodesAndIsNobodyElse(t *testing.T) {
	key, central := user(t, "ww.central")
	_, ship := user(t, "ww.north.ship1")
	s := start(t, Options{Self: "ww.central", Access: &Access{Central: "ww.central", Users: []User{central, ship}}})
	c := connect(t, s, key)
	for _, subject := range []string{"ww.north.ship1.REQCliCommand.CommandACK", "ww.north.ship1.ACK.x", "ww.ship2.REQPing.EventNACK", "ship3.REQPing.EventACK"} {
		c.publish(subject)
	}
	for _, subject := range []string{"ww.north.ship1.HERE", "ship3.HERE", "ww.central.REQHello.EventNACK"} {
		c.subscribe(subject)
	}
	if refused := c.refused(); len(refused) != 0 {
		t.Errorf("refused is %q", refused)
	}
	for _, subject := range []string{"ww.north.ship1.HERE", "ww.north.ship1.NAME", "ww.north.ship1.NAME.x", "$SYS.REQ.USER.INFO"} {
		c.publish(subject)
	}
	for _, subject := range []string{"ww.north.ship1.ACK.*", "ww.north.ship1.REQPing.EventACK", "ww.>", "*.*.EventACK", ">"} {
		c.subscribe(subject)
	}
	if refused := c.refused(); len(refused) != 9 {
		t.Errorf("refused is %q", refused)
	}
}

func TestReachLetsNodesSendMore(t *testing.T) {
	for reach, want := range map[Reach]int{ReachEvents: 3, ReachCommands: 2, ReachAll: 0} {
		key, ship1 := user(t, "ship1")
		s := start(t, Options{Self: "central", Access: &Access{Central: "central", Reach: reach, Users: []User{ship1}}})
		c := connect(t, s, key)
		for _, subject := range []string{"central.REQPing.EventACK", "central.REQCliCommand.CommandACK", "ship2.REQPing.EventACK"} {
			c.publish(subject)
		}
		c.subscribe("central.HERE")
		c.subscribe("ship2.HERE")
		if refused := c.refused(); len(refused) != want {
			t.Errorf("%s: refused is %q", reach, refused)
		}
	}
}

func TestSetUsersCutsOffWhoIsRemovedAndNobodyElse(t *testing.T) {
	key1, ship1 := user(t, "ship1")
	key2, ship2 := user(t, "ship2")
	key3, ship3 := user(t, "ship3")
	second, more := user(t, "ship1")
	a := authority(t)
	cert, certKey := issue(t, a, "broker")
	for _, o := range []Options{{}, {Name: "central", CertFile: cert, KeyFile: certKey}} {
		o.Self, o.Access = "central", &Access{Central: "central", Users: []User{ship1, ship2}}
		s := start(t, o)
		var opts []nats.Option
		if o.CertFile != "" {
			opts = append(opts, nats.RootCAs(a.File))
		}
		shutOut := func(who string, login ...nats.Option) {
			t.Helper()
			nc, err := nats.Connect(s.ClientURL(), append(login, opts...)...)
			if !errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("%s: got %v", who, err)
			}
			if err == nil {
				nc.Close()
			}
		}
		own := connectTo(t, "", s.Login(), nats.InProcessServer(s))
		one, two := connect(t, s, key1, opts...), connect(t, s, key2, opts...)
		heard, acks := own.subscribe("central.REQPing.EventACK"), one.subscribe("ship1.ACK.*")
		shutOut("a key that is not known", withKey(key3))

		if err := s.SetUsers([]User{ship1, ship3, more}); err != nil {
			t.Fatal(err)
		}
		receive(t, two.closed)
		shutOut("a key that was removed", withKey(key2))
		for _, key := range []nkeys.KeyPair{key3, second} {
			three := connect(t, s, key, opts...)
			three.publish("central.REQPing.EventACK")
			if _, err := heard.NextMsg(limit); err != nil {
				t.Errorf("from a key that was added: %v", err)
			}
		}
		own.publish("ship1.ACK.x")
		if _, err := acks.NextMsg(limit); err != nil {
			t.Errorf("to one that was there before: %v", err)
		}

		// What makes no sense changes nothing.
		if err := s.SetUsers([]User{{Node: "ship1", Keys: []string{"no key"}}}); err == nil || !strings.Contains(err.Error(), "ship1") {
			t.Errorf("got %v", err)
		}
		connect(t, s, key1, opts...)

		// Without anybody it is closed, and not open to all.
		if err := s.SetUsers(nil); err != nil {
			t.Fatal(err)
		}
		receive(t, one.closed)
		shutOut("nobody")
		if !own.IsConnected() || own.Flush() != nil {
			t.Error("the node of the process was cut off")
		}
	}
	if err := start(t, Options{}).SetUsers(nil); err == nil {
		t.Error("users were set where nobody has to log in")
	}
}

func TestKeyOfThisProcessIsOfNoUseOutside(t *testing.T) {
	s := start(t, Options{Self: "central", Access: &Access{Central: "central"}})
	if nc, err := nats.Connect(s.ClientURL(), withKey(s.Login())); err == nil {
		nc.Close()
		t.Error("let in over the network")
	}
	connectTo(t, "", s.Login(), nats.InProcessServer(s))
	if start(t, Options{}).Login() != nil {
		t.Error("there is a login where none is asked for")
	}
}

func authority(t *testing.T) *certtest.Authority {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *certtest.Authority, name string) (cert, key string) {
	t.Helper()
	cert, key, err := a.Issue(name)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// lines is a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestTLS(t *testing.T) {
	a, other := authority(t), authority(t)
	cert, key := issue(t, a, "broker")
	s := start(t, Options{CertFile: cert, KeyFile: key})
	if !strings.HasPrefix(s.ClientURL(), "tls://") {
		t.Errorf("got %s", s.ClientURL())
	}
	roundTrip(t, s.ClientURL(), nats.RootCAs(a.File))
	roundTrip(t, "", nats.InProcessServer(s))
	if _, err := nats.Connect(s.ClientURL(), nats.RootCAs(other.File)); err == nil {
		t.Error("connected to what another authority has signed")
	}

	// With an authority for clients, only who has a certificate of its gets in.
	s = start(t, Options{CertFile: cert, KeyFile: key, CAFile: other.File})
	if _, err := nats.Connect(s.ClientURL(), nats.RootCAs(a.File)); err == nil {
		t.Error("connected without a certificate")
	}
	foreign, foreignKey := issue(t, a, "foreign")
	if _, err := nats.Connect(s.ClientURL(), nats.RootCAs(a.File), nats.ClientCert(foreign, foreignKey)); err == nil {
		t.Error("connected with a certificate of another authority")
	}
	good, goodKey := issue(t, other, "good")
	roundTrip(t, s.ClientURL(), nats.RootCAs(a.File), nats.ClientCert(good, goodKey))
}

func TestNewCertificateNeedsNoNewStart(t *testing.T) {
	a, next := authority(t), authority(t)
	cert, key := issue(t, a, "broker")
	var out lines
	s := start(t, Options{CertFile: cert, KeyFile: key, Log: slog.New(slog.NewTextHandler(&out, nil))})
	roundTrip(t, s.ClientURL(), nats.RootCAs(a.File))
	good, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, "half a cert")
	roundTrip(t, s.ClientURL(), nats.RootCAs(a.File))
	roundTrip(t, s.ClientURL(), nats.RootCAs(a.File))
	if n := strings.Count(out.String(), "the one from before stays"); n != 1 {
		t.Errorf("told %d times: %s", n, out.String())
	}
	newCert, newKey := issue(t, next, "broker")
	for file, from := range map[string]string{cert: newCert, key: newKey} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, string(text))
	}
	roundTrip(t, s.ClientURL(), nats.RootCAs(next.File))
	if nc, err := nats.Connect(s.ClientURL(), nats.RootCAs(a.File)); err == nil {
		nc.Close()
		t.Error("the old certificate is still shown")
	}
	write(t, cert, string(good)) // which is not that of the key
	roundTrip(t, s.ClientURL(), nats.RootCAs(next.File))
}

func TestExpiredCertificateIsTold(t *testing.T) {
	a := authority(t)
	cert, key, err := a.IssueFor("broker", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var out lines
	start(t, Options{CertFile: cert, KeyFile: key, Log: slog.New(slog.NewTextHandler(&out, nil))})
	if !strings.Contains(out.String(), "level=ERROR") || !strings.Contains(out.String(), "put a good one in its place") {
		t.Errorf("got %s", out.String())
	}
}

func TestDoorIsClosedToOtherMachinesWithoutTLSAndLogins(t *testing.T) {
	a := authority(t)
	cert, key := issue(t, a, "broker")
	access := &Access{Central: "central"}
	for _, tt := range []struct {
		name string
		o    Options
		want string // of the error; empty for none
	}{
		{"loopback", Options{Addr: "127.0.0.1:0"}, ""},
		{"loopback by name", Options{Addr: "localhost:0"}, ""},
		{"all", Options{Addr: "0.0.0.0:0"}, "neither TLS nor logins"},
		{"all by no host", Options{Addr: ":0"}, "neither TLS nor logins"},
		{"all of version 6", Options{Addr: "[::]:0"}, "neither TLS nor logins"},
		{"any name", Options{Addr: "broker.example.com:0"}, "neither TLS nor logins"},
		{"TLS alone", Options{Addr: ":0", CertFile: cert, KeyFile: key}, "no logins"},
		{"client certificates alone", Options{Addr: ":0", CertFile: cert, KeyFile: key, CAFile: a.File}, "no logins"},
		{"logins alone", Options{Addr: ":0", Access: access, Self: "central"}, "no TLS"},
		{"both", Options{Addr: ":0", Access: access, Self: "central", CertFile: cert, KeyFile: key}, ""},
		{"told to", Options{Addr: ":0", Insecure: true}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Start(tt.o)
			if err == nil {
				s.Shutdown()
			}
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && err == nil:
				t.Error("started")
			case tt.want != "":
				for _, want := range []string{tt.want, tt.o.Addr, "-embeddedBrokerCertFile", "-embeddedBrokerInsecure=yes"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
			}
		})
	}
}

func TestSecureOptionsAreChecked(t *testing.T) {
	a := authority(t)
	cert, key := issue(t, a, "broker")
	_, otherKey := issue(t, a, "other")
	public := key + ".public"
	write(t, public, "")
	if err := os.Chmod(public, 0o644); err != nil {
		t.Fatal(err)
	}
	conf := cert + ".conf"
	write(t, conf, "")
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"certificate without key": {Options{CertFile: cert}, "without the other"},
		"key without certificate": {Options{KeyFile: key}, "without the other"},
		"authority alone":         {Options{CAFile: a.File}, "without a certificate file"},
		"key of another":          {Options{CertFile: cert, KeyFile: otherKey}, otherKey},
		"no such key":             {Options{CertFile: cert, KeyFile: key + "x"}, key + "x"},
		"key for all":             {Options{CertFile: cert, KeyFile: public}, "chmod 600 " + public},
		"no such authority":       {Options{CertFile: cert, KeyFile: key, CAFile: cert + "x"}, cert + "x"},
		"no authority":            {Options{CertFile: cert, KeyFile: key, CAFile: key}, "no certificate in it"},
		"two sorts of logins":     {Options{ConfigFile: conf, Access: &Access{Central: "central"}, Self: "central"}, "configuration file"},
		"nobody's process":        {Options{Access: &Access{Central: "central"}}, "own node"},
		"no key":                  {Options{Self: "central", Access: &Access{Central: "central", Users: []User{{Node: "ship1", Keys: []string{"x"}}}}}, "ship1"},
		"connections":             {Options{MaxConnections: -1}, "-1 connections"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Addr = "127.0.0.1:0"
			s, err := Start(tt.o)
			if err == nil {
				s.Shutdown()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q is not in: %v", tt.want, err)
			}
		})
	}
}

// What one client overdoes ends its connection, and nobody else's.
func TestLimits(t *testing.T) {
	s := start(t, Options{MaxPayload: 4096})
	honest, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer honest.Close()
	for line, want := range map[string]string{
		"PUB a 4097\r\n": "Maximum Payload Violation",
		"SUB " + strings.Repeat("a", 5000) + " 1\r\n": "maximum control line exceeded",
		"no protocol\r\n": "Unknown Protocol Operation",
	} {
		conn, in := greet(t, s)
		if _, err := fmt.Fprint(conn, "CONNECT {}\r\n"+line); err != nil {
			t.Fatal(err)
		}
		if got := errorLine(t, in); !strings.Contains(strings.ToLower(got), strings.ToLower(want)) {
			t.Errorf("%.20s: got %q, want %q", line, got, want)
		}
		for in.Scan() { // until it is closed
		}
		_ = conn.Close()
	}
	if err := honest.Flush(); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func TestOneConnectionTooMany(t *testing.T) {
	r := newTold()
	s := start(t, Options{MaxConnections: 1, Refused: r.refused})
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	second, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got := errorLine(t, bufio.NewScanner(second)); !strings.Contains(got, "maximum connections exceeded") {
		t.Errorf("got %q", got)
	}
	if err := nc.Flush(); err != nil {
		t.Errorf("the first one: %v", err)
	}
	if all := r.all(); len(all) != 1 || !strings.Contains(all[0], "maximum connections exceeded") {
		t.Errorf("told is %q", all)
	}
}

// greet connects and reads what a broker says first.
func greet(t *testing.T, s *Server) (net.Conn, *bufio.Scanner) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(conn)
	if !in.Scan() || !strings.HasPrefix(in.Text(), "INFO ") {
		t.Fatalf("got %q, %v", in.Text(), in.Err())
	}
	return conn, in
}

// errorLine is the first line that is one of an error.
func errorLine(t *testing.T, in *bufio.Scanner) string {
	t.Helper()
	for in.Scan() {
		if strings.HasPrefix(in.Text(), "-ERR") {
			return in.Text()
		}
	}
	t.Fatalf("no error: %v", in.Err())
	return ""
}

// Who reaches the port cannot fill the log.
func TestStrangersAreOneLineInTheLog(t *testing.T) {
	a, other := authority(t), authority(t)
	cert, key := issue(t, a, "broker")
	var out lines
	_, ship1 := user(t, "ship1")
	stranger, _ := user(t, "ship1")
	s := start(t, Options{CertFile: cert, KeyFile: key, Self: "central", Access: &Access{Central: "central", Users: []User{ship1}},
		Log: slog.New(slog.NewTextHandler(&out, nil))})
	for range 3 {
		for _, opts := range [][]nats.Option{{nats.RootCAs(other.File)}, {nats.RootCAs(a.File), withKey(stranger)}} {
			if nc, err := nats.Connect(s.ClientURL(), opts...); err == nil {
				nc.Close()
				t.Fatal("let in")
			}
		}
	}
	s.Shutdown()
	var said string
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, "use of closed network connection") { // by the shutdown, in the last handshake
			said += line
		}
	}
	for what, want := range map[string]int{"level=WARN": 2, "TLS handshake error": 1, "authentication error": 1, "level=ERROR": 0} {
		if got := strings.Count(said, what); got != want {
			t.Errorf("%s: %d times, want %d:\n%s", what, got, want, said)
		}
	}
}

// What a client calls itself is a part of the lines about it, and no more than that.
func TestClientWritesNoLinesAboutItself(t *testing.T) {
	key, ship1 := user(t, "ship1")
	told := make(chan string, 10)
	s := start(t, Options{Self: "central", Access: &Access{Central: "central", Users: []User{ship1}},
		Refused: func(line string, what Refusal) {
			if what == RefusedDeed {
				told <- line
			}
		}})
	const name = `100%9999[1]s %d%n" - authentication error - "`
	evil := connect(t, s, key, nats.Name(name))
	evil.publish("ship2.HERE")
	line := receive(t, told)
	if !strings.Contains(line, strconv.Quote(name)[1:]) || !strings.HasSuffix(line, ` - Publish Violation - Subject "ship2.HERE"`) {
		t.Errorf("a line of %d bytes: %.500s", len(line), line)
	}
}

// However much is refused in a short time, and to whomever, all of it is passed on, to be counted at least; the log has an end.
func TestNothingRefusedIsCoveredUpByAFlood(t *testing.T) {
	key, ship1 := user(t, "ship1")
	const flood = maxTold + 20
	told := make(chan string, 2*flood)
	var out lines
	s := start(t, Options{Self: "central", Access: &Access{Central: "central", Users: []User{ship1}},
		Refused: func(line string, _ Refusal) { told <- line }, Log: slog.New(slog.NewTextHandler(&out, nil))})
	evil, err := nats.Connect(s.ClientURL(), withKey(key), nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer evil.Close()
	for i := range flood {
		err = errors.Join(err, evil.Publish(fmt.Sprintf("ship2.HERE.%d", i), nil))
	}
	_, subErr := evil.SubscribeSync("ship2.ACK.*")
	if err := errors.Join(err, subErr, evil.Flush()); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(receive(t, told), "ship2.ACK.*") {
	}
	if n := strings.Count(out.String(), "level=WARN"); n > maxTold {
		t.Errorf("%d lines in the log", n)
	}
}

// Who does without TLS is told of, too, although a server takes that for a probe.
func TestClientWithoutTLSIsALineInTheLog(t *testing.T) {
	a := authority(t)
	cert, key := issue(t, a, "broker")
	var out lines
	s := start(t, Options{CertFile: cert, KeyFile: key, Log: slog.New(slog.NewTextHandler(&out, nil))})
	for range 2 {
		conn, in := greet(t, s)
		if _, err := io.WriteString(conn, "CONNECT {}\r\nPING\r\n"); err != nil {
			t.Fatal(err)
		}
		for in.Scan() { // until it hangs up
		}
		_ = conn.Close()
	}
	for _, version := range []uint16{tls.VersionTLS11, tls.VersionTLS12} { // which it says in brackets
		conn, _ := greet(t, s)
		if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version}).Handshake(); err == nil {
			t.Errorf("let in with %s", tls.VersionName(version))
		}
		_ = conn.Close()
	}
	s.Shutdown()
	const oldTLS = "client offered only unsupported versions"
	if n := strings.Count(out.String(), "level=WARN"); n != 2 || !strings.Contains(out.String(), withoutTLS) || !strings.Contains(out.String(), oldTLS) {
		t.Errorf("%d lines, want one each:\n%s", n, out.String())
	}
}

// A server with the printed configuration is set up as the embedded one is.
func TestConfigurationSaysWhatTheEmbeddedBrokerDoes(t *testing.T) {
	a := authority(t)
	cert, key := issue(t, a, "broker")
	_, central := user(t, "ww.central")
	_, odd := user(t, `skøyte"$1'{}#`)
	shared := User{Node: "ship1", Keys: odd.Keys}
	for _, reach := range []Reach{ReachEvents, ReachCommands, ReachAll} {
		o := Options{Addr: "127.0.0.1:4222", CertFile: cert, KeyFile: key, CAFile: a.File, MaxPayload: 2 << 20,
			Self: "ww.central", Access: &Access{Central: "ww.central", Reach: reach, Users: []User{central, odd, shared}}}
		text, err := Configuration(o)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "nats.conf")
		write(t, file, text)
		got, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		o.Addr = "127.0.0.1:0"
		s := start(t, o)
		want, err := s.options(o.Access)
		if err != nil {
			t.Fatal(err)
		}
		// The user of the process itself is in no file.
		own, err := s.self.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		permissions := func(so *server.Options) map[string]*server.Permissions {
			all := make(map[string]*server.Permissions)
			for _, u := range so.Nkeys {
				if u.Nkey != own {
					all[u.Nkey] = u.Permissions
				}
			}
			return all
		}
		if g, w := permissions(got), permissions(want); len(g) != 2 || !reflect.DeepEqual(g, w) {
			t.Errorf("%s: the permissions are not the same\n%s", reach, text)
		}
		limits := func(so *server.Options) []any {
			return []any{so.MaxPayload, so.MaxConn, so.MaxControlLine, so.MaxSubs, so.MaxPending, so.WriteDeadline, so.WriteTimeout,
				so.AuthTimeout, so.TLSTimeout, so.TLSConfig.ClientAuth}
		}
		if g, w := limits(got), limits(want); !reflect.DeepEqual(g, w) {
			t.Errorf("limits are %v, want %v", g, w)
		}
	}
	for _, o := range []Options{{}, {Access: &Access{Central: "central"}}, {Addr: "127.0.0.1:1", Access: &Access{Central: "a b"}}} {
		if text, err := Configuration(o); err == nil {
			t.Errorf("%+v: %s", o, text)
		}
	}
}

// A token is for one question, and not for a thousand connections.
func TestNewcomersAreLimited(t *testing.T) {
	key1, ship1 := user(t, "ship1")
	token, newcomer := user(t, "ship7")
	newcomer.Newcomer = true
	s := start(t, Options{Self: "central", Access: &Access{Central: "central", Users: []User{ship1, newcomer}}})
	node := connect(t, s, key1)
	var clients []*raw
	for range 5 {
		clients = append(clients, connect(t, s, token))
	}
	limit := func(each int, longest time.Duration) {
		t.Helper()
		if err := s.Limit(Limits{Token: each, TokenFor: longest, Node: 100, Address: 100}); err != nil {
			t.Fatal(err)
		}
	}
	limit(3, time.Hour)
	for _, c := range clients[3:] {
		receive(t, c.closed)
	}
	for _, c := range clients[:3] {
		if err := c.Flush(); err != nil {
			t.Errorf("one of those that came first: %v", err)
		}
	}
	limit(3, 0)
	for _, c := range clients[:3] {
		receive(t, c.closed)
	}
	if err := node.Flush(); err != nil {
		t.Errorf("a node: %v", err)
	}
}
