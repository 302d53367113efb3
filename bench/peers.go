package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.etcd.io/bbolt"
)

// subject is that of the plain peers.
const subject = "bench"

// bolt puts n payloads into a bare bbolt file, so many in one transaction, and returns how long each
// of those took.
func (l *lab) bolt(n, batch int) (each []time.Duration, err error) {
	path := filepath.Join(l.dir, fmt.Sprintf("bare-%d.db", batch))
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.Remove(path)) }()
	name := []byte("messages")
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(name); return err }); err != nil {
		return nil, err
	}
	for i := 0; i < n; {
		began := time.Now()
		err := db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(name)
			b.FillPercent = 0.9 // as the keys only grow, this is its best
			for range min(batch, n-i) {
				i++
				if err := b.Put(binary.BigEndian.AppendUint64(nil, uint64(i)), appendPayload(nil, i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		each = append(each, time.Since(began))
		if l.ctx.Err() != nil {
			return nil, l.ctx.Err()
		}
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket(name).Stats().KeyN; got != n {
			return fmt.Errorf("bare bbolt: %d of %d keys", got, n)
		}
		return nil
	})
	return each, err
}

// responders starts connections that answer on subject.
func (l *lab) responders(b *brokerProc, n int) (*proc, error) {
	p, err := l.start("responders", l.self, "responders", "nats://"+b.addr, strconv.Itoa(n))
	if err != nil {
		return nil, err
	}
	return p, l.ready(p)
}

func (l *lab) ready(p *proc) error {
	return l.await(p.name+" is ready", func() bool {
		_, err := os.Stat(filepath.Join(p.home, "ready"))
		return err == nil
	})
}

// requests makes n plain NATS requests, one after the other, and returns how long each took.
func (l *lab) requests(b *brokerProc, n int) ([]time.Duration, error) {
	p, err := l.responders(b, 1)
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect("nats://" + b.addr)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	each := make([]time.Duration, 0, n)
	for i := range n {
		data := appendPayload(nil, i)
		began := time.Now()
		answer, err := nc.RequestWithContext(l.ctx, subject, data)
		if err != nil {
			return nil, fmt.Errorf("plain request: %w", err)
		}
		each = append(each, time.Since(began))
		if string(answer.Data) != "pong from node1" {
			return nil, fmt.Errorf("plain request: the answer is %q", answer.Data)
		}
	}
	return each, l.stop(p)
}

// jetstream publishes durably to a file store that syncs each write: so many messages with many in
// flight, and then so many one at a time. It returns messages a second.
func (l *lab) jetstream(async, single int) (asyncRate, singleRate float64, err error) {
	b, err := l.broker("jetstream")
	if err != nil {
		return 0, 0, err
	}
	nc, err := nats.Connect("nats://" + b.addr)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096)) // as the window of a node
	if err != nil {
		return 0, 0, err
	}
	stream, err := js.CreateStream(l.ctx, jetstream.StreamConfig{Name: "BENCH", Subjects: []string{subject}, Storage: jetstream.FileStorage})
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	for i := range async {
		if _, err := js.PublishAsync(subject, appendPayload(nil, i), jetstream.WithStallWait(patience)); err != nil {
			return 0, 0, fmt.Errorf("publish to JetStream: %w", err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-l.ctx.Done():
		return 0, 0, l.ctx.Err()
	}
	asyncRate = rate(async, time.Since(began))
	began = time.Now()
	for i := range single {
		if _, err := js.Publish(l.ctx, subject, appendPayload(nil, i)); err != nil {
			return 0, 0, fmt.Errorf("publish to JetStream: %w", err)
		}
	}
	singleRate = rate(single, time.Since(began))
	info, err := stream.Info(l.ctx)
	if err == nil && info.State.Msgs != uint64(async+single) {
		err = fmt.Errorf("JetStream holds %d of %d messages", info.State.Msgs, async+single)
	}
	return asyncRate, singleRate, errors.Join(err, l.stop(b.proc))
}

// commands runs a command n times, one after the other, and returns how long each took.
func (l *lab) commands(n int, name string, args ...string) ([]time.Duration, error) {
	each := make([]time.Duration, 0, n)
	for range n {
		began := time.Now()
		out, err := exec.CommandContext(l.ctx, name, args...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		each = append(each, time.Since(began))
		if got := strings.TrimSpace(string(out)); got != strings.Join(args, " ") {
			return nil, fmt.Errorf("%s printed %q", name, got)
		}
	}
	return each, nil
}

func rate(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

func sum(each []time.Duration) (total time.Duration) {
	for _, d := range each {
		total += d
	}
	return total
}

// quantile is the value below which that part of all is; 0.5 is the median.
func quantile[T ~int64 | ~float64](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
