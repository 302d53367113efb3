package process_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/process"
)

// want compares what a test got.
func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantList[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// of returns the events of a class.
func (j *journal) of(class errorkernel.Class) []errorkernel.Event {
	var all []errorkernel.Event
	for _, ev := range j.reported() {
		if ev.Class == class {
			all = append(all, ev)
		}
	}
	return all
}

func TestMessagesRunInOrderAndOnce(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				ids := a.send(series(b, method, 1, 50)...)
				w.settled(time.Second)
				wantList(t, "runs", b.numbers(method), upTo(50))
				for _, id := range ids {
					want(t, "state", a.sent(id).State, message.StateDone)
				}
			})
		})
	}
}

func TestOrderIsKeptAcrossRetry(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				a.window = 8
				a.start()
				b.start()
				w.lose(3, isFrame)
				for n := 1; n <= 40; n++ {
					a.send(do(b, method, n))
				}
				w.settled(time.Minute)
				wantList(t, "runs", b.numbers(method), upTo(40))
			})
		})
	}
}

func TestReplyEndsTheLifeOfTheRequest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		good := answered(do(b, once, 1, "body=hello"))
		bad := answered(do(b, once, 2, "fail"))
		ids := a.send(good, bad)
		w.settled(time.Second)
		want(t, "good", a.sent(ids[0]).State, message.StateDone)
		want(t, "bad", a.sent(ids[1]).State, message.StateFailed)
		want(t, "text", a.sent(ids[1]).Text, "it was told to fail")
		answers := a.ran(answer)
		want(t, "answers", len(answers), 2)
		want(t, "body", answers[0].body, "hello")
		want(t, "in reply to", answers[1].inReplyTo, ids[1])
		want(t, "code", answers[1].result.Code, message.CodeFailed)
	})
}

func TestFailureWithoutReplyReachesTheSender(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(do(b, repeat, 1, "fail"), do(b, once, 2, "fail"), do(b, exact, 3, "fail"))
		w.settled(time.Second)
		for _, id := range ids {
			want(t, "state", a.sent(id).State, message.StateFailed)
			want(t, "code", a.sent(id).Code, message.CodeFailed)
		}
		want(t, "notices", len(a.ran(none)), 3)
	})
}

func TestPartsArriveInOrder(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(answered(do(b, once, 1, "parts=5", "body=end")))
		w.settled(time.Second)
		var bodies []string
		for _, r := range a.ran(answer) {
			want(t, "part", int(r.part), len(bodies))
			want(t, "last", r.result != nil, len(bodies) == 5)
			bodies = append(bodies, r.body)
		}
		wantList(t, "bodies", bodies, []string{"part 0", "part 1", "part 2", "part 3", "part 4", "end"})
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
	})
}

func TestUnlimitedRetriesReachAReceiverThatAppearsLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		ids := a.send(series(b, once, 1, 10)...)
		w.advance(3*time.Hour + time.Second)
		start := time.Now()
		b.start()
		w.settled(time.Second)
		wantList(t, "runs", b.numbers(once), upTo(10))
		want(t, "first run", b.ran(once)[0].at, start)
		want(t, "state", a.sent(ids[9]).State, message.StateDone)
		want(t, "dead letters", len(a.dead()), 0)
	})
}

func TestReceiverThatReturnsIsServedAtOnce(t *testing.T) {
	// In the middle of a timeout, of the wait for the next attempt, and when the broker did not say
	// that nobody listens.
	for _, tt := range []struct {
		name  string
		away  time.Duration
		lost  bool
		retry time.Duration
	}{
		{"in the first attempt", 2 * time.Second, false, 0},
		{"in a later attempt", 17 * time.Second, false, 0},
		{"between attempts", 8 * time.Second, false, 10 * time.Second},
		{"without a notice", 2 * time.Second, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				if tt.lost {
					w.net.Cut("a", "b", true)
				} else {
					b.stop()
				}
				m := do(b, once, 1)
				m.RetryWait = tt.retry
				a.send(m)
				w.advance(tt.away)
				back := time.Now()
				if tt.lost {
					b.up.link.SetLink(false)
					w.net.Cut("a", "b", false)
					b.up.link.SetLink(true)
				} else {
					b.start()
				}
				w.settled(time.Minute)
				want(t, "run", b.ran(once)[0].at, back)
			})
		})
	}
}

