package process_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

func TestLinkLostDuringAnAttemptDoesNotCountIt(t *testing.T) {
	for _, away := range []time.Duration{time.Second, time.Hour} { // shorter than the timeout, and longer
		t.Run(away.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				w.lose(1, isFrame)
				m := do(b, once, 1)
				m.Retries = 1
				ids := a.send(m)
				w.advance(time.Second)
				a.up.link.SetLink(false)
				w.advance(away)
				a.up.link.SetLink(true)
				back := time.Now()
				w.settled(time.Second)
				want(t, "state", a.sent(ids[0]).State, message.StateDone)
				want(t, "run", b.ran(once)[0].at, back)
			})
		})
	}
}

func TestStaleAckOfAFullLaneDoesNotHoldUpTheStream(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.laneMessages = 1
		a.start()
		b.start()
		// Each ack comes a second time, when the lane has room again and all is done.
		w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
			if isAck(from, to, d) {
				again := d
				time.AfterFunc(20*time.Second, func() { w.forge(again.Subject, again.Reply, again.Data) })
			}
			return memtransport.Fate{}
		})
		a.send(series(b, once, 1, 3, "sleep=1s")...)
		w.advance(15 * time.Second)
		wantList(t, "runs", b.numbers(once), upTo(3))
		w.faults(nil)
		w.advance(20 * time.Second)
		a.send(do(b, once, 4))
		w.settled(10 * time.Second)
		wantList(t, "runs", b.numbers(once), upTo(4))
	})
}

func TestLargeMessageTakenInWhileOfflineDoesNotUseUpTheWindow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.offline = true
		a.start()
		b.start()
		msgs := series(b, exact, 1, 3)
		msgs[0].Body = noise(100 << 10)
		a.send(msgs[0])
		synctest.Wait()
		a.up.link.SetLink(true)
		a.send(msgs[1:]...)
		w.settled(time.Second)
		wantList(t, "file", b.file(exact, a), upTo(3))
	})
}

func TestExpiryInTheWindowKeepsTheStreamGoing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		frames := 0
		w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
			if !isFrame(from, to, d) {
				return memtransport.Fate{}
			}
			frames++
			return memtransport.Fate{Drop: frames == 1, Delay: 2500 * time.Millisecond}
		})
		// The first message is tried alone, and its ACK comes when those behind it have expired.
		msgs := series(b, once, 1, 4)
		msgs[1].TTL, msgs[2].TTL = 6*time.Second, 6*time.Second
		ids := a.send(msgs...)
		start := time.Now()
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1, 4})
		want(t, "last run", b.ran(once)[1].at.Sub(start), 10*time.Second)
		want(t, "state", a.sent(ids[2]).State, message.StateExpired)
		want(t, "refused frames", len(b.events.of(errorkernel.Refused)), 0)
	})
}

func TestExpiryOfOneMessageEndsNoAttemptOfOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.faults(func(string, string, process.Delivery) memtransport.Fate { return memtransport.Fate{Drop: true} })
		w.sniffing()
		start := time.Now()
		short := do(b, once, 1)
		short.ACKTimeout, short.TTL = 2*time.Second, time.Second
		long := do(b, once, 2)
		long.ACKTimeout, long.Retries = 10*time.Second, 2
		a.send(short, long)
		w.advance(time.Minute)
		var at []time.Duration
		for _, d := range w.sniffing() {
			at = append(at, d.at.Sub(start))
		}
		wantList(t, "frames", at, []time.Duration{0, 10 * time.Second})
		want(t, "dead letters", len(a.dead()), 2)
	})
}

func TestAttemptsOfOneMessageAreNotCountedWhileAnotherWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		patient := do(b, once, 1)
		patient.ACKTimeout, patient.RetryWait = time.Second, time.Minute
		hasty := do(b, once, 2)
		hasty.ACKTimeout, hasty.Retries = time.Second, 2
		ids := a.send(patient, hasty)
		w.advance(50 * time.Second)
		want(t, "state", a.sent(ids[1]).State, message.StateAccepted) // its second attempt has not begun
		w.advance(12*time.Second + time.Millisecond)
		want(t, "state", a.sent(ids[1]).State, message.StateFailed)
	})
}

func TestWhatComesBehindAnUnansweredMessageEndsInTime(t *testing.T) {
	for _, link := range []bool{true, false} {
		t.Run(fmt.Sprintf("link %v", link), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				a.offline = !link
				a.start()
				patient := do(b, once, 1)
				patient.ACKTimeout = time.Minute
				first := a.send(patient)
				w.advance(90 * time.Second) // it is tried alone by now
				hasty, mayfly, last := do(b, once, 2), do(b, once, 3), do(b, once, 4)
				hasty.ACKTimeout, hasty.Retries = time.Second, 2
				mayfly.TTL = 5 * time.Second
				behind := a.send(hasty, mayfly, last)
				w.advance(10 * time.Second)
				limited := message.StateFailed
				if !link {
					limited = message.StateAccepted // no attempt counts without a link
				}
				want(t, "limited attempts", a.sent(behind[0]).State, limited)
				want(t, "short life", a.sent(behind[1]).State, message.StateExpired)
				want(t, "before them", a.sent(first[0]).State, message.StateAccepted)
				want(t, "behind them", a.sent(behind[2]).State, message.StateAccepted)
				b.start()
				if !link {
					a.up.link.SetLink(true)
				}
				w.settled(2 * time.Minute)
				ran := []int{1, 4}
				if !link {
					ran = []int{1, 2, 4}
				}
				wantList(t, "runs", b.numbers(once), ran)
			})
		})
	}
}

