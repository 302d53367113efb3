// Package natstest starts real nats-servers for tests: on a port of their own, stopped
// with the test, and able to go away and come back as brokers do.
package natstest

import (
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"steward/process/transport/broker"
)

// Broker is a nats-server on loopback. Its methods may be called by many goroutines at
// once.
type Broker struct {
	t    testing.TB
	opts broker.Options

	mu     sync.Mutex // guards server
	server *broker.Server
	url    string
}

// Start runs a server that is stopped when the test ends.
func Start(t testing.TB) *Broker {
	t.Helper()
	return start(t, broker.Options{})
}

// StartConfig is Start with the text of a nats-server configuration, for authorization.
func StartConfig(t testing.TB, config string) *Broker {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, broker.Options{ConfigFile: file})
}

// Reconfigure gives a server that StartConfig started another configuration, and restarts it.
func (b *Broker) Reconfigure(config string) {
	b.t.Helper()
	if err := os.WriteFile(b.opts.ConfigFile, []byte(config), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.Restart()
}

func start(t testing.TB, o broker.Options) *Broker {
	t.Helper()
	b := &Broker{t: t, opts: o}
	var err error
	for range 50 {
		// Below the ports that the system hands to outgoing connections: one of those could
		// take the port while the server is stopped, even a client that tries to reconnect
		// and so meets itself.
		b.opts.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if b.server, err = broker.Start(b.opts); err == nil {
			b.url = b.server.ClientURL()
			t.Cleanup(b.Stop)
			return b
		}
	}
	t.Fatalf("no free port: %v", err)
	return nil
}

// URL returns where the server listens. It stays the same through Restart.
func (b *Broker) URL() string { return b.url }

// Server returns the running server, for clients in this process; nil when stopped.
func (b *Broker) Server() *broker.Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server
}

// Stop cuts all clients off and returns when the server is gone. It may be called twice.
func (b *Broker) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		b.server.Shutdown()
		b.server = nil
	}
}

// Restart stops the server if it runs, and starts a new one on the same port that knows
// nothing of the old one's clients.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	s, err := broker.Start(b.opts)
	if err != nil {
		b.t.Errorf("restart: %v", err)
		return
	}
	b.server = s
}