func TestRetriesAreCountedInACKTimeouts(t *testing.T) {
	for _, wait := range []time.Duration{0, 7 * time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				a.start()
				steps, stop := a.up.progress.Watch(message.ID{})
				defer stop()
				start := time.Now()
				few := do(b, once, 1)
				few.Retries, few.RetryWait = 3, wait
				behind := do(b, once, 2)
				ids := a.send(few, behind)
				w.until(time.Minute, "given up", func() bool { return len(a.dead()) == 1 })
				took := time.Duration(0)
				for step := range steps {
					if step.What == process.StepGivenUp {
						took = step.At.Sub(start)
						break
					}
				}
				want(t, "given up after", took, 15*time.Second+2*wait)
				letter := a.dead()[ids[0]]
				want(t, "code", letter.Code, message.CodeUnreachable)
				want(t, "attempts", letter.Attempts, 3)
				want(t, "state", a.sent(ids[0]).State, message.StateFailed)
				events := a.events.of(errorkernel.GivenUp)
				want(t, "reports", len(events), 1)
				want(t, "reported", events[0].ID, ids[0])
				w.advance(time.Minute)
				b.start()
				w.settled(time.Second)
				wantList(t, "runs", b.numbers(once), []int{2})
				want(t, "state behind", a.sent(ids[1]).State, message.StateDone)
			})
		})
	}
}

func TestGiveUpInTheMiddleOfAWindow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		msgs := series(b, exact, 1, 9)
		for i := range msgs {
			if i%3 == 1 {
				msgs[i].Retries = 1 + i%2
			}
		}
		ids := a.send(msgs...)
		w.advance(14 * time.Second)
		want(t, "dead letters", len(a.dead()), 3)
		b.start()
		w.settled(time.Second)
		wantList(t, "file", b.file(exact, a), []int{1, 3, 4, 6, 7, 9})
		for i, id := range ids {
			_, dead := a.dead()[id]
			want(t, "dead", dead, i%3 == 1)
		}
	})
}

func TestMessageExpires(t *testing.T) {
	for _, tt := range []struct {
		name   string
		break_ func(w *world, a, b *simNode)
		last   string
		tried  bool
	}{
		{"receiver absent", func(_ *world, _, b *simNode) { b.stop() }, "nobody listens on b.", true},
		{"sender offline", func(_ *world, a, _ *simNode) { a.up.link.SetLink(false) }, "there is no link to the broker", false},
		{"between them nothing passes", func(w *world, _, _ *simNode) { w.net.Cut("a", "b", true) }, "no answer from b", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				tt.break_(w, a, b)
				steps, stop := a.up.progress.Watch(message.ID{})
				defer stop()
				msgs := series(b, once, 1, 3)
				msgs[1].TTL = 12 * time.Second
				start := time.Now()
				ids := a.send(msgs...)
				w.advance(time.Minute)
				want(t, "state", a.sent(ids[1]).State, message.StateExpired)
				letter := a.dead()[ids[1]]
				want(t, "code", letter.Code, message.CodeExpired)
				if !strings.HasPrefix(letter.Text, "not delivered in 12s; last: "+tt.last) || (letter.Attempts > 0) != tt.tried {
					t.Errorf("after %d attempts: %s", letter.Attempts, letter.Text)
				}
				for step := range steps {
					if step.What == process.StepGivenUp {
						want(t, "expired after", step.At.Sub(start), 12*time.Second)
						break
					}
				}
				if b.up == nil {
					b.start()
				}
				a.up.link.SetLink(true)
				w.net.Cut("a", "b", false)
				w.settled(time.Minute)
				wantList(t, "runs", b.numbers(once), []int{1, 3})
			})
		})
	}
}

