package main

import (
	"errors"
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
		waiting, forIt, err := l.waiting()
		if err != nil {
			return err
		}
		defer forIt.Close()
		if err := l.agentIdle(b, settle, f); err != nil {
			return err
		}
		if err := l.pause(settle); err != nil {
			return err
		}
		used := map[string]time.Duration{}
		for _, sign := range []time.Duration{-1, 1} {
			if sign > 0 {
				if err := l.pause(watch); err != nil {
					return err
				}
			}
			for key, p := range map[string]*proc{"S6.cpu": ship.proc, "S6.bareCPU": bare} {
				cpu, err := p.cpu()
				if err != nil {
					return err
				}
				used[key] += sign * cpu
			}
		}
		for key, cpu := range used {
			f[key] = float64(cpu) / float64(watch) * 100
		}
		if f["S6.memory"], _, err = megabytes(ship.proc); err != nil {
			return err
		}
		if f["S6.bare"], _, err = megabytes(bare); err != nil {
			return err
		}
		if f["S6.waiting"], _, err = megabytes(waiting); err != nil {
			return err
		}
		f["S6.size"], err = sizeOf(l.steward)
		return err
	},
	rows: []row{
		{key: "S6.memory", text: "resident, with the broker linked in", unit: "MB", peer: "S6.bare", peerText: "bare program, same libraries, connected", goals: []goal{atMost(18)}},
		{key: "S6.waiting", text: "(the program alone, waiting for its input: send -)", unit: "MB"},
		{key: "S6.cpu", text: "processor over 30 s, part of one core", unit: "%", peer: "S6.bareCPU", peerText: "bare program, same libraries, connected", goals: []goal{atMost(0.05)}},
		{key: "S6.size", text: "program on disk, stripped", unit: "MB", goals: []goal{atMost(25)}},
		{key: "S6.agent", text: "resident, without the broker (make agent)", unit: "MB", peer: "S6.bare", peerText: "bare program, same libraries, connected", goals: []goal{atMost(13)}},
		{key: "S6.agentSize", text: "that on disk", unit: "MB", goals: []goal{atMost(15)}},
	},
}

// waiting starts the program as a command that waits for its input, which ends when the returned file is closed.
func (l *lab) waiting() (*proc, *os.File, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p, err := l.startReading(in, "waiting", l.steward, "send", "-")
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return p, out, nil
}

// agentIdle is an idle node of the program without the embedded broker.
func (l *lab) agentIdle(b *brokerProc, settle time.Duration, f figures) error {
	if l.agent == "" {
		return nil
	}
	n, err := l.nodeOf(l.agent, "ship2", b.addr)
	if err != nil {
		return err
	}
	if err := l.connected(n); err != nil {
		return err
	}
	if err := l.pause(settle); err != nil {
		return err
	}
	if f["S6.agent"], _, err = megabytes(n.proc); err != nil {
		return err
	}
	if f["S6.agentSize"], err = sizeOf(l.agent); err != nil {
		return err
	}
	return l.stop(n.proc)
}

// sizeOf is in megabytes.
func sizeOf(path string) (float64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return float64(info.Size()) / 1e6, nil
}
