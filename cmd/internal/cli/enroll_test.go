package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"steward/message"
	"steward/process/transport/broker"
	"steward/security"
	"steward/security/authority"
	"steward/security/enroll"
)

const patience = 30 * time.Second

// enrolling is a central node with an embedded broker, in this process.
type enrolling struct {
	t   *testing.T
	dir string
	url string
}

func newEnrolling(t *testing.T, args ...string) *enrolling {
	t.Helper()
	dir, err := os.MkdirTemp("", "e") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	e := &enrolling{t: t, dir: dir}
	local := &localNodes{s: streams{out: &bytes.Buffer{}, err: &bytes.Buffer{}}, dir: dir}
	t.Cleanup(func() {
		if err := errors.Join(local.close(1), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args = append([]string{"-embeddedBroker=127.0.0.1:0", "-embeddedBrokerTLS=yes", "-signatures=require"}, args...)
	central, err := local.start(ctx, "central", args...)
	if err != nil {
		t.Fatal(err)
	}
	e.url = central.BrokerURL()
	// What a start was given by flag is in the configuration only if the daemon has written it.
	for _, w := range central.cfg.Save() {
		t.Fatal(w)
	}
	return e
}

func (e *enrolling) etc(node string) string { return filepath.Join(e.dir, node, "etc") }

// run runs a command, and returns what it prints and says.
func (e *enrolling) run(args ...string) (out, says string, code int) {
	e.t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(e.t.Context(), args, nil, strings.NewReader(""), &stdout, &stderr)
	return strings.TrimSpace(stdout.String()), stderr.String(), code
}

// token makes a token, and returns its text and what is in it.
func (e *enrolling) token(node string) (string, *enroll.Token) {
	e.t.Helper()
	text, says, code := e.run("token", "new", "-configFolder", e.etc("central"), "-node", node, "-address", e.url)
	if code != 0 {
		e.t.Fatal(says)
	}
	token, err := enroll.ParseToken(text)
	if err != nil {
		e.t.Fatal(err)
	}
	return text, token
}

// await looks until cond holds.
func (e *enrolling) await(what string, cond func() bool) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(e.errorLog())
			e.t.Fatalf("%s: not in %v; central's error log:\n%s", what, patience, log)
		}
	}
}

func (e *enrolling) errorLog() string {
	return filepath.Join(e.dir, "central", "var", "errorLog", "central", "error.log")
}

// told waits until central's error log holds a text.
func (e *enrolling) told(text string) {
	e.t.Helper()
	e.await("a line with "+text, func() bool {
		log, _ := os.ReadFile(e.errorLog())
		return strings.Contains(string(log), text)
	})
}

// client is somebody who has a key that the broker knows, and does what it likes.
func (e *enrolling) client(ca []byte, key *security.Key, refused chan<- error) *nats.Conn {
	e.t.Helper()
	file := filepath.Join(e.t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		e.t.Fatal(err)
	}
	var nc *nats.Conn
	e.await("a login", func() (ok bool) {
		var err error
		nc, err = nats.Connect(e.url, nats.RootCAs(file), nats.Nkey(key.Public().String(), key.Login().Sign),
			nats.NoReconnect(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				select {
				case refused <- err:
				default:
				}
			}))
		return err == nil
	})
	e.t.Cleanup(nc.Close)
	return nc
}

func (e *enrolling) receive(refused <-chan error) string {
	e.t.Helper()
	select {
	case err := <-refused:
		return err.Error()
	case <-time.After(patience):
		e.t.Fatal("the broker refuses nothing")
		return ""
	}
}

func TestTokenLetsAskAndNothingElse(t *testing.T) {
	e := newEnrolling(t)
	_, token := e.token("ship7")
	_, other := e.token("ship8")
	refused := make(chan error, 10)
	nc := e.client(token.CA, token.Key, refused)
	ask, answer := enroll.Subjects("central", token.Key.Public())
	askOther, answerOther := enroll.Subjects("central", other.Key.Public())
	for _, subject := range []string{">", "*.*.*", "central.ENROLL.*", "central.ENROLLED.*", ask, answerOther, "ship7.*.CommandACK", "ship7.NAME"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if got := e.receive(refused); !strings.Contains(got, `Subscription to "`+subject+`"`) {
			t.Errorf("subscribe %s: got %s", subject, got)
		}
	}
	for _, subject := range []string{askOther, answer, "central.REQErrorLog.EventACK", "ship7.HERE", "ship1.REQCliCommand.CommandACK", "central.ACK.x"} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		if got := e.receive(refused); !strings.Contains(got, `Publish to "`+subject+`"`) {
			t.Errorf("publish %s: got %s", subject, got)
		}
	}
	e.told("Subscription Violation")
	e.told("Publish Violation")
}