func TestMessageThatWaitsTooLongAtItsReceiverIsNotRun(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				late := answered(do(b, method, 2))
				late.TTL = 5 * time.Second
				ids := a.send(do(b, method, 1, "sleep=10s"), late, do(b, method, 3))
				w.settled(time.Minute)
				if method != exact { // which runs what waits in one go
					wantList(t, "runs", b.numbers(method), []int{1, 3})
					want(t, "state", a.sent(ids[1]).State, message.StateExpired)
				}
				want(t, "state of the last", a.sent(ids[2]).State, message.StateDone)
			})
		})
	}
}

func TestOfflineSenderCountsNoAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.offline = true
		a.start()
		b.start()
		m := do(b, once, 1)
		m.Retries = 1
		ids := a.send(m)
		w.advance(time.Hour)
		want(t, "state", a.sent(ids[0]).State, message.StateAccepted)
		back := time.Now()
		a.up.link.SetLink(true)
		w.settled(time.Second)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "run", b.ran(once)[0].at, back)
	})
}

func TestDeniedSenderIsRefusedAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.allowed = func(n message.Node) bool { return n != "a" }
		a.start()
		b.start()
		start := time.Now()
		ids := a.send(answered(do(b, once, 1)), do(b, once, 2))
		synctest.Wait()
		want(t, "time", time.Since(start), 0)
		for _, id := range ids {
			want(t, "state", a.sent(id).State, message.StateFailed)
			want(t, "code", a.sent(id).Code, message.CodeDenied)
			want(t, "dead letter", a.dead()[id].Code, message.CodeDenied)
		}
		want(t, "runs", len(b.ran(once)), 0)
		want(t, "sender's reports", len(a.events.of(errorkernel.GivenUp)), 2)
		if events := b.events.of(errorkernel.Refused); len(events) == 0 || events[0].From != "a" {
			t.Errorf("the receiver reported %v", events)
		}
	})
}

func TestInvalidMessageIsRefusedAtOnceAndTheRestRuns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		bad := do(b, once, 2)
		bad.Data = nil // the method wants its number
		ids := a.send(do(b, once, 1), bad, do(b, once, 3))
		synctest.Wait()
		wantList(t, "runs", b.numbers(once), []int{1, 3})
		want(t, "code", a.sent(ids[1]).Code, message.CodeInvalid)
		want(t, "attempts", a.sent(ids[1]).Attempts, 1)
	})
}

func TestRefusalSurvivesALostAck(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.allowed = func(n message.Node) bool { return n != "a" }
		a.start()
		b.start()
		synctest.Wait() // a word of presence that comes later would have something sent twice
		w.lose(2, isAck)
		ids := a.send(answered(do(b, once, 1)))
		w.settled(time.Minute)
		want(t, "code", a.sent(ids[0]).Code, message.CodeDenied)
		want(t, "attempts", a.sent(ids[0]).Attempts, 3)
	})
}

func TestLostAcksRunNothingTwice(t *testing.T) {
	for _, method := range []message.Method{repeat, once, exact, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				w.lose(10, isAck)
				ids := a.send(series(b, method, 1, 5)...)
				w.settled(2 * time.Minute)
				got := b.numbers(method)
				slices.Sort(got)
				wantList(t, "runs", got, upTo(5))
				want(t, "attempts", a.sent(ids[0]).Attempts, 11)
			})
		})
	}
}

func TestLateReplyCorrectsAMessageThatWasGivenUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.lose(3, func(from, to string, d process.Delivery) bool { return to == "a" && isAck(from, to, d) })
		m := answered(do(b, once, 1, "sleep=1m"))
		m.Retries, m.MethodTimeout = 3, 2*time.Minute
		ids := a.send(m)
		w.advance(30 * time.Second)
		want(t, "code", a.sent(ids[0]).Code, message.CodeUnreachable)
		want(t, "dead letters", len(a.dead()), 1)
		w.settled(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "dead letters", len(a.dead()), 0)
	})
}

func TestIdleProcessesRetireAndComeBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.idle, b.idle = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		count := func(n *simNode, branch, prefix string) int {
			count := 0
			for _, c := range n.up.root.Tree().Children {
				for _, p := range c.Children {
					if c.Name == branch && strings.HasPrefix(p.Name, prefix) {
						count++
					}
				}
			}
			return count
		}
		for n := 1; n <= 20; n++ {
			for _, method := range []message.Method{repeat, once, exact, manyOnce} {
				a.send(do(b, method, n))
			}
			synctest.Wait()
			want(t, "publishers", count(a, "publishers", "publisher "), 4)
			want(t, "lanes", count(b, "lanes", "lane "), 4)
			// Right before, at and after the moment of retirement.
			w.advance(10*time.Second + time.Duration(n%3-1))
		}
		w.advance(time.Minute)
		want(t, "publishers", count(a, "publishers", "publisher "), 0)
		want(t, "lanes", count(b, "lanes", "lane "), 0)
		for _, method := range []message.Method{repeat, once, exact, manyOnce} {
			wantList(t, string(method), b.numbers(method), upTo(20))
		}
	})
}

func TestStoreThatFailsForAWhileLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		node string
		op   string
	}{{"a", "Settle"}, {"b", "Take"}, {"b", "Begin"}, {"b", "Finish"}, {"a", "Read"}, {"b", "ReadLane"}} {
		t.Run(tt.op, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				sick := a
				if tt.node == "b" {
					sick = b
				}
				a.send(series(b, once, 1, 3)...)
				w.settled(time.Second)
				sick.up.gate.fill(true, tt.op)
				for n := 4; n <= 8; n++ {
					a.send(do(b, once, n), do(b, exact, n), do(b, repeat, n))
					a.send(do(b, once, 10+n)) // behind another, so that its begin costs a call of its own
					w.advance(time.Second)
				}
				if tt.node == "b" && tt.op != "ReadLane" || tt.op == "Settle" {
					if tries := sick.up.gate.count(tt.op); tries > 200 {
						t.Errorf("%s was tried %d times", tt.op, tries)
					}
					if len(sick.events.of(errorkernel.StoreFailed)) == 0 {
						t.Error("nothing was reported")
					}
				}
				sick.up.gate.fill(false, tt.op)
				w.settled(2 * time.Minute)
				wantList(t, "once", b.numbers(once), []int{1, 2, 3, 4, 14, 5, 15, 6, 16, 7, 17, 8, 18})
				wantList(t, "exact", b.file(exact, a), []int{4, 5, 6, 7, 8})
				wantList(t, "repeat", b.numbers(repeat), []int{4, 5, 6, 7, 8})
			})
		})
	}
}

func TestGiveUpWaitsForAStoreThatFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		a.start()
		a.up.gate.fill(true, "Settle")
		m := do(b, once, 1)
		m.Retries = 1
		ids := a.send(m, do(b, once, 2))
		w.advance(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateAccepted)
		a.up.gate.fill(false, "Settle")
		w.until(5*time.Minute, "given up", func() bool { return a.sent(ids[0]).State == message.StateFailed })
		b.start()
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{2})
	})
}

func TestCommitsAreShared(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.send(series(b, exact, 1, 200)...)
		w.settled(time.Second)
		wantList(t, "file", b.file(exact, a), upTo(200))
		for _, op := range []string{"Take", "Begin", "Finish"} {
			if n := b.up.gate.count(op); n > 10 {
				t.Errorf("%d calls of %s for 200 messages", n, op)
			}
		}
	})
}

func TestSingleCommandCostsTwoCommitsAtItsReceiver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		for n := 1; n <= 3; n++ {
			before := b.up.gate.count("Take") + b.up.gate.count("Begin") + b.up.gate.count("Finish")
			a.send(do(b, once, n))
			w.settled(time.Second)
			after := b.up.gate.count("Take") + b.up.gate.count("Begin") + b.up.gate.count("Finish")
			want(t, "commits at the receiver", after-before, 2)
		}
	})
}
