package process_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/process"
)

func TestUnackedMessageIsSentOnceAndNotKept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		m := answered(do(b, once, 1, "body=hello"))
		m.ACKTimeout = 0
		ids := a.send(m)
		w.settled(time.Second)
		wantList(t, "runs", b.numbers(once), []int{1})
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "answers", len(a.ran(answer)), 1)

		file := do(b, exact, 2)
		file.ACKTimeout = 0
		a.send(file)
		synctest.Wait()
		wantList(t, "file", b.file(exact, a), []int{2})

		a.up.link.SetLink(false)
		ids = a.send(m)
		want(t, "state offline", a.sent(ids[0]).State, message.StateFailed)
		want(t, "code offline", a.sent(ids[0]).Code, message.CodeUnreachable)
		want(t, "reported", len(a.events.of(errorkernel.GivenUp)), 1)
		a.up.link.SetLink(true)
		w.advance(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1})
	})
}

func TestUnackedReplyIsSentOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		m := answered(do(b, once, 1))
		m.ReplyACKTimeout = 0
		ids := a.send(m)
		w.settled(time.Second)
		want(t, "answers", len(a.ran(answer)), 1)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)

		// One that may get lost is not waited for.
		w.lose(1, func(_, to string, d process.Delivery) bool { return to == "a" && isFrame("", to, d) })
		ids = a.send(m)
		w.settled(time.Second)
		want(t, "answers", len(a.ran(answer)), 1)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
	})
}

func TestOwnMessagesNeedNoLink(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a")
		a.offline = true
		a.start()
		start := time.Now()
		ids := a.send(answered(do(a, once, 1)), do(a, exact, 2))
		synctest.Wait()
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "time", time.Since(start), 0)
		want(t, "answers", len(a.ran(answer)), 1)
		wantList(t, "file", a.file(exact, a), []int{2})
	})
}

// Their process comes with the first of them, goes when none has come for long, and comes back. One
// that hangs keeps it, and nobody waits for it.
func TestProcessForUnackedMessagesComesAndGoes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.idle = 10 * time.Second
		a.start()
		b.start()
		processes := func() int {
			count := 0
			for _, c := range b.up.root.Tree().Children {
				for _, p := range c.Children {
					if strings.HasSuffix(p.Name, " without ACK") {
						count++
					}
				}
			}
			return count
		}
		send := func(n int, what ...string) {
			m := do(b, manyOnce, n, what...)
			m.ACKTimeout, m.MethodTimeout = 0, time.Hour
			a.send(m)
			synctest.Wait()
		}
		want(t, "processes", processes(), 0)
		for n := 1; n <= 20; n++ {
			send(n)
			want(t, "processes", processes(), 1)
			// Right before, at and after the moment of retirement.
			w.advance(10*time.Second + time.Duration(n%3-1))
		}
		w.advance(time.Minute)
		want(t, "processes", processes(), 0)
		send(21, "hang")
		w.advance(time.Minute)
		want(t, "processes", processes(), 1)
		send(22)
		wantList(t, "runs", b.numbers(manyOnce), upTo(22))
	})
}