// Who has a token and asks without end is not listened to, and keeps nobody else out.
func TestTokenThatAsksTooOftenIsNotListenedTo(t *testing.T) {
	e := newEnrolling(t)
	_, token := e.token("ship7")
	text, _ := e.token("ship8")
	nc := e.client(token.CA, token.Key, make(chan error, 10))
	subject, _ := enroll.Subjects("central", token.Key.Public())
	e.await("central has enough of it", func() bool {
		for range 20 {
			if err := nc.Publish(subject, []byte("let me in")); err != nil {
				t.Fatal(err)
			}
		}
		log, _ := os.ReadFile(e.errorLog())
		return strings.Contains(string(log), "enrolment refused: the token "+token.Key.Public().String()+" asks too often")
	})
	if _, says, code := e.run("enroll", "-configFolder="+e.etc("ship8"), text); code != exitDone {
		t.Errorf("another one: %d, %s", code, says)
	}
}

// Who has a token gets in as the node for which it is, and with the key that it has.
func TestTokenIsForOneNode(t *testing.T) {
	e := newEnrolling(t)
	_, token := e.token("ship7")
	nc := e.client(token.CA, token.Key, make(chan error, 10))
	subject, back := enroll.Subjects("central", token.Key.Public())
	answers, err := nc.SubscribeSync(back)
	if err != nil {
		t.Fatal(err)
	}
	own, err := security.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[message.Node]string{"ship8": "the token is for ship7", "central": "the token is for ship7"} {
		forged := *token
		forged.Node = name
		r, data, err := enroll.NewRequest(&forged, own)
		if err != nil {
			t.Fatal(err)
		}
		var m *nats.Msg
		e.await("an answer", func() bool { // central listens from a moment after the token was made
			if err := nc.Publish(subject, data); err != nil {
				t.Fatal(err)
			}
			m, err = answers.NextMsg(time.Second)
			return err == nil
		})
		a, err := enroll.ReadAnswer(m.Data, r, token.CentralKey)
		for errors.Is(err, enroll.ErrNotMine) { // to one that was sent again
			if m, err = answers.NextMsg(patience); err != nil {
				t.Fatal(err)
			}
			a, err = enroll.ReadAnswer(m.Data, r, token.CentralKey)
		}
		if err != nil || a.Refused != want {
			t.Errorf("as %s: got %+v, %v", name, a, err)
		}
		e.told("enrolment refused: " + string(name))
	}
	// A request that was heard on the way, or made up without the token, is not answered.
	thief, err := security.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	forged := *token
	forged.Key = thief
	_, data, err := enroll.NewRequest(&forged, own)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(subject, data); err != nil {
		t.Fatal(err)
	}
	e.told("the key of the token: the signature does not fit")
	if list, err := security.ReadTrust(filepath.Join(e.etc("central"), "trusted_nodes")); err != nil || len(list) != 0 {
		t.Errorf("trusted: %v, %v", list, err)
	}
	if pending, err := enroll.Folder(filepath.Join(e.etc("central"), "tokens")).Lookup(token.Key.Public()); err != nil || pending.Used != nil {
		t.Errorf("the token is used up: %+v, %v", pending, err)
	}
}

