package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"steward/message"
	"steward/message/wire"
	"steward/security"
	"steward/security/authority"
	"steward/security/enroll"
)

// The other half of the threat model: a closed fleet, as doc/security.md has it run. The broker is that of central, with TLS,
// logins and permissions, and each node was let in by its token. The attacker is at its port, between it and a node, or
// has the key of ship3, which runs nowhere else.

// closed returns a closed fleet in which these nodes are enrolled, one after the other, and central and ship1 run. The
// way of ship1, which has these flags, to the broker is a link. reach is what nodes may send.
// rules, if there are any, are what they begin with.
func closed(t *testing.T, reach, rules string, flags []string, ships ...string) *attacked {
	a := trusting(t, emptyFleet(t, 4*time.Minute))
	a.knows = true
	a.links["ship1"] = newLink(t, a.broker)
	a.flags["central"] = []string{"-embeddedBroker=" + a.broker, "-embeddedBrokerTLS=yes", "-embeddedBrokerReach=" + reach}
	a.flags["ship1"] = flags
	a.start("central")
	if rules != "" {
		if err := os.WriteFile(filepath.Join(a.dir, "central", "etc", "fleet_acl.toml"), []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, ship := range ships {
		token := a.token(ship)
		a.does("enroll", a.etc(ship), token)
		a.keys[ship] = a.keyOf(ship)
		a.used = append(a.used, token)
	}
	a.stolen = a.keys["ship3"]
	a.start("ship1")
	a.unharmed()
	return a
}

// keyOf reads the key of a node.
func (a *attacked) keyOf(node string) *security.Key {
	a.t.Helper()
	key, err := security.LoadKey(filepath.Join(a.dir, node, "etc", "node.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// etc is the flag that names the config folder of a node.
func (a *attacked) etc(node string) string {
	return "-configFolder=" + filepath.Join(a.dir, node, "etc")
}

// token has central make a token.
func (a *attacked) token(ship string, flags ...string) string {
	a.t.Helper()
	broker := a.broker
	if l := a.links[ship]; l != nil {
		broker = l.addr()
	}
	return a.does(append([]string{"token", "new", a.etc("central"), "-node=" + ship, "-address=tls://" + broker}, flags...)...)
}

// command runs a command of steward, and returns what it prints and what it says.
func (a *attacked) command(args ...string) (out, says string, err error) {
	a.t.Helper()
	cmd := command(a.t, "steward", args...)
	cmd.Dir = a.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return strings.TrimSpace(stdout.String()), stderr.String(), err
}

// does is command for one that has to work, and returns what it prints.
func (a *attacked) does(args ...string) string {
	a.t.Helper()
	out, says, err := a.command(args...)
	if err != nil {
		a.t.Fatalf("steward %q: %v: %s", args, err, says)
	}
	return out
}

// fails is command for one that must not work, and has to say why.
func (a *attacked) fails(why string, args ...string) {
	a.t.Helper()
	out, says, err := a.command(args...)
	if err == nil || !strings.Contains(says, why) {
		a.t.Errorf("steward %q: %v; it prints %q and says %q, want %q", args, err, out, says, why)
	}
}

// begins starts a command of steward that goes on until it is interrupted, and must not have come to an end by then.
func (a *attacked) begins(args ...string) (interrupt func()) {
	a.t.Helper()
	cmd := command(a.t, "steward", args...)
	cmd.Dir = a.dir
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	return func() {
		a.t.Helper()
		_ = cmd.Process.Signal(os.Interrupt) // its status says whether it was there
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
			a.t.Errorf("steward %q: %v", args, err)
		}
	}
}

// logged waits for a line in the log of a node, besides that in central's error log: what is no more than noise on the network
// is told there alone.
func (a *attacked) logged(node, text string) {
	a.t.Helper()
	a.until(fmt.Sprintf("%s logs %s", node, text), func() bool {
		log, _ := os.ReadFile(filepath.Join(a.dir, node, "log"))
		return strings.Contains(string(log), text)
	})
}

// roots are what certificates of the broker are checked with.
func (a *attacked) roots() *tls.Config {
	a.t.Helper()
	pem, err := os.ReadFile(filepath.Join(a.dir, "central", "etc", authority.CAFile))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS10}
}

// talker speaks the protocol of the broker by hand: so what it is told stands in order, and an answer to its PING
// says that nothing else has come before.
type talker struct {
	a     *attacked
	conn  net.Conn
	in    *bufio.Reader
	nonce string
	data  []byte // of the last message
}

// talk connects to the broker, over TLS if there is a configuration for that.
func (a *attacked) talk(config *tls.Config) (*talker, error) {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.broker)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() })
	if deadline, ok := a.ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // a connection of TCP takes it
	}
	c := &talker{a: a, conn: conn, in: bufio.NewReader(conn)}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var info struct{ Nonce string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil {
		a.t.Fatalf("the broker begins with %q: %v", line, err)
	}
	if c.nonce = info.Nonce; config != nil {
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		c.conn, c.in = secure, bufio.NewReader(secure)
	}
	return c, nil
}

