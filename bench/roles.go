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
	"barefleet":  bareFleetRole,
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
	return untilDone(ctx)
}

// untilDone says that a role is ready, and waits for its end.
func untilDone(ctx context.Context) error {
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
	return untilDone(ctx)
}

// bareFleetRole is what many nodes in one process are made of, without the nodes: each has a connection
// with as many subscriptions, and a database. It answers what comes on subject after as many commits as a
// node makes for a message with a reply: URL NODES SUBSCRIPTIONS.
func bareFleetRole(ctx context.Context, args []string) (err error) {
	var counts [2]int
	for i := range counts {
		if counts[i], err = strconv.Atoi(args[i+1]); err != nil {
			return err
		}
	}
	for i := range counts[0] {
		closeNode, err := bareNode(args[0], fmt.Sprintf("node%d", i+1), counts[1])
		if err != nil {
			return err
		}
		defer closeNode()
	}
	return untilDone(ctx)
}

// commitsOfAPing are the commits of a node for a message: its arrival, its end with the reply, and the ACK of that.
const commitsOfAPing = 3

func bareNode(url, name string, subscriptions int) (closeNode func(), err error) {
	db, err := bbolt.Open(name+".db", 0o600, nil)
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	closeNode = func() {
		nc.Close()
		_ = db.Close() // its folder goes
	}
	defer func() {
		if err != nil {
			closeNode()
		}
	}()
	unread := make(chan *nats.Msg) // no goroutine for each of them
	for i := range subscriptions {
		if _, err := nc.ChanSubscribe(fmt.Sprintf("%s.%d", name, i), unread); err != nil {
			return nil, err
		}
	}
	commit := func(m *nats.Msg, i int) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("messages"))
			if err != nil {
				return err
			}
			return b.Put([]byte{byte(i)}, m.Data)
		})
	}
	_, err = nc.Subscribe(subject, func(m *nats.Msg) {
		for i := range commitsOfAPing {
			if commit(m, i) != nil {
				return // who asked waits for it
			}
		}
		_ = m.Respond([]byte("pong from " + name))
	})
	if err != nil {
		return nil, err
	}
	return closeNode, nc.Flush()
}
