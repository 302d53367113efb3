package main

import "time"

// delivering is S2: central's socket to ship1's file, durable on both sides and in order.
var delivering = scenario{
	name: "S2", title: "central's socket to ship1's file",
	run: func(l *lab, f figures) error {
		n := l.count(100_000)
		b, central, ship, err := l.pair()
		if err != nil {
			return err
		}
		before, err := central.counters()
		if err != nil {
			return err
		}
		beforeShip, err := ship.counters()
		if err != nil {
			return err
		}
		beforeBroker, err := b.traffic()
		if err != nil {
			return err
		}
		profiled := l.profileNodes("S2", central, ship)
		began := time.Now()
		if _, err := hand(l.ctx, central.socket, order{to: "ship1", file: "stream", n: n, array: 1000}); err != nil {
			return err
		}
		at, err := l.arrived(ship.file("central", "stream"), n)
		if err != nil {
			return err
		}
		f["S2.file"] = rate(n, at.Sub(began))
		if err := central.spent(f, "S2.central", before, n); err != nil {
			return err
		}
		if err := ship.spent(f, "S2.ship1", beforeShip, n); err != nil {
			return err
		}
		traffic, err := b.traffic()
		if err != nil {
			return err
		}
		f["S2.frames"] = (traffic.Messages - beforeBroker.Messages) / float64(n) * 1000
		f["S2.bytes"] = (traffic.Bytes - beforeBroker.Bytes) / float64(n)
		if err := profiled(); err != nil {
			return err
		}

		if f["S2.signed"], err = l.signed(b, central, ship, n); err != nil {
			return err
		}
		each, err := l.requests(b, l.count(5000))
		if err != nil {
			return err
		}
		f["S2.request"] = rate(len(each), sum(each))
		f["S2.async"], f["S2.sync"], err = l.jetstream(n, l.count(1000))
		return err
	},
	rows: append(append([]row{
		{key: "S2.file", text: "in ship1's file", unit: "/s", peer: "S2.async", peerText: "JetStream, asynchronous durable publish",
			goals: []goal{atLeast(40_000), ratioAtLeast(10)}},
		{key: "S2.signed", text: "in ship1's file, with signatures", unit: "/s", peer: "S2.file", peerText: "without signatures",
			goals: []goal{ratioAtLeast(0.8)}},
		{key: "S2.sync", text: "(JetStream, durable publish one by one)", unit: "/s"},
		{key: "S2.request", text: "(plain NATS request-reply, one by one)", unit: "/s"},
		{key: "S2.frames", text: "NATS messages per 1,000 messages", unit: ""},
		{key: "S2.bytes", text: "bytes to the broker a message", unit: "B"},
	}, spentRows("S2.central", "central")...), spentRows("S2.ship1", "ship1")...),
}
