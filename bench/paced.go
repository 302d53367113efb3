package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"
)

// paced writes the arrays of an order one by one over one connection, at intervals of every, or as soon as
// the last one was accepted when that is 0. It returns how long each took to be accepted. One that is late does not
// hold up the next ones, as no other client would wait for it.
func paced(ctx context.Context, socket string, o order, every time.Duration) ([]time.Duration, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	arrays := (o.n + o.array - 1) / o.array
	took := make([]time.Duration, 0, arrays)
	sent := make(chan time.Time, arrays)
	answered := make(chan error, arrays)
	go func() {
		in := bufio.NewReader(conn)
		for range arrays {
			line, err := in.ReadBytes('\n')
			now := time.Now()
			if err == nil {
				_, err = readAnswer(line)
			}
			if err != nil {
				answered <- err
				return
			}
			took = append(took, now.Sub(<-sent))
			answered <- nil
		}
	}()
	begin := time.Now()
	open := 0
	for i := range arrays {
		array := o.appendArray(nil)
		if every > 0 {
			if err := until(ctx, begin.Add(time.Duration(i)*every)); err != nil {
				return nil, err
			}
		}
		sent <- time.Now()
		if _, err := conn.Write(array); err != nil {
			return nil, fmt.Errorf("hand in: %w", err)
		}
		if open++; every == 0 {
			if err := <-answered; err != nil {
				return nil, fmt.Errorf("hand in: %w", err)
			}
			open--
		}
	}
	for range open {
		if err := <-answered; err != nil {
			return nil, fmt.Errorf("hand in: %w", err)
		}
	}
	return took, nil
}

// until waits until a moment.
func until(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
