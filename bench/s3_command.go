package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// roundTrip is S3: a command there and its reply back, one at a time, against the sum of what that
// cannot do without; and how long one message takes to be accepted at a steady rate.
var roundTrip = scenario{
	name: "S3", title: "one command and its reply, and \"accepted\" at 1,000 messages/s",
	run: func(l *lab, f figures) error {
		n := l.count(200)
		b, central, ship, err := l.pair()
		if err != nil {
			return err
		}
		each, err := l.replies(central, n)
		if err != nil {
			return err
		}
		f["S3.trip"] = milliseconds(quantile(each, 0.5))

		if each, err = l.accepted(central, ship, l.count(5000)); err != nil {
			return err
		}
		f["S3.p50"], f["S3.p99"] = milliseconds(quantile(each, 0.5)), milliseconds(quantile(each, 0.99))

		commits, err := l.bolt(l.count(2000), 1)
		if err != nil {
			return err
		}
		requests, err := l.requests(b, 1000)
		if err != nil {
			return err
		}
		commands, err := l.commands(n, "echo", "12345678")
		if err != nil {
			return err
		}
		f["S3.commit"], f["S3.commit99"] = milliseconds(quantile(commits, 0.5)), milliseconds(quantile(commits, 0.99))
		f["S3.hop"] = milliseconds(quantile(requests, 0.5)) / 2
		f["S3.command"] = milliseconds(quantile(commands, 0.5))
		f["S3.parts"] = 4*f["S3.commit"] + f["S3.command"] + 4*f["S3.hop"]
		return nil
	},
	rows: []row{
		{key: "S3.trip", text: "command and reply, socket to file (median)", unit: "ms", peer: "S3.parts", peerText: "4 commits + fork/exec + 4 NATS hops",
			goals: []goal{ratioAtMost(2)}},
		{key: "S3.p99", text: "accepted at 1,000/s, p99", unit: "ms", peer: "S3.commit99", peerText: "bare bbolt, one put a commit, p99", goals: []goal{atMost(5)}},
		{key: "S3.p50", text: "accepted at 1,000/s, median", unit: "ms", peer: "S3.commit", peerText: "bare bbolt, one put a commit"},
		{key: "S3.command", text: "(bare fork/exec of the command)", unit: "ms"},
		{key: "S3.hop", text: "(NATS hop: half a request-reply)", unit: "ms"},
	},
}

// replies sends n commands, each when the reply to the last one is in its file, and returns how long
// each took.
func (l *lab) replies(central *nodeProc, n int) ([]time.Duration, error) {
	path := central.file("ship1", "replies")
	text := func(i int) string { return fmt.Sprintf("%08d", i) }
	send := func(i int) error {
		return l.request(central, 1, fmt.Sprintf(`{"toNode":"ship1","method":"REQCliCommand","data":["echo","%s"],"directory":"%s","fileName":"replies","retries":0,"replyRetries":0}`,
			text(i), directory))
	}
	const line = 9
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	// The first one makes the file.
	if err := send(0); err != nil {
		return nil, err
	}
	if err := l.await("the first reply is there", func() bool { return size() >= line }); err != nil {
		return nil, err
	}
	watch, err := watchFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = watch.close() }()
	var each []time.Duration
	for i := range n {
		began := time.Now()
		if err := send(i + 1); err != nil {
			return nil, err
		}
		if err := watch.until(l.ctx, func() bool { return size() >= int64((i+2)*line) }); err != nil {
			return nil, err
		}
		each = append(each, time.Since(began))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var want []byte
	for i := range n + 1 {
		want = append(append(want, text(i)...), '\n')
	}
	if !bytes.Equal(b, want) {
		return nil, errors.New("the replies are not those to the commands, in order")
	}
	return each, nil
}

// accepted hands in messages at 1,000 a second by ten clients, and returns how long each took to be
// accepted. They are delivered meanwhile, and checked.
func (l *lab) accepted(central, ship *nodeProc, n int) ([]time.Duration, error) {
	const clients, every = 10, 10 * time.Millisecond
	n /= clients
	took := make([][]time.Duration, clients)
	errs := make([]error, clients)
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range clients {
		wg.Go(func() {
			if errs[c] = until(l.ctx, begin.Add(time.Duration(c)*every/clients)); errs[c] == nil {
				took[c], errs[c] = paced(l.ctx, central.socket, order{to: "ship1", file: "paced" + strconv.Itoa(c), n: n, array: 1}, every)
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for c := range clients {
		if errs[c] != nil {
			return nil, errs[c]
		}
		all = append(all, took[c]...)
		if _, err := l.arrived(ship.file("central", "paced"+strconv.Itoa(c)), n); err != nil {
			return nil, err
		}
	}
	return all, nil
}
