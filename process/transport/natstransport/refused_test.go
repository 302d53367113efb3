package natstransport

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"steward/errorkernel"
	"steward/internal/certtest"
	"steward/internal/natstest"
	"steward/process"
)

// pki is an authority, and what a case of TestRefusal needs of it.
type pki struct {
	t *testing.T
	*certtest.Authority
}

func newPKI(t *testing.T) pki {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return pki{t, a}
}

// issue makes a certificate whose days begin and end so many hours from now.
func (p pki) issue(name string, from, to time.Duration, hosts ...string) (cert, key string) {
	p.t.Helper()
	cert, key, err := p.IssueFor(name, time.Now().Add(from*time.Hour), time.Now().Add(to*time.Hour), hosts...)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert, key
}

// tls is the part of a broker's configuration with a certificate that is valid then.
func (p pki) tls(from, to time.Duration, hosts ...string) string {
	p.t.Helper()
	cert, key := p.issue("broker", from, to, hosts...)
	return fmt.Sprintf("tls { cert_file: %q, key_file: %q }", cert, key)
}

// mutual is the same with a demand for certificates that by has signed.
func (p pki) mutual(by pki) string {
	p.t.Helper()
	cert, key := p.issue("broker", -1, 1)
	return fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", cert, key, by.File)
}

// A broker that will not have the node, or that the node will not have, is told about once,
// with what to do, and tried until that is done.
func TestRefusalSaysWhatToDoAndIsTriedAgain(t *testing.T) {
	type refused struct {
		config string  // of the broker
		o      Options // of the node
		want   []string
		mend   func(b *natstest.Broker)
	}
	for name, make := range map[string]func(t *testing.T) refused{
		"unknown authority": func(t *testing.T) refused {
			broker, other := newPKI(t), newPKI(t)
			return refused{broker.tls(-1, 1), Options{RootCA: other.File}, []string{"unknown authority", other.File, "-rootCAPath"},
				func(*natstest.Broker) { write(t, other.File, read(t, broker.File)) }}
		},
		"expired certificate": func(t *testing.T) refused {
			p := newPKI(t)
			return refused{p.tls(-2, -1), Options{RootCA: p.File}, []string{"expired", "renew the certificate of the broker", "clock"},
				func(b *natstest.Broker) { b.Reconfigure(p.tls(-1, 1)) }}
		},
		"certificate of the future": func(t *testing.T) refused {
			p := newPKI(t)
			return refused{p.tls(1, 2), Options{RootCA: p.File}, []string{"not yet valid", "set the clock of this machine"},
				func(b *natstest.Broker) { b.Reconfigure(p.tls(-1, 1)) }}
		},
		"certificate of another host": func(t *testing.T) refused {
			p := newPKI(t)
			return refused{p.tls(-1, 1, "broker.example.com"), Options{RootCA: p.File}, []string{"127.0.0.1", "by a name that is in its certificate", "-brokerAddress"},
				func(b *natstest.Broker) { b.Reconfigure(p.tls(-1, 1)) }}
		},
		"no TLS": func(t *testing.T) refused {
			p := newPKI(t)
			return refused{"", Options{RootCA: p.File}, []string{"turn TLS on at the broker"},
				func(b *natstest.Broker) { b.Reconfigure(p.tls(-1, 1)) }}
		},
		"no client certificate": func(t *testing.T) refused {
			p := newPKI(t)
			return refused{p.mutual(p), Options{RootCA: p.File}, []string{"-clientCertFile", "-clientKeyFile"},
				func(b *natstest.Broker) { b.Reconfigure(p.tls(-1, 1)) }}
		},
		"client certificate of another authority": func(t *testing.T) refused {
			p, other := newPKI(t), newPKI(t)
			cert, key := other.issue("node", -1, 1)
			return refused{p.mutual(p), Options{RootCA: p.File, ClientCert: cert, ClientKey: key}, []string{cert, "signed by the authority"},
				func(b *natstest.Broker) { b.Reconfigure(p.mutual(other)) }}
		},
		"expired client certificate": func(t *testing.T) refused {
			p := newPKI(t)
			cert, key := p.issue("node", -2, -1)
			return refused{p.mutual(p), Options{RootCA: p.File, ClientCert: cert, ClientKey: key}, []string{"renew " + cert, "expired on"},
				func(*natstest.Broker) { p.issue("node", -1, 1) }}
		},
		"client certificate of the future": func(t *testing.T) refused {
			p := newPKI(t)
			cert, key := p.issue("node", 1, 2)
			return refused{p.mutual(p), Options{RootCA: p.File, ClientCert: cert, ClientKey: key}, []string{cert, "not valid before"},
				func(*natstest.Broker) { p.issue("node", -1, 1) }}
		},
		"unknown nkey": func(t *testing.T) refused {
			file, public := seedFile(t)
			_, other := seedFile(t)
			return refused{users(other), Options{NkeySeedFile: file}, []string{"uthorization", public, "users of the broker"},
				func(b *natstest.Broker) { b.Reconfigure(users(other, public)) }}
		},
		"no login": func(t *testing.T) refused {
			_, public := seedFile(t)
			return refused{users(public), Options{}, []string{"uthorization", "-nkeySeedFile"},
				func(b *natstest.Broker) { b.Reconfigure("") }}
		},
		"credentials of another operator": func(t *testing.T) refused {
			config, creds := operator(t, 0)
			other, _ := operator(t, 0)
			return refused{other, Options{CredsFile: creds}, []string{"uthorization", creds, "-credsFile"},
				func(b *natstest.Broker) { b.Reconfigure(config) }}
		},
		"expired credentials": func(t *testing.T) refused {
			config, creds := operator(t, -time.Hour)
			good, fresh := operator(t, time.Hour)
			return refused{config, Options{CredsFile: creds}, []string{creds, "get new credentials"},
				func(b *natstest.Broker) {
					write(t, creds, read(t, fresh))
					b.Reconfigure(good)
				}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := make(t)
			b := natstest.StartConfig(t, c.config)
			_, addr, _ := strings.Cut(b.URL(), "://")
			log, report := newLogs(), newEvents()
			c.o.Servers, c.o.Log, c.o.Report = []string{addr}, log.logger(), report
			tr := open(t, c.o)
			ev := receive(t, report)
			if ev.Class != errorkernel.LinkFailed {
				t.Errorf("class %v", ev.Class)
			}
			for _, want := range append(c.want, addr) {
				if !strings.Contains(ev.Err.Error(), want) {
					t.Errorf("%q is not in: %v", want, ev.Err)
				}
				if why := tr.Trouble(); why == nil || !strings.Contains(why.Error(), want) {
					t.Errorf("%q is not in the trouble: %v", want, why)
				}
			}
			log.wait(t, "DEBUG", "still no connection", 2)
			c.mend(b)
			waitState(t, tr, true)
			if why := tr.Trouble(); why != nil {
				t.Errorf("with a link: %v", why)
			}
		})
	}
}

