package kvstore_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

func benchStore(b *testing.B) *kvstore.Store {
	b.Helper()
	o := options(filepath.Join(b.TempDir(), "steward.db"))
	o.MaxMessages, o.LaneMessages, o.LaneBytes = 1<<40, 1<<40, 1<<40
	o.MaxBytes = 1 << 40
	s := open(b, o)
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func benchMessages(n int) []message.Message {
	m := msgs("ship1", n)
	for i := range m {
		m[i].Data = []string{strings.Repeat("x", 100)}
	}
	return m
}

func perMessage(b *testing.B, n int) {
	b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkAccept(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, m := benchStore(b), benchMessages(n)
			b.ReportAllocs()
			for b.Loop() {
				accept(b, s, m...)
			}
			perMessage(b, n)
		})
	}
}

func BenchmarkAcceptByManyAtOnce(b *testing.B) {
	s := benchStore(b)
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		m := benchMessages(1)
		for pb.Next() {
			if _, err := s.Accept(m); err != nil {
				b.Error(err)
				return
			}
		}
	})
	perMessage(b, 1)
}

func BenchmarkReadAndSettle1000(b *testing.B) {
	s, m := benchStore(b), benchMessages(1000)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		accept(b, s, m...)
		b.StartTimer()
		_, q, err := s.Read(stream("ship1"), 0, 1000, 1<<30)
		if err != nil || len(q) != 1000 {
			b.Fatal(len(q), err)
		}
		e := make([]kvstore.Settled, len(q))
		for i := range q {
			e[i] = kvstore.Settled{Seq: q[i].Seq, ID: q[i].ID, Code: message.CodeDone, Attempts: 1, At: time.Now()}
		}
		settle(b, s, stream("ship1"), e...)
	}
	perMessage(b, 1000)
}

func BenchmarkTakeAndFinish1000(b *testing.B) {
	s := benchStore(b)
	next := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		a := arrival("ship1", 7, next, next, next+1000)
		for i := range uint64(1000) {
			a.Items = append(a.Items, incoming(b, next+i, message.Message{Data: []string{strings.Repeat("x", 100)}}))
		}
		next += 1000
		b.StartTimer()
		if got := take(b, s, a); len(got.Stored) != 1000 {
			b.Fatal(len(got.Stored))
		}
		finish(b, s, "ship1", lane(b, s, "ship1")...)
	}
	perMessage(b, 1000)
}

// BenchmarkOpen is the start of a node with a long queue.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := options(filepath.Join(b.TempDir(), "steward.db"))
			o.MaxMessages = 1 << 40
			s := open(b, o)
			for range n / 1000 {
				accept(b, s, benchMessages(1000)...)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := open(b, o).Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