// login says who it is, with the signature of a key; nil for none.
func (c *talker) login(public string, key *security.Key) error {
	connect := map[string]any{"verbose": false, "pedantic": false, "headers": true, "lang": "evil"}
	if key != nil {
		sig, err := key.Login().Sign([]byte(c.nonce))
		if err != nil {
			return err
		}
		connect["nkey"], connect["sig"] = public, base64.RawURLEncoding.EncodeToString(sig)
	}
	text, err := json.Marshal(connect)
	if err != nil {
		return err
	}
	heard, err := c.say("CONNECT " + string(text) + "\r\n")
	if err == nil && len(heard) > 0 {
		err = errors.New(heard[0])
	}
	return err
}

// as is a client of the broker with a key that it lets in.
func (a *attacked) as(key *security.Key) *talker {
	a.t.Helper()
	c, err := a.talk(a.roots())
	if err == nil {
		err = c.login(key.Public().String(), key)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// say says something, and returns what has come until the broker was done with it: a line for each error, and the subject
// and the subject for answers of each message. When the broker has ended the connection that is an error, with what it has said last.
func (c *talker) say(text string) (heard []string, err error) {
	_, err = io.WriteString(c.conn, text+"PING\r\n")
	for err == nil {
		var line string
		if line, err = c.in.ReadString('\n'); err != nil {
			break
		}
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		switch {
		case line == "PONG":
			return heard, nil
		case line == "PING":
			_, err = io.WriteString(c.conn, "PONG\r\n")
		case strings.HasPrefix(line, "INFO "):
		case strings.HasPrefix(line, "MSG "), strings.HasPrefix(line, "HMSG "):
			var n int
			if n, err = strconv.Atoi(fields[len(fields)-1]); err == nil {
				c.data = make([]byte, n+len("\r\n"))
				_, err = io.ReadFull(c.in, c.data)
				c.data = c.data[:n]
			}
			heard = append(heard, line)
		default:
			heard = append(heard, line)
		}
	}
	return heard, fmt.Errorf("%q: %w", heard, err)
}

func pub(subject, reply string, data []byte) string {
	if reply != "" {
		reply += " "
	}
	return fmt.Sprintf("PUB %s %s%d\r\n%s\r\n", subject, reply, len(data), data)
}

// refused wants that the broker says no to what is said.
func (c *talker) refused(text, why string) {
	c.a.t.Helper()
	heard, err := c.say(text)
	if err != nil || len(heard) != 1 || !strings.HasPrefix(heard[0], "-ERR ") || !strings.Contains(heard[0], why) {
		c.a.t.Errorf("%q: the broker says %q, %v; want %q", text, heard, err, why)
	}
}

// TestNothingGetsThroughToAClosedFleet: strangers at the port of the broker or on the way to it, who has a token, and a
// node that was stolen.
func TestNothingGetsThroughToAClosedFleet(t *testing.T) {
	t.Parallel()
	a := closed(t, "events", "", nil, "ship1", "ship2", "ship3")
	a.play([]attack{
		{"strangers", (*attacked).knock},
		{"a man in the middle", (*attacked).standBetween},
		{"a stolen key", (*attacked).listenAndSpeak},
		{"acks of another", (*attacked).answerForOthers},
		{"tokens", (*attacked).misuseTokens},
		{"ten with one token", (*attacked).race},
		{"a man in the middle of an enrolment", (*attacked).swapKeys},
	})
}

// knock is who has no key that the broker knows, and who does without TLS or with an old one.
func (a *attacked) knock() {
	_, evil := a.canary()
	try := pub("ship1.REQCliCommand.CommandACK", "central.ACK.x", a.frame("central", "ship1", "REQCliCommand", 1, evil))
	for _, who := range []struct {
		name   string
		public string
		key    *security.Key
		said   string
	}{
		{"nobody", "", nil, "authentication error"},
		{"a key that nobody knows", a.strange.Public().String(), a.strange, a.strange.Public().String()},
		{"the key of ship1, without having it", a.keys["ship1"].Public().String(), a.strange, a.keys["ship1"].Public().String()},
	} {
		c, err := a.talk(a.roots())
		if err != nil {
			a.t.Fatal(err)
		}
		if err := c.login(who.public, who.key); err == nil || !strings.Contains(err.Error(), "Authorization Violation") {
			a.t.Errorf("%s: got %v", who.name, err)
		}
		a.told("central", "refused", who.said)
	}
	// Nor by what a broker may ask for elsewhere, or with a signature that was heard before.
	for _, connect := range []string{`{}`, `{"user":"central","pass":""}`, `{"user":"","pass":""}`, `{"auth_token":"central"}`, `{"jwt":"e30.e30.e30","sig":"AAAA"}`,
		`{"nkey":"PUBLIC"}`, `{"nkey":"PUBLIC","sig":""}`, `{"nkey":"PUBLIC","sig":"OLD"}`, `{"nkey":"","sig":"OLD"}`, `{"nkey":"*","sig":"OLD"}`} {
		c, err := a.talk(a.roots())
		if err != nil {
			a.t.Fatal(err)
		}
		old, err := a.keys["ship1"].Login().Sign([]byte("what was drawn for another connection"))
		if err != nil {
			a.t.Fatal(err)
		}
		connect = strings.NewReplacer("PUBLIC", a.keys["ship1"].Public().String(), "OLD", base64.RawURLEncoding.EncodeToString(old)).Replace(connect)
		if heard, err := c.say("CONNECT " + connect + "\r\n" + try); err == nil || !slices.ContainsFunc(heard, func(line string) bool { return strings.Contains(line, "Authorization Violation") }) {
			a.t.Errorf("CONNECT %s: the broker says %q, %v", connect, heard, err)
		}
	}

	// Without TLS nothing is read, not even who it is.
	c, err := a.talk(nil)
	if err != nil {
		a.t.Fatal(err)
	}
	_, _ = io.WriteString(c.conn, "CONNECT {}\r\n"+try+"PING\r\n") // the broker may have hung up
	if said, _ := io.ReadAll(c.in); bytes.Contains(said, []byte("PONG")) {
		a.t.Errorf("without TLS: the broker says %q", said)
	}
	a.told("central", "refused", "first record does not look like a TLS handshake")
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		config := a.roots()
		config.MaxVersion = version
		if _, err := a.talk(config); err == nil || !strings.Contains(err.Error(), "protocol version") {
			a.t.Errorf("%s: got %v", tls.VersionName(version), err)
		}
	}
	a.told("central", "refused", "client offered only unsupported versions")
}

// fake is somebody in the place of the broker.
type fake struct {
	ln  net.Listener
	all sync.WaitGroup

	mu   sync.Mutex
	came int // guarded by mu
}

func (a *attacked) pretend(serve func(net.Conn)) *fake {
	a.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	f := &fake{ln: ln}
	f.all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.came++
			f.mu.Unlock()
			f.all.Go(func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			})
		}
	})
	return f
}