func TestAddressWithTLSIsForNoBrokerWithout(t *testing.T) {
	b := natstest.Start(t)
	report := newEvents()
	tr := open(t, Options{Servers: []string{"tls://token@" + strings.TrimPrefix(b.URL(), "nats://")}, Report: report})
	if ev := receive(t, report); !strings.Contains(ev.Err.Error(), "turn TLS on at the broker") || strings.Contains(ev.Err.Error(), "token") {
		t.Errorf("got %v", ev.Err)
	}
	if up, _ := tr.State(); up {
		t.Error("connected")
	}
}

func newEvents() events { return make(events, 1000) }

// users is the part of a broker's configuration with the keys that may log in.
func users(public ...string) string {
	var list []string
	for _, p := range public {
		list = append(list, "{ nkey: "+p+" }")
	}
	return "authorization { users: [ " + strings.Join(list, ", ") + " ] }"
}

// operator makes the configuration of a broker that trusts an operator, and the credentials
// of a user below that one. They expire after valid, or never.
func operator(t *testing.T, valid time.Duration) (config, creds string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		key, err := create()
		must(err)
		public, err := key.PublicKey()
		must(err)
		return key, public
	}
	top, topPublic := pair(nkeys.CreateOperator)
	account, accountPublic := pair(nkeys.CreateAccount)
	user, userPublic := pair(nkeys.CreateUser)
	operatorJWT, err := jwt.NewOperatorClaims(topPublic).Encode(top)
	must(err)
	accountJWT, err := jwt.NewAccountClaims(accountPublic).Encode(top)
	must(err)
	claims := jwt.NewUserClaims(userPublic)
	if valid != 0 {
		claims.Expires = time.Now().Add(valid).Unix()
	}
	userJWT, err := claims.Encode(account)
	must(err)
	seed, err := user.Seed()
	must(err)
	text, err := jwt.FormatUserConfig(userJWT, seed)
	must(err)
	creds = filepath.Join(t.TempDir(), "node.creds")
	write(t, creds, text)
	return fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s }", operatorJWT, accountPublic, accountJWT), creds
}

func TestCredentialsLogin(t *testing.T) {
	config, creds := operator(t, time.Hour)
	b := natstest.StartConfig(t, config)
	waitState(t, open(t, Options{Servers: []string{b.URL()}, CredsFile: creds}), true)
}

// Who has only what the first documents allow works, and says once what it has to do without.
func TestSubjectsThatCanBeDoneWithoutAreToldOnce(t *testing.T) {
	file, public := seedFile(t)
	b := natstest.StartConfig(t, `authorization { users: [ { nkey: `+public+`,
		permissions: { publish: ["central.>"], subscribe: ["ship1.REQPing.>"] } } ] }`)
	log, report := newLogs(), newEvents()
	tr := open(t, Options{Servers: []string{b.URL()}, Name: "ship1", NkeySeedFile: file, Log: log.logger(), Report: report})
	for _, subject := range []string{"central.HERE", "ship1.NAME", "ship1.NAME.*", "ship1.REQHello.EventNACK"} {
		if _, err := tr.Subscribe(subject, func(process.Delivery) {}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		waitState(t, tr, true)
		for _, subject := range []string{"ship1.HERE", "ship1.NAME"} {
			if err := tr.Publish(subject, "", nil); err != nil {
				t.Fatal(err)
			}
		}
		// The only one that is a failure. It is the last of each link.
		if err := tr.Publish("ship2.REQPing.EventACK", "", nil); err != nil {
			t.Fatal(err)
		}
		for receive(t, report).Subject != "ship2.REQPing.EventACK" {
		}
		b.Stop()
		waitState(t, tr, false)
		b.Restart()
	}
	waitState(t, tr, true)
	for what, want := range map[string]int{
		"others do not hear that this node is back":              1,
		"this node does not hear when central is back":           1,
		"this node cannot tell whether another one has its name": 1,
		"the node goes on without a subject":                     3,
	} {
		if n := log.count("WARN", what); n != want {
			t.Errorf("%q was logged %d times, want %d", what, n, want)
		}
	}
}
