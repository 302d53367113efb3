package main

import (
	"os"
	"time"
)

// idle is S6: what a node costs that has nothing to do.
var idle = scenario{
	name: "S6", title: "an idle node",
	run: func(l *lab, f figures) error {
		const settle, watch = 5 * time.Second, 30 * time.Second
		b, err := l.broker("broker")
		if err != nil {
			return err
		}
		ship, err := l.node("ship1", b.addr)
		if err != nil {
			return err
		}
		bare, err := l.start("bare", l.self, "bare", "nats://"+b.addr)
		if err != nil {
			return err
		}
		if err := l.ready(bare); err != nil {
			return err
		}
		if err := l.connected(ship); err != nil {
			return err
		}
		if err := l.pause(settle); err != nil {
			return err
		}
		before, err := ship.cpu()
		if err != nil {
			return err
		}
		if err := l.pause(watch); err != nil {
			return err
		}
		after, err := ship.cpu()
		if err != nil {
			return err
		}
		f["S6.cpu"] = float64(after-before) / float64(watch) * 100
		if f["S6.memory"], _, err = megabytes(ship.proc); err != nil {
			return err
		}
		if f["S6.bare"], _, err = megabytes(bare); err != nil {
			return err
		}
		info, err := os.Stat(l.steward)
		if err != nil {
			return err
		}
		f["S6.size"] = float64(info.Size()) / 1e6
		return nil
	},
	rows: []row{
		{key: "S6.memory", text: "resident, with the broker linked in", unit: "MB", peer: "S6.bare", peerText: "bare program, same libraries, connected", goals: []goal{atMost(18)}},
		{key: "S6.cpu", text: "processor over 30 s, part of one core", unit: "%", goals: []goal{atMost(0.05)}},
		{key: "S6.size", text: "program on disk, stripped", unit: "MB", goals: []goal{atMost(25)}},
	},
}
