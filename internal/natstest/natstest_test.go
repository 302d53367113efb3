package natstest

import (
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRestartKeepsTheAddress(t *testing.T) {
	b := Start(t)
	before := b.URL()
	connect(t, before)
	b.Stop()
	b.Stop()
	if b.Server() != nil {
		t.Error("there is a server after Stop")
	}
	if nc, err := nats.Connect(before); err == nil {
		nc.Close()
		t.Error("connected to a stopped server")
	}
	b.Restart()
	connect(t, before)
	b.Restart()
	connect(t, before)
	if b.URL() != before {
		t.Errorf("got %s, want %s", b.URL(), before)
	}
}

func TestBrokersOfOneTestAreApart(t *testing.T) {
	a, b := Start(t), Start(t)
	if a.URL() == b.URL() {
		t.Error("two brokers on one address")
	}
}

func TestConfigIsKeptThroughRestart(t *testing.T) {
	b := StartConfig(t, `authorization { user: ship1, password: secret }`)
	for range 2 {
		if nc, err := nats.Connect(b.URL()); err == nil {
			nc.Close()
			t.Error("connected without a password")
		}
		connect(t, b.URL(), nats.UserInfo("ship1", "secret"))
		b.Restart()
	}
}

func connect(t *testing.T, url string, opts ...nats.Option) {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}
