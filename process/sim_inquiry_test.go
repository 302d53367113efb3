package process_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/transport/memtransport"
)

// forever makes a request that is delivered and has no reply as long as its receiver lives.
func forever(to *simNode, n int) message.Message {
	m := answered(do(to, manyOnce, n, "hang"))
	m.MethodTimeout = message.Forever
	return m
}

// lose has a node lose its store, and come back with an empty one.
func (n *simNode) lose() {
	n.w.t.Helper()
	n.crash()
	n.wipe()
	n.start()
	synctest.Wait()
}

// wantLost looks whether a request has ended because its receiver does not know it any more.
func wantLost(t *testing.T, a *simNode, id message.ID) {
	t.Helper()
	l := a.sent(id)
	want(t, "state", l.State, message.StateFailed)
	want(t, "code", l.Code, message.CodeInterrupted)
	if !strings.Contains(l.Text, "b no longer knows it") || l.Ended.IsZero() || l.Delivered.IsZero() {
		t.Errorf("%+v", l)
	}
}

// TestRequestEndsWhenItsReceiverLostItsStore: at once when the receiver says that it is there,
// whatever keeps it from being answered, and long after its publisher has ended.
func TestRequestEndsWhenItsReceiverLostItsStore(t *testing.T) {
	for name, m := range map[string]func(b *simNode) message.Message{
		"runs":                       func(b *simNode) message.Message { return forever(b, 1) },
		"between two of its runs":    func(b *simNode) message.Message { return every(answered(do(b, once, 1)), time.Hour, message.Forever) },
		"has sent parts":             func(b *simNode) message.Message { return answered(do(b, resumes, 1, "steps=2", "hang")) },
		"waits in a lane":            func(b *simNode) message.Message { return answered(do(b, once, 1)) },
		"has ended, reply not taken": func(b *simNode) message.Message { return answered(do(b, repeat, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				a.idle = 2 * time.Second
				a.start()
				b.start()
				synctest.Wait()
				switch name {
				case "waits in a lane":
					before := do(b, once, 0, "hang")
					before.MethodTimeout = message.Forever
					a.send(before)
				case "has ended, reply not taken":
					w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
						return memtransport.Fate{Drop: from == "b" && isFrame(from, to, d)}
					})
				}
				request := m(b)
				request.MethodTimeout = message.Forever
				ids := a.send(request)
				w.advance(4 * time.Second) // not 5: then the reply is tried again
				want(t, "state before", a.sent(ids[0]).State, message.StateDelivered)
				w.faults(nil)
				b.lose()
				wantLost(t, a, ids[0])
				ends, _, err := a.up.kv.Untold(9)
				a.must(err)
				if len(ends) != 1 {
					t.Fatalf("central is told %d times", len(ends))
				}
				if !strings.Contains(string(ends[0].Text), ids[0].String()) {
					t.Errorf("central is told %s", ends[0].Text)
				}
				a.restart()
				w.settled(time.Minute)
				wantLost(t, a, ids[0])
			})
		})
	}
}

func TestRequestsThatTheReceiverKnowsGoOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		sleeps := answered(do(b, once, 3, "sleep=2m"))
		sleeps.MethodTimeout = message.Forever
		ids := a.send(forever(b, 1), every(answered(do(b, repeat, 2)), time.Hour, message.Forever), sleeps)
		w.advance(time.Minute)
		for range 3 {
			b.up.link.SetLink(false)
			w.advance(time.Second)
			b.up.link.SetLink(true)
			w.advance(time.Second)
		}
		b.stop()
		b.start()
		w.advance(time.Hour)
		for i, code := range []message.Code{message.CodeInterrupted, "", message.CodeInterrupted} {
			l := a.sent(ids[i])
			want(t, "code", l.Code, code)
			if strings.Contains(l.Text, "no longer knows") {
				t.Errorf("%+v", l)
			}
		}
		want(t, "answers", len(a.ran(answer)), 4)
	})
}

// TestManyLostRequestsEndInBoundedCommits: a question is about 128 of them at most.
func TestManyLostRequestsEndInBoundedCommits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		const n = 300
		var msgs []message.Message
		for i := range n {
			msgs = append(msgs, forever(b, i))
		}
		ids := a.send(msgs...)
		w.advance(time.Second)
		b.lose()
		for _, id := range ids {
			wantLost(t, a, id)
		}
		want(t, "commits", a.up.gate.count("EndAwaited"), 3)
	})
}