func TestManyMessagesBehindAnUnansweredOneAreNoManyAttempts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		a.send(do(b, once, 1))
		w.advance(time.Minute)
		w.faults(func(string, string, process.Delivery) memtransport.Fate { return memtransport.Fate{Drop: true} })
		w.sniffing()
		for i := range 100 {
			a.send(do(b, once, 2+i))
			w.advance(30 * time.Millisecond)
		}
		w.advance(57 * time.Second)
		if n := len(w.sniffing()); n > 60 {
			t.Errorf("%d frames in a minute", n)
		}
	})
}

func TestRefusalSurvivesACrashOfTheSender(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		bad := answered(do(b, once, 1))
		bad.Data = nil
		// The ack of the refusal is here, the next frame has been sent, and nothing of that is on disk.
		a.up.gate.fill(true, "Settle")
		ids := a.send(bad)
		synctest.Wait()
		a.send(do(b, once, 2))
		w.advance(time.Second)
		a.restart()
		w.settled(time.Minute)
		want(t, "code", a.sent(ids[0]).Code, message.CodeInvalid)
		wantList(t, "runs", b.numbers(once), []int{2})
	})
}

func TestFullLaneLosesNothing(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				b.laneMessages = 4
				a.start()
				b.start()
				msgs := series(b, method, 1, 30, "sleep=100ms")
				for i := range msgs {
					msgs[i].Retries = 1 // a receiver without room is no failed attempt
				}
				a.send(msgs...)
				w.settled(5 * time.Minute)
				got := b.numbers(method)
				if method == manyOnce {
					slices.Sort(got)
				}
				wantList(t, "runs", got, upTo(30))
			})
		})
	}
}

func TestGapIsMendedWithoutWaitingForTheTimeout(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.lose(1, isFrame)
		start := time.Now()
		a.send(do(b, once, 1))
		synctest.Wait()
		a.send(do(b, once, 2))
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), upTo(2))
		want(t, "time", b.ran(once)[1].at.Sub(start), 0)
	})
}

func TestLargeMessagesPassOneByOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		big := noise(200 << 10)
		for n := 1; n <= 40; n++ {
			m := do(b, exact, n)
			m.Body = big
			a.send(m)
		}
		w.settled(time.Minute)
		wantList(t, "file", b.file(exact, a), upTo(40))
	})
}

func TestMessageLargerThanTheLinkIsGivenUpAndDoesNotBlock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		msgs := series(b, exact, 1, 3)
		msgs[1].Body = noise(2 << 20)
		ids := a.send(msgs...)
		w.settled(time.Second)
		wantList(t, "file", b.file(exact, a), []int{1, 3})
		want(t, "code", a.sent(ids[1]).Code, message.CodeInvalid)
	})
}

func TestMessagesTakenInWhileOfflineFlowWhenTheLinkIsBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		for n := 1; n <= 20; n++ {
			a.up.link.SetLink(n%2 == 0)
			m := do(b, exact, n)
			m.Body = noise(30 << 10)
			a.send(m)
			synctest.Wait()
		}
		a.up.link.SetLink(true)
		w.settled(time.Second)
		wantList(t, "file", b.file(exact, a), upTo(20))
	})
}

func TestFullLaneIsAskedAgainSoon(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.laneMessages = 8
		a.start()
		b.start()
		synctest.Wait()
		start := time.Now()
		a.send(series(b, exact, 1, 200)...)
		w.settled(time.Minute)
		wantList(t, "file", b.file(exact, a), upTo(200))
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("200 messages by way of a lane for 8 took %v", took)
		}
	})
}

func TestHungLaneIsAskedLessAndLess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.laneMessages = 2
		a.start()
		b.start()
		hung := do(b, once, 1, "hang")
		hung.MethodTimeout = time.Hour
		a.send(hung)
		synctest.Wait()
		w.sniffing()
		a.send(series(b, once, 2, 9)...)
		w.advance(time.Minute)
		frames := 0
		for _, s := range w.sniffing() {
			if isFrame(s.from, s.to, s.Delivery) {
				frames++
			}
		}
		if frames < 60 || frames > 80 {
			t.Errorf("%d frames in a minute", frames)
		}
	})
}

func TestMessagesThatCompressWellShareAFrame(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		most int
	}{"compressible": {strings.Repeat("x", 100), 12}, "noise": {"", 60}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				msgs := series(b, exact, 1, 4000)
				hidden := hex.EncodeToString(noise(4000 * 50))
				for i := range msgs {
					text := c.text
					if text == "" {
						text = hidden[100*i : 100*i+100]
					}
					msgs[i].Data = append(msgs[i].Data, text)
				}
				w.sniffing()
				a.send(msgs...)
				w.settled(time.Minute)
				frames, largest := 0, 0
				for _, s := range w.sniffing() {
					if isFrame(s.from, s.to, s.Delivery) {
						frames, largest = frames+1, max(largest, len(s.Data))
					}
				}
				wantList(t, "file", b.file(exact, a), upTo(4000))
				if frames > c.most || largest > 256<<10 {
					t.Errorf("%d frames, the largest of %d bytes", frames, largest)
				}
			})
		})
	}
}