func (f *fake) addr() string { return f.ln.Addr().String() }

func (f *fake) met() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.came > 0
}

// over ends it when who has come is gone.
func (f *fake) over() {
	_ = f.ln.Close()
	f.all.Wait()
}

// pairOf reads a certificate with its key.
func (a *attacked) pairOf(file string) []tls.Certificate {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		a.t.Fatal(err)
	}
	return []tls.Certificate{pair}
}

// standBetween is who the node finds where it looks for its broker.
func (a *attacked) standBetween() {
	folder := filepath.Join(a.dir, "evil")
	if err := os.Mkdir(folder, 0o700); err != nil {
		a.t.Fatal(err)
	}
	other, err := authority.Ensure(folder, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	forged, _, err := other.Broker([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	right := filepath.Join(a.dir, "central", "etc", "broker.pem")
	link := a.links["ship1"]
	for _, way := range []struct {
		name   string
		config *tls.Config
		told   string
	}{
		{"another authority", &tls.Config{Certificates: a.pairOf(forged), MinVersion: tls.VersionTLS13}, "certificate signed by unknown authority"},
		{"no TLS", nil, "secure connection not available"},
		{"the right certificate, with an old TLS", &tls.Config{Certificates: a.pairOf(right), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version"},
	} {
		var mu sync.Mutex
		var heard []byte
		f := a.pretend(func(conn net.Conn) {
			_, _ = fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":\"2.15.0\",\"proto\":1,\"max_payload\":1048576,\"nonce\":\"n\",\"auth_required\":true,\"tls_required\":%v}\r\n",
				way.config != nil)
			if way.config != nil {
				conn = tls.Server(conn, way.config)
			}
			said, _ := io.ReadAll(conn) // until the node hangs up
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, said...)
		})
		link.lead(f.addr())
		a.until("ship1 comes to "+way.name, f.met)
		a.logged("ship1", way.told)
		link.lead(a.broker)
		if f.over(); len(heard) > 0 {
			a.t.Errorf("%s: ship1 says %q", way.name, heard)
		}
		a.told("ship1", "link-failed", way.told)
		a.unharmed()
	}
}

// listenAndSpeak is ship3 with its own key, which listens to others and speaks to them and for them.
func (a *attacked) listenAndSpeak() {
	evil := a.as(a.stolen)
	subjects := []string{">", "*", "*.>", "*.*.*", "*.*.*.*", "*.ACK.*", "central.>", "central.ACK.*", "central.*.EventACK", "central.*.*", "central.NAME", "central.ENROLL.*", "central.ENROLLED.*",
		"ship1.>", "ship1.*.CommandACK", "ship1.REQCliCommand.CommandACK", "ship1.ACK.*", "ship1.HERE", "ship1.NAME", "ship1.NAME.*", "ship1.OPEN.EventACK", "ship3.>", "ship3.*", "ship3.ACK",
		"_INBOX.>", "_INBOX.*", "$SYS.>", "$SYS.REQ.SERVER.PING", "$JS.API.>", "$JS.>"}
	for i, subject := range subjects {
		evil.refused(fmt.Sprintf("SUB %s %d\r\n", subject, i), "Permissions Violation for Subscription to "+strconv.Quote(subject))
	}
	evil.refused("SUB ship1.REQCliCommand.CommandACK workers 100\r\n", "Permissions Violation for Subscription")
	_, m := a.canary()
	for _, as := range []string{"central", "ship1", "ship2", "ship3"} {
		data := seal(a.stolen, forFrame, "ship1.REQCliCommand.CommandACK", as+".ACK.x", 0, a.frame(as, "ship1", "REQCliCommand", 1, m))
		for _, subject := range []string{"ship1.REQCliCommand.CommandACK", "ship1.REQnCliCommand.CommandNACK", "central.REQCliCommand.CommandACK", "ship2.REQToFile.EventACK"} {
			evil.refused(pub(subject, as+".ACK.x", data), "Permissions Violation for Publish to "+strconv.Quote(subject))
		}
	}
	for _, subject := range []string{"ship1.ACK.x", "ship2.ACK.x", "central.HERE", "ship1.HERE", "central.NAME", "ship1.NAME", "ship1.NAME.x", "ship1.OPEN.EventACK", "ship2.REQHello.EventNACK",
		"central.ENROLL." + a.stolen.Public().String(), "central.ENROLLED." + a.stolen.Public().String(), "_INBOX.x", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.x.CONNZ", "$JS.API.INFO", "$JS.API.STREAM.CREATE.x"} {
		evil.refused(pub(subject, "", nil), "Permissions Violation for Publish to "+strconv.Quote(subject))
	}
	for _, subject := range []string{">", "*.REQCliCommand.CommandACK", "central.>", "ship1.*.*"} {
		heard, err := evil.say(pub(subject, "", nil))
		if err != nil || len(heard) != 1 || !strings.HasPrefix(heard[0], "-ERR ") {
			a.t.Errorf("publish to %s: the broker says %q, %v", subject, heard, err)
		}
	}
	a.told("central", "refused", "Subscription Violation")
	for _, subject := range []string{`"ship1.REQCliCommand.CommandACK"`, `"central.NAME"`, `"$JS.API.INFO"`} {
		a.logged("central", "Publish Violation - Subject "+strings.ReplaceAll(subject, `"`, `\"`))
	}

	// None of these is in force: of all that passes, it hears what is for ship3.
	if heard, err := evil.say("SUB ship3.*.CommandACK 1000\r\nSUB ship3.ACK.* 1001\r\nSUB central.HERE 1002\r\n"); err != nil || len(heard) > 0 {
		a.t.Fatalf("what is for ship3 itself: the broker says %q, %v", heard, err)
	}
	a.unharmed()
	a.send([]map[string]any{{"toNode": "ship3", "method": "REQCliCommand", "data": []string{"id"}, "ACKTimeout": 1, "retries": 0}})
	var heard []string
	a.until("the marker is heard", func() bool {
		more, err := evil.say("")
		if err != nil {
			a.t.Fatal(err)
		}
		heard = append(heard, more...)
		return len(heard) > 0
	})
	for _, line := range heard {
		if !strings.HasPrefix(line, "MSG ship3.REQCliCommand.CommandACK 1000 ") {
			a.t.Errorf("ship3 hears %s", line)
		}
	}
}

// answerForOthers is ship3, which knows where its own acks go to, and guesses where those of others go.
func (a *attacked) answerForOthers() {
	evil := a.as(a.stolen)
	var heard []string
	say := func(text string) {
		a.t.Helper()
		more, err := evil.say(text)
		if err != nil {
			a.t.Fatal(err)
		}
		heard = append(heard, more...)
	}
	id := a.send([]map[string]any{{"toNode": "ship2", "method": "REQToFileAppend", "data": []string{"precious"}, "fileName": "kept", "ACKTimeout": 1, "retries": 0}})[0]
	a.send([]map[string]any{{"toNode": "ship3", "method": "REQPing", "ACKTimeout": 1, "retries": 0}})
	say("SUB ship3.REQPing.EventACK 1\r\n")
	a.until("a frame for ship3 is heard", func() bool { say(""); return len(heard) > 0 })
	fields := strings.Fields(heard[0])
	f, err := a.codec.DecodeFrame(evil.data)
	if err != nil || len(fields) != 5 {
		a.t.Fatalf("%q: %v", heard[0], err)
	}
	const random = 12 // characters of the token that each run draws; a number is behind them
	run := fields[3][:len("central.ACK.")+random]
	for n := range uint64(50) {
		subject := run + strconv.FormatUint(n, 36)
		for _, by := range []message.Node{"ship2", "ship3"} {
			data, err := a.codec.EncodeAck(&wire.Ack{By: by, To: "central", Method: "REQToFileAppend", Epoch: f.Epoch, Next: 2})
			if err != nil {
				a.t.Fatal(err)
			}
			say(pub(subject, "", data))
			say(pub(subject, "", seal(a.stolen, forAck, subject, "", 0, data)))
		}
	}
	a.told("central", "unproven", "ack: it is not signed")
	a.told("central", "unproven", "ack: it says to be from ship2, and is signed with the key "+a.stolen.Public().String())
	a.told("central", "refused", "ack of ship3 for what is sent to ship2")
	if s := a.state(id); s == "delivered" || s == "done" {
		a.t.Errorf("what nobody has acknowledged is %s", s)
	}
	a.start("ship2")
	a.until("it arrives", func() bool { return slices.Equal(a.lines("ship2", "var/central/kept"), []string{"precious"}) })
	a.stop("ship2")
}

// changed returns the text of a token in which something else stands.
func (a *attacked) changed(text string, change func(*enroll.Token)) string {
	a.t.Helper()
	token, err := enroll.ParseToken(text)
	if err != nil {
		a.t.Fatal(err)
	}
	change(token)
	if text, err = token.Text(); err != nil {
		a.t.Fatal(err)
	}
	return text
}

// trusted is the list of whom central trusts, as it stands in the file.
func (a *attacked) trusted() string {
	a.t.Helper()
	list, err := os.ReadFile(filepath.Join(a.dir, "central", "etc", "trusted_nodes"))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(list)
}

func (a *attacked) misuseTokens() {
	before := a.trusted()
	good, late := a.token("ship4"), a.token("ship7", "-ttl=0s")
	unknown, err := security.NewKey()
	if err != nil {
		a.t.Fatal(err)
	}
	interrupt := a.begins("enroll", a.etc("stranger"), "-timeout=5m", a.changed(good, func(t *enroll.Token) { t.Key = unknown }))
	a.told("central", "refused", unknown.Public().String())
	interrupt()
	own := filepath.Join(a.dir, "ship3", "etc", "node.key")
	for i, try := range []struct {
		name, token, says, told string
		key                     string // the file of the key to come with; empty for a new one
	}{
		{name: "too late", token: late, says: "the token expired at", told: "ship7, with the token"},
		{name: "used by another key", token: a.used[1], says: "the token was used by who has the key " + a.keys["ship2"].Public().String(), told: "enrolment refused: ship2"},
		{name: "for another node", token: a.changed(good, func(t *enroll.Token) { t.Node = "ship5" }), says: "the token is for ship4", told: "enrolment refused: ship5"},
		{name: "in the place of a node", token: a.changed(good, func(t *enroll.Token) { t.Node = "ship1" }), says: "the token is for ship4", told: "enrolment refused: ship1"},
		{name: "in the place of central", token: a.changed(good, func(t *enroll.Token) { t.Node = "central" }), says: "the token is for ship4", told: "enrolment refused: central"},
		{name: "a second name for a key", token: good, key: own, says: "the key is that of ship3", told: "the key is that of ship3"},
	} {
		folder := fmt.Sprintf("thief%d", i)
		etc := filepath.Join(a.dir, folder, "etc")
		if try.key != "" {
			key, err := os.ReadFile(try.key)
			if err == nil {
				err = errors.Join(os.MkdirAll(etc, 0o700), os.WriteFile(filepath.Join(etc, "node.key"), key, 0o600))
			}
			if err != nil {
				a.t.Fatal(err)
			}
		}
		a.fails(try.says, "enroll", a.etc(folder), try.token)
		if _, err := os.Stat(filepath.Join(etc, "config.toml")); err == nil {
			a.t.Errorf("%s: there is a configuration", try.name)
		}
		a.told("central", "refused", try.told)
	}
	if now := a.trusted(); now != before {
		a.t.Errorf("central trusts\n%s\nbefore it was\n%s", now, before)
	}
}

// race is ten who have the same token.
func (a *attacked) race() {
	token := a.token("ship5")
	type end struct {
		folder, says string
		err          error
	}
	ends := make(chan end, 10)
	for i := range cap(ends) {
		go func() {
			folder := fmt.Sprintf("runner%d", i)
			_, says, err := a.command("enroll", a.etc(folder), token)
			ends <- end{folder, says, err}
		}()
	}
	winner := ""
	for range cap(ends) {
		e := <-ends
		_, err := os.Stat(filepath.Join(a.dir, e.folder, "etc", "config.toml"))
		switch {
		case e.err == nil && winner == "" && err == nil:
			winner = e.folder
		case e.err == nil || err == nil || !strings.Contains(e.says, "the token was used by"):
			a.t.Errorf("%s, besides %q: %v, %s", e.folder, winner, e.err, e.says)
		}
	}
	if winner == "" {
		a.t.Fatal("nobody is enrolled")
	}
	if list := a.trusted(); strings.Count(list, "ship5 ") != 1 || !strings.Contains(list, "ship5 "+a.keyOf(winner).Public().String()) {
		a.t.Errorf("%s is enrolled, and central trusts\n%s", winner, list)
	}
	a.told("central", "refused", "enrolment refused: ship5")
}

// between is who has the certificate of the broker and its key, and stands between it and a node: it reads all, and
// changes what it likes of what is published there, and of what comes.
func (a *attacked) between(asked, comes func([]byte) []byte) *fake {
	a.t.Helper()
	here := &tls.Config{Certificates: a.pairOf(filepath.Join(a.dir, "central", "etc", "broker.pem")), MinVersion: tls.VersionTLS13}
	there := a.roots()
	return a.pretend(func(node net.Conn) {
		broker, err := net.Dial("tcp", a.broker)
		if err != nil {
			return
		}
		defer func() { _ = broker.Close() }()
		// What the broker says first is not secret, and ends with its first line.
		hello := make([]byte, 4096)
		n, err := broker.Read(hello)
		if err == nil {
			_, err = node.Write(hello[:n])
		}
		if err != nil || hello[n-1] != '\n' {
			return
		}
		secure, open := tls.Client(broker, there), tls.Server(node, here)
		var both sync.WaitGroup
		both.Go(func() { carry(secure, open, asked); _ = broker.Close() })
		both.Go(func() { carry(open, secure, comes); _ = node.Close() })
		both.Wait()
	})
}

// carry takes lines to the other side, with what is published changed.
func carry(to io.Writer, from io.Reader, change func([]byte) []byte) {
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		out := []byte(line)
		if fields := strings.Fields(line); len(fields) > 2 && (fields[0] == "PUB" || fields[0] == "MSG") {
			n, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				return
			}
			data := make([]byte, n+len("\r\n"))
			if _, err := io.ReadFull(in, data); err != nil {
				return
			}
			data = change(data[:n])
			fields[len(fields)-1] = strconv.Itoa(len(data))
			out = fmt.Appendf(nil, "%s\r\n%s\r\n", strings.Join(fields, " "), data)
		}
		if _, err := to.Write(out); err != nil {
			return
		}
	}
}

// resealed returns an envelope of an enrolment with another text in it.
func resealed(data []byte, change func(text []byte) []byte, seals map[string]func(text []byte) []byte) []byte {
	var e map[string][]byte
	if json.Unmarshal(data, &e) != nil || e["text"] == nil {
		return data
	}
	e["text"] = change(e["text"])
	for name, seal := range seals {
		e[name] = seal(e["text"])
	}
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // it has come out of one
	}
	return data
}