// TestLostRequestsEndAlsoWhenNobodyHeardOfTheReturn: its word of presence got lost.
func TestLostRequestsEndAlsoWhenNobodyHeardOfTheReturn(t *testing.T) {
	for name, find := range map[string]func(w *world, a *simNode){
		"at the next question":      func(w *world, _ *simNode) { w.advance(11 * time.Minute) },
		"at the next connect":       func(_ *world, a *simNode) { a.up.link.SetLink(false); a.up.link.SetLink(true); synctest.Wait() },
		"at the start of the asker": func(_ *world, a *simNode) { a.restart(); synctest.Wait() },
		"when the answer was lost": func(w *world, a *simNode) {
			a.up.link.SetLink(false)
			w.advance(11 * time.Minute)
			a.up.link.SetLink(true)
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				ids := a.send(forever(b, 1))
				w.advance(time.Second)
				w.faults(func(_, to string, d process.Delivery) memtransport.Fate {
					return memtransport.Fate{Drop: to == "a" && !isAck("", to, d)}
				})
				b.lose()
				w.advance(time.Minute)
				want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
				w.faults(nil)
				find(w, a)
				wantLost(t, a, ids[0])
			})
		})
	}
}

// TestReplyFromALostStoreIsTakenOnceAndChangesNoEnd: it was on its way when the store was lost.
func TestReplyFromALostStoreIsTakenOnceAndChangesNoEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
			if from == "b" && isFrame(from, to, d) {
				return memtransport.Fate{Delay: 10 * time.Second, Copies: 2}
			}
			return memtransport.Fate{}
		})
		m := answered(do(b, once, 1))
		m.ReplyACKTimeout = time.Hour
		ids := a.send(m)
		w.advance(time.Second)
		w.faults(nil)
		b.lose()
		wantLost(t, a, ids[0])
		before := a.sent(ids[0])
		w.advance(time.Minute)
		want(t, "answers", len(a.ran(answer)), 1)
		want(t, "life", a.sent(ids[0]), before)
		want(t, "runs", len(b.ran(once)), 1)
	})
}

// TestReplyThatIsHereAlreadyCounts: only its method has not been run yet when the store that it came from
// is lost.
func TestReplyThatIsHereAlreadyCounts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.up.gate.fill(true, "ReadLane")
		ids := a.send(answered(do(b, once, 1)))
		w.advance(time.Second)
		want(t, "state before", a.sent(ids[0]).State, message.StateDelivered)
		b.lose()
		w.advance(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
		a.up.gate.heal()
		w.settled(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "answers", len(a.ran(answer)), 1)
	})
}

// TestOlderCopiesLeaveNoRequestWithoutAnEnd: what a copy does not hold any more is asked for.
func TestOlderCopiesLeaveNoRequestWithoutAnEnd(t *testing.T) {
	t.Run("of the receiver", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			a, b := w.pair()
			kept := a.send(answered(do(b, once, 1, "sleep=1h")))
			kept[0] = a.send(answered(do(b, manyOnce, 2, "sleep=10s")))[0]
			w.advance(time.Second)
			b.stop()
			old := b.backup()
			b.start()
			lost := a.send(forever(b, 3))
			w.advance(time.Second)
			b.crash()
			b.restore(old)
			b.start()
			synctest.Wait()
			wantLost(t, a, lost[0])
			w.settled(time.Minute)
			if l := a.sent(kept[0]); strings.Contains(l.Text, "no longer knows") {
				t.Errorf("%+v", l)
			}
		})
	})
	for name, wait := range map[string]time.Duration{"of the sender, not delivered": 0, "of the sender, delivered": time.Second} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				if wait == 0 {
					b.stop()
				}
				ids := a.send(answered(do(b, once, 1, "sleep=5s")), answered(do(b, once, 2, "fail")))
				w.advance(wait)
				a.stop()
				old := a.backup()
				a.start()
				if b.up == nil {
					b.start()
				}
				w.settled(time.Minute)
				a.crash()
				a.restore(old)
				a.start()
				w.settled(11 * time.Minute) // what was not delivered is asked for later
				want(t, "state", a.sent(ids[0]).State, message.StateDone)
				want(t, "state", a.sent(ids[1]).State, message.StateFailed)
				want(t, "text", a.sent(ids[1]).Text, "it was told to fail; its reply does not come any more")
				want(t, "runs", len(b.ran(once)), 2)
				want(t, "answers", len(a.ran(answer)), 2)
				ends, _, err := a.up.kv.Untold(9)
				a.must(err)
				want(t, "bad ends for central", len(ends), 0) // b has told
			})
		})
	}
}

