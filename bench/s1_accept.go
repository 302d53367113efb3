package main

import (
	"fmt"
	"sync"
	"time"
)

// accepting is S1: how fast a socket takes messages over, each array with a commit behind its answer.
// Their receiver is away meanwhile, so that nothing else is measured; it comes at the end, and has
// to get all of them.
var accepting = scenario{
	name: "S1", title: "socket to \"accepted\"",
	run: func(l *lab, f figures) error {
		const clients = 8
		n, small, single := l.count(200_000), l.count(20_000)/clients, l.count(1000)
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
		before, err := central.counters()
		if err != nil {
			return err
		}
		profiled := l.profileNodes("S1", central)
		took, err := hand(l.ctx, central.socket, order{to: "ship1", file: "stream", n: n, array: 1000})
		if err != nil {
			return err
		}
		f["S1.stream"] = rate(n, took)
		if err := central.spent(f, "S1.central", before, n); err != nil {
			return err
		}
		if err := profiled(); err != nil {
			return err
		}

		began := time.Now()
		errs := make([]error, clients)
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				_, errs[c] = hand(l.ctx, central.socket, order{to: "ship1", file: fmt.Sprintf("small%d", c), n: small, array: 10})
			})
		}
		wg.Wait()
		f["S1.small"] = rate(clients*small, time.Since(began))
		for _, err := range errs {
			if err != nil {
				return err
			}
		}

		latencies, err := paced(l.ctx, central.socket, order{to: "ship1", file: "single", n: single, array: 1}, 0)
		if err != nil {
			return err
		}
		f["S1.single"] = rate(single, sum(latencies))

		ship, err := l.node("ship1", b.addr)
		if err != nil {
			return err
		}
		files := map[string]int{"stream": n, "single": single}
		for c := range clients {
			files[fmt.Sprintf("small%d", c)] = small
		}
		for file, n := range files {
			if _, err := l.arrived(ship.file("central", file), n); err != nil {
				return err
			}
		}

		each, err := l.bolt(n, 1000)
		if err != nil {
			return err
		}
		f["S1.bolt1000"] = rate(n, sum(each))
		each, err = l.bolt(single, 1)
		if err != nil {
			return err
		}
		f["S1.bolt1"] = rate(single, sum(each))
		return nil
	},
	rows: append([]row{
		{key: "S1.stream", text: "accepted, a stream of arrays of 1,000", unit: "/s", peer: "S1.bolt1000", peerText: "bare bbolt, 1,000 puts a commit",
			goals: []goal{atLeast(100_000), ratioAtLeast(0.25)}},
		{key: "S1.small", text: "accepted, arrays of 10 from 8 clients", unit: "/s", peer: "S1.bolt1000", peerText: "bare bbolt, 1,000 puts a commit"},
		{key: "S1.single", text: "accepted, one client, one by one", unit: "/s", peer: "S1.bolt1", peerText: "bare bbolt, one put a commit"},
	}, spentRows("S1.central", "central")...),
}
