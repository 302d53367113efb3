//go:build !nobroker

package broker

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func roundTrip(t *testing.T, url string, opts ...nats.Option) {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("a.b")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("a.b", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data) != "hello" {
		t.Errorf("got %q", m.Data)
	}
}

func TestStartServesClientsOnAFreePort(t *testing.T) {
	s := start(t, Options{})
	if _, port, err := net.SplitHostPort(s.Addr()); err != nil || port == "0" {
		t.Errorf("address %s: %v", s.Addr(), err)
	}
	roundTrip(t, s.ClientURL())
}

func TestStartServesClientsInProcess(t *testing.T) {
	s := start(t, Options{})
	roundTrip(t, "", nats.InProcessServer(s))
	s.Shutdown()
	if _, err := s.InProcessConn(); err == nil {
		t.Error("connected to a server that was shut down")
	}
}

func TestStartOnAllAddressesGivesAnURLForThisMachine(t *testing.T) {
	s := start(t, Options{Addr: ":0", Insecure: true})
	if !strings.HasPrefix(s.ClientURL(), "nats://127.0.0.1:") {
		t.Errorf("got %s", s.ClientURL())
	}
	roundTrip(t, s.ClientURL())
}

func TestShutdownFreesTheAddressAndMayBeCalledTwice(t *testing.T) {
	s := start(t, Options{})
	s.Shutdown()
	s.Shutdown()
	again := start(t, Options{Addr: s.Addr()})
	if again.Addr() != s.Addr() {
		t.Errorf("got %s, want %s", again.Addr(), s.Addr())
	}
	roundTrip(t, again.ClientURL())
}

func TestTakenAddressIsAnErrorThatNamesIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Start(Options{Addr: l.Addr().String()})
	if err == nil {
		t.Fatal("started on a taken address")
	}
	for _, want := range []string{l.Addr().String(), "-embeddedBroker", "in use"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.conf")
	jetstream := filepath.Join(dir, "jetstream.conf")
	write(t, broken, "authorization {")
	write(t, jetstream, `jetstream { store_dir: "`+dir+`" }`)
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"no address", Options{}, "host:port"},
		{"no port", Options{Addr: "127.0.0.1"}, "host:port"},
		{"port by name", Options{Addr: "127.0.0.1:nats"}, "port"},
		{"port out of range", Options{Addr: "127.0.0.1:70000"}, "port"},
		{"negative frame", Options{Addr: "127.0.0.1:0", MaxPayload: -1}, "-1 bytes"},
		{"frame above what may wait", Options{Addr: "127.0.0.1:0", MaxPayload: 64 << 20}, "bytes"},
		{"no such file", Options{Addr: "127.0.0.1:0", ConfigFile: filepath.Join(dir, "none")}, "none"},
		{"broken file", Options{Addr: "127.0.0.1:0", ConfigFile: broken}, "broken.conf"},
		{"jetstream", Options{Addr: "127.0.0.1:0", ConfigFile: jetstream}, "JetStream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
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

func TestConfigFileBringsAuthorization(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "nats.conf")
	write(t, conf, `port: 1, authorization { user: ship1, password: secret }`)
	s := start(t, Options{ConfigFile: conf})
	if nc, err := nats.Connect(s.ClientURL()); err == nil {
		nc.Close()
		t.Error("connected without a password")
	}
	roundTrip(t, s.ClientURL(), nats.UserInfo("ship1", "secret"))
}

func TestMaxPayloadIsAnnounced(t *testing.T) {
	for _, tt := range []struct{ set, want int }{{0, 1 << 20}, {4096, 4096}} {
		s := start(t, Options{MaxPayload: tt.set})
		nc, err := nats.Connect(s.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		if got := nc.MaxPayload(); got != int64(tt.want) {
			t.Errorf("got %d, want %d", got, tt.want)
		}
		nc.Close()
	}
}

func TestLinesOfTheServerGoToTheLog(t *testing.T) {
	var out bytes.Buffer
	s := start(t, Options{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s.Shutdown()
	if !strings.Contains(out.String(), "level=DEBUG") || !strings.Contains(out.String(), "Listening for client connections") {
		t.Errorf("got %q", out.String())
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
