package main

import (
	"errors"
	"time"
)

// farAway is S4: ship1 behind a satellite link. A backlog that waited for it, messages that come in a
// burst while it is there, and for comparison one message at a time. Bytes are those in the TCP
// connection, acks and all.
var farAway = scenario{
	name: "S4", title: "a backlog over a round trip of 600 ms",
	run: func(l *lab, f figures) error {
		backlog, burst, single := l.count(1000), l.count(1000), l.count(10)
		b, err := l.broker("broker")
		if err != nil {
			return err
		}
		central, err := l.node("central", b.addr)
		if err != nil {
			return err
		}
		if err := l.connected(central); err != nil {
			return err
		}
		if _, err := hand(l.ctx, central.socket, order{to: "ship1", file: "backlog", n: backlog, array: 1000}); err != nil {
			return err
		}
		err = l.behind(b, 300*time.Millisecond, func(link *proxy, ship *nodeProc) error {
			at, err := l.arrived(ship.file("central", "backlog"), backlog)
			if err != nil {
				return err
			}
			f["S4.backlog"] = link.since(at).Seconds()
			// Until the acks are back, central is not done.
			if err := l.settled(central); err != nil {
				return err
			}
			f["S4.backlogBytes"] = float64(link.bytes.Load()) / float64(backlog)

			before, began := link.bytes.Load(), time.Now()
			if _, err := hand(l.ctx, central.socket, order{to: "ship1", file: "burst", n: burst, array: 1000}); err != nil {
				return err
			}
			if at, err = l.arrived(ship.file("central", "burst"), burst); err != nil {
				return err
			}
			f["S4.burst"] = at.Sub(began).Seconds()
			if err := l.settled(central); err != nil {
				return err
			}
			f["S4.burstBytes"] = float64(link.bytes.Load()-before) / float64(burst)
			return l.stop(ship.proc)
		})
		if err != nil {
			return err
		}

		if err := l.stop(central.proc); err != nil {
			return err
		}
		if central, err = l.node("central", b.addr, "-windowMessages=1"); err != nil {
			return err
		}
		return l.behind(b, 300*time.Millisecond, func(link *proxy, ship *nodeProc) error {
			if err := l.connected(ship); err != nil {
				return err
			}
			before, began := link.bytes.Load(), time.Now()
			if _, err := hand(l.ctx, central.socket, order{to: "ship1", file: "single", n: single, array: 1000}); err != nil {
				return err
			}
			at, err := l.arrived(ship.file("central", "single"), single)
			if err != nil {
				return err
			}
			f["S4.single"] = at.Sub(began).Seconds() / float64(single) * 1000
			if err := l.settled(central); err != nil {
				return err
			}
			f["S4.singleBytes"] = float64(link.bytes.Load()-before) / float64(single)
			f["S4.each"] = f["S4.burst"] / float64(burst) * 1000
			return nil
		})
	},
	rows: []row{
		{key: "S4.backlog", text: "backlog of 1,000, from ship1's TCP connection on", unit: "s", goals: []goal{atMost(3)}},
		{key: "S4.burst", text: "burst of 1,000 on a standing link", unit: "s", goals: []goal{atMost(3)}},
		{key: "S4.each", text: "the burst, time a message", unit: "ms", peer: "S4.single", peerText: "a window of one message"},
		{key: "S4.backlogBytes", text: "backlog, bytes both ways a message, with the connection", unit: "B", goals: []goal{atMost(70)}},
		{key: "S4.burstBytes", text: "burst, bytes both ways a message", unit: "B", peer: "S4.singleBytes", peerText: "a window of one message",
			goals: []goal{atMost(70)}},
	},
}

// behind runs do with a ship1 behind a link with that delay each way.
func (l *lab) behind(b *brokerProc, delay time.Duration, do func(link *proxy, ship *nodeProc) error) error {
	link, err := newProxy(b.addr, delay)
	if err != nil {
		return err
	}
	ship, err := l.node("ship1", link.addr())
	if err == nil {
		err = do(link, ship)
	}
	return errors.Join(err, link.close())
}

// settled waits until nothing is on a node's ring buffer any more.
func (l *lab) settled(n *nodeProc) error {
	return l.await("everything is acknowledged", func() bool {
		m, err := scrape(n.metrics)
		waiting, ok := m["steward_ring_buffer_messages"]
		return err == nil && ok && waiting == 0
	})
}
