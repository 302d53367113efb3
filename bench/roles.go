package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.etcd.io/bbolt"

	"steward/process/transport/broker"
)

// roles are what this program runs itself as, by its first argument: the other side of a peer has to
// be a process of its own, too.
var roles = map[string]func(ctx context.Context, args []string) error{
	"broker":     brokerRole,
	"jetstream":  jetstreamRole,
	"responders": respondersRole,
	"bare":       bareRole,
}

// brokerRole is the broker of the nodes, the one of -embeddedBroker: ADDRESS MONITOR.
func brokerRole(ctx context.Context, args []string) error {
	if err := os.WriteFile("nats.conf", fmt.Appendf(nil, "http: %q\n", args[1]), 0o600); err != nil {
		return err
	}
	b, err := broker.Start(broker.Options{Addr: args[0], ConfigFile: "nats.conf"})
	if err != nil {
		return err
	}
	<-ctx.Done()
	b.Shutdown()
	return nil
}

// jetstreamRole is a nats-server with JetStream that syncs each write, in the folder in which it
// runs: ADDRESS MONITOR.
func jetstreamRole(ctx context.Context, args []string) error {
	host, port, err := net.SplitHostPort(args[0])
	if err != nil {
		return err
	}
	o := &server.Options{Host: host, NoSigs: true, JetStream: true, SyncAlways: true}
	if o.Port, err = strconv.Atoi(port); err != nil {
		return err
	}
	if o.StoreDir, err = filepath.Abs("store"); err != nil {
		return err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// respondersRole answers requests on one subject, on so many connections: URL N.
func respondersRole(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := range n {
		nc, err := nats.Connect(args[0])
		if err != nil {
			return err
		}
		defer nc.Close()
		answer := fmt.Appendf(nil, "pong from node%d", i+1)
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(answer) }); err != nil {
			return err
		}
		if err := nc.Flush(); err != nil {
			return err
		}
	}
	if err := os.WriteFile("ready", nil, 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// bareRole is what a node is made of, without the node: a connection to a broker and an open database,
// in a program with the same libraries and more: URL.
func bareRole(ctx context.Context, args []string) (err error) {
	nc, err := nats.Connect(args[0])
	if err != nil {
		return err
	}
	defer nc.Close()
	db, err := bbolt.Open("bare.db", 0o600, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := os.WriteFile("ready", nil, 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
