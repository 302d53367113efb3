package process_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/message/wire"
	"steward/process"
)

// who returns whom the reports about quotas are about.
func (j *journal) overQuota() (names []string) {
	for _, ev := range j.of(errorkernel.Refused) {
		if ev.Process == "quota" {
			names = append(names, string(ev.From))
		}
	}
	return names
}

// A sender over its quota waits: nothing is lost, given up or out of order, and others are not held up.
func TestSenderOverItsQuotaWaits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		quota process.QuotaOptions
		size  int
		all   int
	}{
		{"messages", process.QuotaOptions{Messages: 9}, 10, 300},
		{"bytes", process.QuotaOptions{Bytes: 8 << 10}, 900, 300},
		{"both", process.QuotaOptions{Messages: 9, Bytes: 8 << 10}, 900, 300},
		{"bytes, each more than a second's", process.QuotaOptions{Bytes: 1 << 10}, 3 << 10, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b, c := w.add("a"), w.add("b"), w.add("c")
				b.quota = tt.quota
				for _, n := range w.nodes {
					n.start()
				}
				synctest.Wait()
				msgs := series(b, once, 1, tt.all, "pad="+strings.Repeat("x", tt.size))
				for i := range msgs {
					msgs[i].ACKTimeout, msgs[i].Retries = time.Second, 1
				}
				a.send(append(msgs, do(b, exact, 1))...)
				began := time.Now()
				for range 10 {
					w.advance(2 * time.Second)
					seconds := int64(time.Since(began) / time.Second)
					if got, most := int64(len(b.ran(once))), 10*(tt.quota.Messages)+seconds*tt.quota.Messages+1; tt.quota.Messages > 0 && got > most {
						t.Fatalf("%d runs after %d s, want at most %d", got, seconds, most)
					}
					if got, most := int64(len(b.ran(once))*tt.size), (10+seconds)*tt.quota.Bytes+20<<10; tt.quota.Bytes > 0 && got > most {
						t.Fatalf("%d bytes after %d s, want at most %d", got, seconds, most)
					}
				}
				if n := len(b.ran(once)); n == 0 || n == tt.all {
					t.Fatalf("%d runs: nobody waits", n)
				}
				before := len(b.ran(repeat))
				c.send(do(b, repeat, 1))
				b.send(do(b, repeat, 2))
				w.until(time.Second, "others are not held up", func() bool { return len(b.ran(repeat)) == before+2 })
				w.step = time.Second
				w.settled(2 * time.Hour)
				got := b.numbers(once)
				want(t, "runs", len(got), tt.all)
				for i, n := range got {
					want(t, "order", n, i+1)
				}
				want(t, "dead letters", len(a.dead()), 0)
				for _, name := range b.events.overQuota() {
					want(t, "reported", name, "a")
				}
				if b.up.quota.Held() == 0 || len(b.events.overQuota()) == 0 {
					t.Error("nobody is told")
				}
			})
		})
	}
}

// What is more than a quota is sent again now and then only, and one message of it.
func TestWaitingForAQuotaCostsLittle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.quota.Bytes = 50 << 10
		a.start()
		b.start()
		synctest.Wait()
		w.sniffing()
		const messages, size = 2000, 1000
		pad := base64.StdEncoding.EncodeToString(noise(messages * size))
		var msgs []message.Message
		for n := range messages {
			msgs = append(msgs, do(b, once, n, "pad="+pad[n*size:][:size]))
		}
		a.send(msgs...)
		w.step = time.Second
		w.settled(time.Hour)
		sent := 0
		for _, d := range w.sniffing() {
			if d.from == "a" {
				sent += len(d.Data)
			}
		}
		if sent > 3*messages*size {
			t.Errorf("%d bytes were sent for %d", sent, messages*size)
		}
	})
}

// Messages without ACK are dropped when their sender is over its quota: nobody waits for them.
func TestQuotaHoldsForMessagesWithoutACK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.quota.Messages = 1
		a.start()
		b.start()
		synctest.Wait()
		send := func(first, last int) {
			for n := first; n <= last; n++ {
				m := do(b, manyOnce, n)
				m.ACKTimeout = 0
				a.send(m)
				synctest.Wait()
			}
		}
		send(1, 50)
		want(t, "runs", len(b.ran(manyOnce)), 10)
		w.advance(20 * time.Second)
		send(51, 55)
		want(t, "runs later", len(b.ran(manyOnce)), 15)
	})
}

// What is refused, or has come before, counts too: each such frame has something written.
func TestFramesThatBringNothingCountForTheQuota(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame wire.Frame
	}{
		{"the same again", wire.Frame{From: "a", To: "b", Method: once, Epoch: 1 << 50}},
		{"refused", wire.Frame{From: "evil", To: "b", Method: once, Epoch: 1 << 50}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.add("a")
				b := w.add("b")
				b.allowed = func(n message.Node) bool { return n != "evil" }
				b.quota.Messages = 2
				b.start()
				frame := w.frame(tt.frame, do(b, once, 1))
				for range 50 {
					w.forge(message.Subject{Node: "b", Method: once, Kind: kind}.String(), string(tt.frame.From)+".ACK.x", frame)
					synctest.Wait()
				}
				want(t, "frames that were not let in", b.up.quota.Held(), 50-20)
			})
		})
	}
}
