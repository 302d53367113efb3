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

// BenchmarkReadAndSettle is what a publisher asks of the store for each frame and its ack.
func BenchmarkReadAndSettle(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, m := benchStore(b), benchMessages(n)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				accept(b, s, m...)
				b.StartTimer()
				_, q, err := s.Read(stream("ship1"), 0, n, 1<<30)
				if err != nil || len(q) != n {
					b.Fatal(len(q), err)
				}
				e := make([]kvstore.Settled, len(q))
				for i := range q {
					e[i] = kvstore.Settled{Seq: q[i].Seq, ID: q[i].ID, Code: message.CodeDone, Attempts: 1, At: time.Now()}
				}
				settle(b, s, stream("ship1"), e...)
			}
			perMessage(b, n)
		})
	}
}

// BenchmarkTake is what a subscriber asks of it for each frame, BenchmarkFinish what a lane asks of
// it for each run.
func BenchmarkTake(b *testing.B) {
	benchInbox(b, func(b *testing.B, n int, begin, end func(), s *kvstore.Store, a kvstore.Arrival) {
		begin()
		if got := take(b, s, a); len(got.Stored) != n {
			b.Fatal(len(got.Stored))
		}
		end()
		finish(b, s, "ship1", lane(b, s, "ship1")...)
	})
}

func BenchmarkFinish(b *testing.B) {
	benchInbox(b, func(b *testing.B, n int, begin, end func(), s *kvstore.Store, a kvstore.Arrival) {
		take(b, s, a)
		begin()
		waiting := lane(b, s, "ship1")
		if len(waiting) != n {
			b.Fatal(len(waiting))
		}
		finish(b, s, "ship1", waiting...)
		end()
	})
}

// benchInbox hands arrivals of one and of 1,000 messages to do, of which only what is between begin
// and end counts.
func benchInbox(b *testing.B, do func(b *testing.B, n int, begin, end func(), s *kvstore.Store, a kvstore.Arrival)) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchStore(b)
			b.ReportAllocs()
			next := uint64(1)
			for b.Loop() {
				b.StopTimer()
				a := arrival("ship1", 7, next, next, next+uint64(n))
				for i := range uint64(n) {
					a.Items = append(a.Items, incoming(b, next+i, message.Message{Data: []string{strings.Repeat("x", 100)}}))
				}
				next += uint64(n)
				do(b, n, b.StartTimer, b.StopTimer, s, a)
				b.StartTimer()
			}
			perMessage(b, n)
		})
	}
}

// BenchmarkRequest is what a request that wants a reply asks of its sender's store after its
// acceptance: the ACK, and the reply on its way through the inbox.
func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, m := benchStore(b), benchMessages(n)
			b.ReportAllocs()
			next := uint64(1)
			for b.Loop() {
				b.StopTimer()
				ids := accept(b, s, m...)
				e, a := make([]kvstore.Settled, n), arrival("ship1", 7, next, next, next+uint64(n))
				for i, id := range ids {
					seq := next + uint64(i)
					e[i] = kvstore.Settled{Seq: seq, ID: id, Code: message.CodeDone, Attempts: 1, At: time.Now(), WantsReply: true}
					a.Items = append(a.Items, incoming(b, seq, message.Message{Data: []string{strings.Repeat("x", 100)}, InReplyTo: id,
						RequestMethod: "REQCliCommand", Result: &message.Result{Code: message.CodeDone, Started: time.Now(), Attempt: 1}}))
				}
				next += uint64(n)
				b.StartTimer()
				settle(b, s, stream("ship1"), e...)
				take(b, s, a)
				finish(b, s, "ship1", lane(b, s, "ship1")...)
			}
			perMessage(b, n)
		})
	}
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