// TestNodeThatAnswersNoQuestions is of an earlier version.
func TestNodeThatAnswersNoQuestions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.silent = true
		a.start()
		b.start()
		synctest.Wait()
		ids := a.send(forever(b, 1))
		w.advance(time.Second)
		b.lose()
		w.advance(time.Hour)
		want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
		want(t, "events", len(a.events.reported()), 0)
		b.stop()
		b.silent = false
		b.start()
		synctest.Wait()
		wantLost(t, a, ids[0])
	})
}

// TestForgedAnswersEndNothing: from somebody who was not asked, or who has not been asked about that.
func TestForgedAnswersEndNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(forever(b, 1))
		w.advance(time.Second)
		answer, err := w.codec.EncodeAnswer(&wire.Answer{By: "b", To: "a", Fates: []wire.Fate{{ID: ids[0]}}})
		b.must(err)
		question, err := w.codec.EncodeQuestion(&wire.Question{From: "a", To: "b", IDs: ids})
		a.must(err)
		w.sniffing()
		b.up.link.SetLink(false)
		b.up.link.SetLink(true)
		synctest.Wait()
		asked := false
		for _, s := range w.sniffing() {
			if s.Subject == "b.OPEN.EventACK" {
				asked = true
				w.forge(s.Reply, "", answer) // it has had its answer
				w.forge(s.Reply, "", []byte("garbage"))
				w.forge(s.Reply+"x", "", answer)
			}
		}
		if !asked {
			t.Fatal("b was not asked")
		}
		w.forge("a.ACK.word", "", answer)
		w.forge("b.OPEN.EventACK", "c.ACK.word", question) // the answer is for a alone
		w.forge("a.OPEN.EventACK", "a.ACK.word", question) // b is asked, not a
		w.forge("b.OPEN.EventACK", "a.ACK.word", []byte("garbage"))
		w.advance(time.Second)
		want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
		want(t, "refused by a", len(a.events.reported()), 2)
		want(t, "refused by b", len(b.events.reported()), 2)
	})
}

// TestForgedAnswersEndNothingThoughTheyComeFirst: who hears the question, and keeps it from the one who is
// asked, has no key of that one. Nor does b answer questions that somebody else asks for a.
func TestForgedAnswersEndNothingThoughTheyComeFirst(t *testing.T) {
	for name, forged := range map[string]struct {
		reason string
		seal   func(w *world, a, c *simNode, purpose, subject, reply string, data []byte) []byte
	}{
		"unsigned": {"unsigned", func(_ *world, _, _ *simNode, _, _, _ string, data []byte) []byte { return data }},
		"key of nobody": {"unknown-key", func(w *world, _, _ *simNode, p, s, r string, data []byte) []byte {
			return seal(w.newKey(), p, s, r, 0, data)
		}},
		"by another one": {"other-node", func(_ *world, _, c *simNode, p, s, r string, data []byte) []byte {
			return seal(c.key, p, s, r, 0, data)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			signed(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				c := w.add("c")
				ids := a.send(forever(b, 1))
				w.advance(time.Second)
				answer, err := w.codec.EncodeAnswer(&wire.Answer{By: "b", To: "a", Fates: []wire.Fate{{ID: ids[0]}}})
				b.must(err)
				question, err := w.codec.EncodeQuestion(&wire.Question{From: "a", To: "b", IDs: ids})
				a.must(err)
				w.sniffing()
				w.faults(func(from, _ string, d process.Delivery) memtransport.Fate {
					return memtransport.Fate{Drop: from == "a" && d.Subject == "b.OPEN.EventACK"}
				})
				b.up.link.SetLink(false)
				b.up.link.SetLink(true)
				synctest.Wait()
				asked := 0
				for _, s := range w.sniffing() {
					if s.Subject == "b.OPEN.EventACK" {
						asked++
						w.forge(s.Reply, "", forged.seal(w, a, c, "steward answer 1", s.Reply, "", answer))
					}
				}
				if asked == 0 {
					t.Fatal("b was not asked")
				}
				w.sniffing()
				w.forge("b.OPEN.EventACK", "a.ACK.word", forged.seal(w, a, c, "steward question 1", "b.OPEN.EventACK", "a.ACK.word", question))
				w.advance(time.Second)
				for _, s := range w.sniffing() {
					if s.Subject == "a.ACK.word" {
						t.Error("b answers")
					}
				}
				want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
				want(t, "answers refused", a.refused(forged.reason), asked)
				want(t, "questions refused", b.refused(forged.reason), 1)
				want(t, "reported by a", len(a.events.of(errorkernel.Unproven)), asked)
				w.faults(nil)
				b.lose()
				wantLost(t, a, ids[0])
			})
		})
	}
}