// A broker in the place of the right one learns nothing, not even that it is asked.
func TestBrokerOfAnotherAuthorityIsNotTalkedTo(t *testing.T) {
	e := newEnrolling(t)
	folder := t.TempDir()
	other, err := authority.Ensure(folder, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := other.Broker([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	fake, err := broker.Start(broker.Options{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: cert, Self: "central", Access: &broker.Access{Central: "central"}})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Shutdown()
	text, says, code := e.run("token", "new", "-configFolder", e.etc("central"), "-node", "ship7", "-address", fake.ClientURL())
	if code != 0 {
		t.Fatal(says)
	}
	_, says, code = e.run("enroll", "-configFolder", e.etc("ship7"), "-timeout", "3s", text)
	if code != exitFailed || !strings.Contains(says, "certificate") {
		t.Errorf("exit status %d, %s", code, says)
	}
	e.nothingWritten("ship7")
}

// Without TLS, in a broker that anybody may use, an answer that central has not signed is none.
func TestAnswerOfSomebodyElseIsNotBelieved(t *testing.T) {
	e := newEnrolling(t)
	thief, err := security.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	central := broker.User{Node: "central", Keys: []string{thief.Public().String()}}
	fake, err := broker.Start(broker.Options{Addr: "127.0.0.1:0", Self: "central", Access: &broker.Access{Central: "central", Users: []broker.User{central}}})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Shutdown()
	text, says, code := e.run("token", "new", "-configFolder", e.etc("central"), "-node", "ship7", "-address", "tls://"+strings.TrimPrefix(fake.ClientURL(), "nats://"))
	if code != 0 {
		t.Fatal(says)
	}
	if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), "-timeout", "2s", text); code != exitFailed || !strings.Contains(says, "secure connection") {
		t.Errorf("a broker that does without TLS: exit status %d, %s", code, says)
	}

	token, err := enroll.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	token.CA, token.Brokers = nil, []string{fake.ClientURL()}
	if text, err = token.Text(); err != nil {
		t.Fatal(err)
	}
	known := broker.User{Node: "ship7", Keys: []string{token.Key.Public().String()}, Newcomer: true}
	if err := fake.SetUsers([]broker.User{central, known}); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(fake.ClientURL(), nats.Nkey(thief.Public().String(), thief.Login().Sign))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	subject, back := enroll.Subjects("central", token.Key.Public())
	if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
		r, _, err := enroll.ReadRequest(m.Data, "central", token.Key.Public())
		if err != nil {
			t.Error(err)
		}
		data, err := enroll.Answer{Signatures: "off"}.Write(r, thief)
		if err == nil {
			err = nc.Publish(back, data)
		}
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	_, says, code = e.run("enroll", "-configFolder", e.etc("ship7"), "-timeout", "3s", text)
	if code != exitFailed || !strings.Contains(says, "what came is not from central") {
		t.Errorf("exit status %d, %s", code, says)
	}
	e.nothingWritten("ship7")
}

// nothingWritten checks that a node has nothing but its key.
func (e *enrolling) nothingWritten(node string) {
	e.t.Helper()
	for _, file := range []string{"config.toml", "trusted_nodes", authority.CAFile, "fleet_trust", "acl.toml"} {
		if _, err := os.Stat(filepath.Join(e.etc(node), file)); !errors.Is(err, fs.ErrNotExist) {
			e.t.Errorf("%s: got %v, want none", file, err)
		}
	}
}

// Central was killed when it had noted who has used a token, and no more; and what it answers is lost.
// Who asks again with the same key gets in, and nobody else does.
func TestEnrolmentGoesOnFromWhereItStopped(t *testing.T) {
	e := newEnrolling(t)
	text, token := e.token("ship7")
	if out, says, code := e.run("keys", "new", "-configFolder", e.etc("ship7")); code != 0 {
		t.Fatal(out, says)
	}
	key, err := security.LoadKey(filepath.Join(e.etc("ship7"), "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enroll.Folder(filepath.Join(e.etc("central"), "tokens")).Use(token.Key.Public(), key.Public()); err != nil {
		t.Fatal(err)
	}
	if _, says, code := e.run("enroll", "-configFolder", e.etc("thief"), text); code != exitFailed || !strings.Contains(says, "the token was used by who has the key "+key.Public().String()) {
		t.Errorf("another key: exit status %d, %s", code, says)
	}
	e.told("the token was used by who has the key")
	for range 2 {
		if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text); code != 0 {
			t.Fatalf("the same key: %s", says)
		}
	}
	list, err := security.ReadTrust(filepath.Join(e.etc("central"), "trusted_nodes"))
	if err != nil || len(list) != 1 || list[0].Node != "ship7" || list[0].Key != key.Public() {
		t.Errorf("trusted: %v, %v", list, err)
	}
}

// A node has the rules of central before it runs for the first time, or does not come in.
func TestNewNodeBeginsWithRules(t *testing.T) {
	e := newEnrolling(t)
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules := func(version int, from string) string {
		return fmt.Sprintf("version = %d\n[[rules]]\nname = \"all\"\neffect = \"allow\"\nfrom = [%q]\nmethods = [\"*\"]\n", version, from)
	}
	text, token := e.token("ship7")
	file := filepath.Join(e.etc("central"), "fleet_acl.toml")
	for bad, why := range map[string]string{
		"version = 3\nruels = 1\n": "fleet_acl.toml:2:1: unknown key",
		rules(3, "ship7"):          "central could send them no others",
	} {
		write(file, bad)
		if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text); code != exitFailed || !strings.Contains(says, why) {
			t.Errorf("exit status %d, %s, want %s", code, says, why)
		}
		e.told(why)
		e.nothingWritten("ship7")
		if _, says, code := e.run("token", "new", "-configFolder", e.etc("central"), "-node", "ship8"); code != exitFailed || !strings.Contains(says, why) {
			t.Errorf("a token: exit status %d, %s, want %s", code, says, why)
		}
	}
	if pending, err := enroll.Folder(filepath.Join(e.etc("central"), "tokens")).Lookup(token.Key.Public()); err != nil || pending.Used != nil {
		t.Errorf("the token is used up: %+v, %v", pending, err)
	}

	write(file, rules(3, "central"))
	out, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text)
	if code != 0 || !strings.Contains(out, "its rules are those of central, version 3") {
		t.Fatalf("exit status %d, %s, %s", code, out, says)
	}
	if got, err := os.ReadFile(filepath.Join(e.etc("ship7"), "acl.toml")); err != nil || string(got) != rules(3, "central") {
		t.Errorf("its rules are %s, %v", got, err)
	}
	// Rules that are newer are not replaced by older ones, whatever is enrolled again.
	write(filepath.Join(e.etc("ship7"), "acl.toml"), rules(5, "central"))
	if out, says, code = e.run("enroll", "-configFolder", e.etc("ship7"), text); code != 0 || !strings.Contains(out, "its rules stay, version 5") {
		t.Errorf("exit status %d, %s, %s", code, out, says)
	}
	if got, err := os.ReadFile(filepath.Join(e.etc("ship7"), "acl.toml")); err != nil || string(got) != rules(5, "central") {
		t.Errorf("its rules are %s, %v", got, err)
	}
}

