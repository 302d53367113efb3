package natstransport

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"steward/internal/certtest"
	"steward/internal/natstest"
)

func TestOptionsAreChecked(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	write(t, empty, nil)
	missing := filepath.Join(dir, "missing")
	open := filepath.Join(dir, "open")
	write(t, open, nil)
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	servers := []string{"127.0.0.1:1"}
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"no address", Options{}, "no broker address"},
		{"blank address", Options{Servers: []string{" ", ""}}, "no broker address"},
		{"other scheme", Options{Servers: []string{"http://127.0.0.1"}}, "nats://"},
		{"no host", Options{Servers: []string{"nats://:4222"}}, "no host"},
		{"no port number", Options{Servers: []string{"nats://u:secret@host:port"}}, "host:port"},
		{"negative wait", Options{Servers: servers, ReconnectWait: -1}, "reconnect wait"},
		{"negative timeout", Options{Servers: servers, ConnectTimeout: -1}, "connect timeout"},
		{"no root CA file", Options{Servers: servers, RootCA: missing}, "missing"},
		{"empty root CA file", Options{Servers: servers, RootCA: empty}, "empty"},
		{"certificate without key", Options{Servers: servers, ClientCert: empty}, "without the other"},
		{"key without certificate", Options{Servers: servers, ClientKey: empty}, "without the other"},
		{"empty certificate", Options{Servers: servers, ClientCert: empty, ClientKey: empty}, "certificate"},
		{"no seed file", Options{Servers: servers, NkeySeedFile: missing}, "missing"},
		{"empty seed file", Options{Servers: servers, NkeySeedFile: empty}, "nkey seed file"},
		{"no creds file", Options{Servers: servers, CredsFile: missing}, "missing"},
		{"seed file for all", Options{Servers: servers, NkeySeedFile: open}, "chmod 600 " + open},
		{"creds file for all", Options{Servers: servers, CredsFile: open}, "chmod 600 " + open},
		{"key file for all", Options{Servers: servers, ClientCert: empty, ClientKey: open}, "chmod 600 " + open},
		{"folder for a seed file", Options{Servers: servers, NkeySeedFile: dir}, "not a file"},
		{"seed and creds", Options{Servers: servers, NkeySeedFile: empty, CredsFile: empty}, "only one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, err := Open(tt.o)
			if err == nil {
				t.Error(tr.Close(t.Context()))
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %q and no password", err, tt.want)
			}
		})
	}
}

func TestServerNamesInLogsHoldNoSecret(t *testing.T) {
	for given, want := range map[string]string{
		"127.0.0.1":                "nats://127.0.0.1",
		"host:4222":                "nats://host:4222",
		"tls://u:secret@host:4222": "tls://host:4222",
		"nats://secret@host:4222":  "nats://host:4222",
		"wss://host/path":          "wss://host/path",
	} {
		o := Options{Servers: []string{given}}
		s, err := o.servers()
		if err != nil {
			t.Fatal(err)
		}
		if s[0].name != want {
			t.Errorf("%s is logged as %s, want %s", given, s[0].name, want)
		}
	}
}

func TestNkeyLogin(t *testing.T) {
	file, public := seedFile(t)
	b := natstest.StartConfig(t, fmt.Sprintf("authorization { users: [ { nkey: %s } ] }", public))
	waitState(t, open(t, Options{Servers: []string{b.URL()}, NkeySeedFile: file}), true)
	key, err := nkeys.FromSeed(read(t, file))
	if err != nil {
		t.Fatal(err)
	}
	waitState(t, open(t, Options{InProcess: current{b}, Key: key}), true)
}

// seedFile makes a key of a user.
func seedFile(t *testing.T) (file, public string) {
	t.Helper()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = user.PublicKey(); err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "seed")
	write(t, file, seed)
	return file, public
}

func TestTLSWithClientCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := certificates(t, dir)
	b := natstest.StartConfig(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", cert, key, ca))
	addr := strings.TrimPrefix(b.URL(), "tls://")
	for _, server := range []string{"tls://" + addr, "nats://" + addr, addr} {
		waitState(t, open(t, Options{Servers: []string{server}, RootCA: ca, ClientCert: cert, ClientKey: key}), true)
	}
	waitState(t, open(t, Options{InProcess: current{b}, RootCA: ca}), true) // no wire, no TLS
	for name, o := range map[string]Options{
		"unknown authority": {Servers: []string{"tls://" + addr}},
		"no certificate":    {Servers: []string{"tls://" + addr}, RootCA: ca},
	} {
		o.Report = make(events, 10)
		tr := open(t, o)
		receive(t, o.Report.(events))
		if up, _ := tr.State(); up {
			t.Errorf("%s: connected", name)
		}
	}
}

// certificates makes an authority and one certificate for both ends.
func certificates(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	authority, err := certtest.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if cert, key, err = authority.Issue("leaf"); err != nil {
		t.Fatal(err)
	}
	return authority.File, cert, key
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
