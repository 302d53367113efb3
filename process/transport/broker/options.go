// Package broker runs a nats-server inside this process: for small fleets, tests and the
// demo. Outside servers need nothing of it.
//
// It owns the server from Start to Shutdown. The server handles no signals, never exits
// the program, keeps nothing on disk and has no JetStream: what must not get lost is kept
// by the nodes.
package broker

import "log/slog"

// Options says where to listen and what to allow.
type Options struct {
	// Addr is "host:port". Port 0 takes a free one, an empty host listens on all
	// addresses.
	Addr string
	// ConfigFile is a nats-server configuration, for authorization and TLS; empty for a
	// server open to all who reach it. The fields here win over the file, and it cannot
	// turn JetStream on.
	ConfigFile string
	// Name is shown to clients and in logs; empty for a random one.
	Name string
	// MaxPayload is the largest frame in bytes; 0 means that of the ConfigFile, or 1 MiB.
	MaxPayload int
	// Log gets the server's own lines. Nil drops them.
	Log *slog.Logger
}
