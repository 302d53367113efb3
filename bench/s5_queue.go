package main

import (
	"fmt"
	"time"
)

// longQueue is S5: a long queue for a node that is away costs disk, not memory and not start-up time.
var longQueue = scenario{
	name: "S5", title: "a long queue for an absent node",
	run: func(l *lab, f figures) error {
		n := l.queue
		b, err := l.broker("broker")
		if err != nil {
			return err
		}
		size := fmt.Sprintf("-ringBufferSize=%d", max(n, 1_000_000))
		central, err := l.node("central", b.addr, size)
		if err != nil {
			return err
		}
		if err := l.connected(central); err != nil {
			return err
		}
		took, err := hand(l.ctx, central.socket, order{to: "ship1", file: "queue", n: n, array: 1000})
		if err != nil {
			return err
		}
		f["S5.messages"], f["S5.accepted"] = float64(n), rate(n, took)
		if err := l.resident(central, f, "S5.queued"); err != nil {
			return err
		}

		if err := l.stop(central.proc); err != nil {
			return err
		}
		began := time.Now()
		if central, err = l.node("central", b.addr, size); err != nil {
			return err
		}
		f["S5.restart"] = time.Since(began).Seconds()
		if err := l.connected(central); err != nil {
			return err
		}

		link, err := newProxy(b.addr, 0) // it tells when ship1 connects
		if err != nil {
			return err
		}
		defer func() { _ = link.close() }()
		ship, err := l.node("ship1", link.addr())
		if err != nil {
			return err
		}
		at, err := l.arrived(ship.file("central", "queue"), n)
		if err != nil {
			return err
		}
		f["S5.drain"] = rate(n, link.since(at))
		if err := l.resident(central, f, "S5.drained"); err != nil {
			return err
		}
		_, f["S5.shipPeak"], err = megabytes(ship.proc)
		return err
	},
	rows: []row{
		{key: "S5.messages", text: "messages in the queue (BENCH_S5)"},
		{key: "S5.accepted", text: "accepted, a stream of arrays of 1,000", unit: "/s"},
		{key: "S5.queuedPeak", text: "central resident while they come, at most", unit: "MB", goals: []goal{atMost(100)}},
		{key: "S5.queued", text: "central resident, five seconds later", unit: "MB", goals: []goal{atMost(100)}},
		{key: "S5.restart", text: "central restarted, until its socket answers", unit: "s", goals: []goal{atMost(2)}},
		{key: "S5.drain", text: "in ship1's file, from its connection on", unit: "/s", peer: "S2.file", peerText: "S2 of this run", goals: []goal{ratioAtLeast(0.9)}},
		{key: "S5.drainedPeak", text: "central resident while they go, at most", unit: "MB", goals: []goal{atMost(100)}},
		{key: "S5.shipPeak", text: "ship1 resident, at most", unit: "MB", goals: []goal{atMost(100)}},
	},
}

// resident notes the memory of a node: the most it ever had, and what it has when it has come to rest.
func (l *lab) resident(n *nodeProc, f figures, key string) (err error) {
	if err := l.pause(5 * time.Second); err != nil {
		return err
	}
	f[key], f[key+"Peak"], err = megabytes(n.proc)
	return err
}

func megabytes(p *proc) (now, peak float64, err error) {
	now, peak, err = p.memory()
	return now / 1e6, peak / 1e6, err
}
