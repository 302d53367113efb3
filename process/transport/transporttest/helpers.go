package transporttest

import (
	"context"
	"testing"
	"time"

	"steward/process"
)

// subscribe collects what arrives on pattern.
func subscribe(t *testing.T, tr process.Transport, pattern string) <-chan process.Delivery {
	t.Helper()
	out := make(chan process.Delivery, 4096)
	if _, err := tr.Subscribe(pattern, func(d process.Delivery) { out <- d }); err != nil {
		t.Fatal(err)
	}
	return out
}

// collect is subscribe, in force when it returns.
func collect(t *testing.T, tr process.Transport, pattern string) <-chan process.Delivery {
	t.Helper()
	out := subscribe(t, tr, pattern)
	flush(t, tr)
	return out
}

func flush(t *testing.T, tr process.Transport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := tr.Flush(ctx); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

func publish(t *testing.T, tr process.Transport, subject, reply string, data []byte) {
	t.Helper()
	if err := tr.Publish(subject, reply, data); err != nil {
		t.Fatalf("publish %s: %v", subject, err)
	}
}

func next(t *testing.T, got <-chan process.Delivery) process.Delivery {
	t.Helper()
	return receive(t, got)
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("nothing came in %v", limit)
		panic("unreachable")
	}
}

func waitState(t *testing.T, tr process.Transport, want bool) {
	t.Helper()
	for {
		up, changed := tr.State()
		if up == want {
			return
		}
		receive(t, changed)
	}
}

func down(t *testing.T, p Pair) {
	t.Helper()
	p.Down()
	waitState(t, p.A, false)
	waitState(t, p.B, false)
}

func up(t *testing.T, p Pair) {
	t.Helper()
	p.Up()
	waitState(t, p.A, true)
	waitState(t, p.B, true)
}