// swapKeys puts the key of the attacker in the place of that of the node on its way to central, and on the way back what
// the node is told.
func (a *attacked) swapKeys() {
	a.links["ship6"] = newLink(a.t, a.broker)
	link, token := a.links["ship6"], a.token("ship6")
	same := func(data []byte) []byte { return data }
	before := a.trusted()

	own, _, err := security.EnsureKey(filepath.Join(a.dir, "ship6", "etc", "node.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	f := a.between(func(data []byte) []byte {
		return resealed(data, func(text []byte) []byte {
			return bytes.ReplaceAll(text, []byte(own.Public().String()), []byte(a.strange.Public().String()))
		}, map[string]func([]byte) []byte{"signature": func(text []byte) []byte { return a.strange.Sign("steward enroll node 1", text) }})
	}, same)
	link.lead(f.addr())
	interrupt := a.begins("enroll", a.etc("ship6"), "-timeout=5m", token)
	a.told("central", "refused", "the key of the token: the signature does not fit")
	interrupt()
	f.over()
	if now := a.trusted(); now != before {
		a.t.Errorf("central trusts\n%s\nbefore it was\n%s", now, before)
	}

	answers := make(chan struct{}, 100)
	f = a.between(same, func(data []byte) []byte {
		return resealed(data, func(text []byte) []byte {
			answers <- struct{}{}
			return bytes.ReplaceAll(text, []byte(`"require"`), []byte(`"off"`))
		}, nil)
	})
	link.lead(f.addr())
	interrupt = a.begins("enroll", a.etc("ship6"), "-timeout=5m", token)
	for range 2 { // who asks once more has not believed the first one
		select {
		case <-answers:
		case <-a.ctx.Done():
			a.t.Fatal("central does not answer")
		}
	}
	interrupt()
	f.over()
	if _, err := os.Stat(filepath.Join(a.dir, "ship6", "etc", "config.toml")); err == nil {
		a.t.Error("ship6 has a configuration")
	}

	link.lead(a.broker)
	a.does("enroll", a.etc("ship6"), token)
	if list := a.trusted(); !strings.Contains(list, "ship6 "+own.Public().String()) || strings.Contains(list, a.strange.Public().String()) {
		a.t.Errorf("central trusts\n%s", list)
	}
}
