package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// fleet is S8: a message to each of many nodes, and all replies back.
var fleet = scenario{
	name: "S8", title: "a message to each of many nodes",
	run: func(l *lab, f figures) error {
		n := l.count(1000)
		b, err := l.broker("broker")
		if err != nil {
			return err
		}
		central, err := l.node("central", b.addr)
		if err != nil {
			return err
		}
		nodes, err := l.start("nodes", l.steward, "emulate", "-nodes", strconv.Itoa(n), "-brokerAddress="+b.addr)
		if err != nil {
			return err
		}
		if err := l.allConnected(nodes, 1); err != nil {
			return err
		}
		if f["S8.all"], err = l.pings(central, numbered("node", n), "first"); err != nil {
			return err
		}
		resident, _, err := nodes.memory()
		if err != nil {
			return err
		}
		f["S8.node"] = resident / 1000 / float64(n)
		f["S8.nodes"] = float64(n)
		clients, err := b.traffic()
		if err != nil {
			return err
		}

		b.kill()
		l.forget(b.proc)
		if err := l.startBroker(b, "broker"); err != nil {
			return err
		}
		began := time.Now()
		if err := l.allConnected(nodes, 2); err != nil {
			return err
		}
		f["S8.back"] = time.Since(began).Seconds()
		if f["S8.again"], err = l.pings(central, numbered("node", n), "second"); err != nil {
			return err
		}
		nodes.kill()
		l.forget(nodes)

		responders, err := l.responders(b, n)
		if err != nil {
			return err
		}
		f["S8.plain"], err = l.gather(b, n)
		responders.kill()
		l.forget(responders)
		if err != nil {
			return err
		}
		if err := l.bareFleet(b, n, clients.Subscriptions/clients.Connections, f); err != nil {
			return err
		}
		return l.largeFleet(b, central, f)
	},
	rows: []row{
		{key: "S8.nodes", text: "nodes, all in one process"},
		{key: "S8.all", text: "a durable message to each, all replies in central's files", unit: "s", peer: "S8.plain", peerText: "plain NATS: one message to all, all replies",
			goals: []goal{atMost(1)}},
		{key: "S8.commits", text: "(bare: one message to all, each commits three times, all replies)", unit: "s"},
		{key: "S8.node", text: "resident a node", unit: "KB", peer: "S8.bare", peerText: "bare: connection, as many subscriptions, database", goals: []goal{atMost(200)}},
		{key: "S8.back", text: "broker restarted, until all are connected", unit: "s", goals: []goal{atMost(10)}},
		{key: "S8.again", text: "a message to each after that", unit: "s"},
		{key: "S8.large", text: "nodes, in two processes"},
		{key: "S8.largeAll", text: "a durable message to each, all replies in central's files", unit: "s"},
	},
}

// allConnected waits until the emulator has said so many times that all nodes are connected.
func (l *lab) allConnected(nodes *proc, times int) error {
	return l.await("all nodes are connected", func() bool {
		b, err := os.ReadFile(nodes.log)
		return err == nil && bytes.Count(b, []byte("nodes are connected, after")) >= times
	})
}

// bareFleet measures what nodes are made of, without the nodes.
func (l *lab) bareFleet(b *brokerProc, n, subscriptions int, f figures) error {
	bare, err := l.start("barefleet", l.self, "barefleet", "nats://"+b.addr, strconv.Itoa(n), strconv.Itoa(subscriptions))
	if err != nil {
		return err
	}
	if err := l.ready(bare); err != nil {
		return err
	}
	if f["S8.commits"], err = l.gather(b, n); err != nil {
		return err
	}
	resident, _, err := bare.memory()
	f["S8.bare"] = resident / 1000 / float64(n)
	bare.kill()
	l.forget(bare)
	return err
}

// largeFleet pings so many nodes that one process may not have as many files open as they need.
func (l *lab) largeFleet(b *brokerProc, central *nodeProc, f figures) error {
	const processes = 2
	each := l.count(5000) / processes
	var names []string
	for i := range processes {
		prefix := fmt.Sprintf("large%d-", i+1)
		names = append(names, numbered(prefix, each)...)
		nodes, err := l.start(prefix+"nodes", l.steward, "emulate", "-nodes", strconv.Itoa(each), "-prefix", prefix, "-brokerAddress="+b.addr)
		if err != nil {
			return err
		}
		if err := l.allConnected(nodes, 1); err != nil {
			return err
		}
	}
	f["S8.large"] = float64(len(names))
	var err error
	f["S8.largeAll"], err = l.pings(central, names, "large")
	return err
}

// numbered returns n names, from 1 on.
func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i+1)
	}
	return names
}

// pings sends a ping to each node, and returns how long it took until all replies are in their files.
func (l *lab) pings(central *nodeProc, names []string, file string) (float64, error) {
	array, err := json.Marshal(map[string]any{"toNodes": names, "method": "REQPing", "directory": directory, "fileName": file, "retries": 0, "replyRetries": 0})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := l.request(central, len(names), string(array)+"\n"); err != nil {
		return 0, err
	}
	missing := names
	err = l.await("all nodes have answered", func() bool {
		for len(missing) > 0 {
			if info, err := os.Stat(central.file(missing[0], file)); err != nil || info.Size() == 0 {
				return false
			}
			missing = missing[1:]
		}
		return true
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %d are missing", err, len(missing))
	}
	took := time.Since(began).Seconds()
	for _, name := range names {
		b, err := os.ReadFile(central.file(name, file))
		if err != nil || !bytes.HasSuffix(b, []byte(" pong from "+name+"\n")) || bytes.Count(b, []byte("\n")) != 1 {
			return 0, fmt.Errorf("the reply of %s is %q, %v", name, b, err)
		}
	}
	return took, nil
}

// gather publishes one message that all responders get, and returns how long it took until all have
// answered.
func (l *lab) gather(b *brokerProc, n int) (float64, error) {
	nc, err := nats.Connect("nats://" + b.addr)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	inbox := nc.NewRespInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	if err := nc.Flush(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := nc.PublishRequest(subject, inbox, appendPayload(nil, 0)); err != nil {
		return 0, err
	}
	from := make(map[string]bool, n)
	for range n {
		m, err := answers.NextMsgWithContext(l.ctx)
		if err != nil {
			return 0, err
		}
		from[string(m.Data)] = true
	}
	took := time.Since(began).Seconds()
	if len(from) != n {
		return 0, fmt.Errorf("plain NATS: %d of %d answered", len(from), n)
	}
	return took, nil
}
