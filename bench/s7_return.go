package main

import "time"

// returning is S7: how soon a node that was away gets its first message.
var returning = scenario{
	name: "S7", title: "an absent node returns",
	run: func(l *lab, f figures) error {
		b, central, ship, err := l.pair()
		if err != nil {
			return err
		}
		if err := l.stop(ship.proc); err != nil {
			return err
		}
		if _, err := hand(l.ctx, central.socket, order{to: "ship1", file: "first", n: 1, array: 1}); err != nil {
			return err
		}
		// Its first attempt has come to nothing by then, and its next one is seconds away.
		if err := l.pause(time.Second); err != nil {
			return err
		}
		link, err := newProxy(b.addr, 0) // it tells when ship1 connects
		if err != nil {
			return err
		}
		defer func() { _ = link.close() }()
		began := time.Now()
		if ship, err = l.node("ship1", link.addr()); err != nil {
			return err
		}
		at, err := l.arrived(ship.file("central", "first"), 1)
		if err != nil {
			return err
		}
		f["S7.connection"], f["S7.start"] = milliseconds(link.since(at)), milliseconds(at.Sub(began))
		return nil
	},
	rows: []row{
		{key: "S7.connection", text: "its first message has run, from its TCP connection on", unit: "ms", goals: []goal{atMost(250)}},
		{key: "S7.start", text: "the same, from the start of its process on", unit: "ms"},
	},
}