// A token that a node has used lets it ask again, and not undo what was done to its key since.
func TestTokenTrustsNoKeyASecondTime(t *testing.T) {
	e := newEnrolling(t)
	text, _ := e.token("ship7")
	for range 2 {
		if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text); code != 0 {
			t.Fatal(says)
		}
	}
	if _, says, code := e.run("keys", "untrust", "-configFolder", e.etc("central"), "ship7"); code != 0 {
		t.Fatal(says)
	}
	const why = "it was taken off the list of trusted keys since, and needs another token"
	if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text); code != exitFailed || !strings.Contains(says, why) {
		t.Errorf("exit status %d, %s", code, says)
	}
	e.told(why)
	if list, err := security.ReadTrust(filepath.Join(e.etc("central"), "trusted_nodes")); err != nil || len(list) != 0 {
		t.Errorf("trusted: %v, %v", list, err)
	}
	text, _ = e.token("ship7")
	if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text); code != 0 {
		t.Error(says)
	}
}

// A node that was revoked gets in no more with its key.
func TestRevokedKeyGetsInNoMore(t *testing.T) {
	e := newEnrolling(t)
	text, token := e.token("ship7")
	if _, says, code := e.run("enroll", "-configFolder", e.etc("ship7"), text); code != 0 {
		t.Fatal(says)
	}
	key, err := security.LoadKey(filepath.Join(e.etc("ship7"), "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	nc := e.client(token.CA, key, make(chan error, 10))
	cut := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(cut) })
	if _, says, code := e.run("revoke", "-configFolder", e.etc("central"), "-yes", "ship7"); code != 0 {
		t.Fatal(says)
	}
	select {
	case <-cut:
	case <-time.After(patience):
		t.Fatal("it is not cut off")
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, token.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect(e.url, nats.RootCAs(file), nats.Nkey(key.Public().String(), key.Login().Sign)); err == nil {
		nc.Close()
		t.Error("it gets in again")
	}
	e.told(key.Public().String())
}
