package process_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steward/message"
	"steward/process"
	"steward/process/transport/memtransport"
)

// TestRequestLearnsThatItsReplyWasGivenUp: whatever keeps the reply from the node that asked,
// the life of the request ends there with what the run was.
func TestRequestLearnsThatItsReplyWasGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		what   []string
		code   message.Code
		reason string
		break_ func(w *world, a, b *simNode)
	}{
		{"nobody listens", nil, message.CodeDone, "unreachable", func(_ *world, a, _ *simNode) {
			a.stop()
			a.without = answer
			a.start()
		}},
		{"refused", nil, message.CodeDone, "denied", func(_ *world, a, _ *simNode) {
			a.denied = []message.Method{answer}
		}},
		{"failed run", []string{"fail"}, message.CodeFailed, "denied", func(_ *world, a, _ *simNode) {
			a.denied = []message.Method{answer}
		}},
		{"many parts", []string{"parts=3"}, message.CodeDone, "denied", func(_ *world, a, _ *simNode) {
			a.denied = []message.Method{answer}
		}},
		{"away for long", nil, message.CodeDone, "unreachable", func(w *world, a, _ *simNode) {
			a.stop()
			w.advance(time.Hour)
			a.start()
		}},
		{"removed", nil, message.CodeDone, "removed", func(w *world, a, b *simNode) {
			a.stop()
			w.advance(2 * time.Second)
			wantList(w.t, "cleared", b.clear(process.QueueFilter{To: "a"}), []process.Cleared{{To: "a", Method: answer, Messages: 1}})
			a.start()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				m := answered(do(b, once, 1, append([]string{"sleep=1s"}, tt.what...)...))
				m.ReplyRetries = 2
				ids := a.send(m)
				synctest.Wait()
				want(t, "state before", a.sent(ids[0]).State, message.StateDelivered)
				tt.break_(w, a, b)
				w.until(time.Minute, "the end of the request", func() bool { return a.sent(ids[0]).State.Final() })
				w.settled(time.Minute)
				life := a.sent(ids[0])
				want(t, "code", life.Code, tt.code)
				for _, part := range []string{"its reply was given up", tt.reason} {
					if !strings.Contains(life.Text, part) {
						t.Errorf("it ended with %q, and not with %q", life.Text, part)
					}
				}
				if tt.code == message.CodeFailed && !strings.HasPrefix(life.Text, "it was told to fail; ") {
					t.Errorf("it ended with %q", life.Text)
				}
				if len(b.dead()) == 0 {
					t.Error("the reply is no dead letter")
				}
				want(t, "answers", len(a.ran(answer)), 0)
			})
		})
	}
}

// TestNoticeThatIsRefusedOrRemovedHasNoOther: the sender has to ask.
func TestNoticeThatIsRefusedOrRemovedHasNoOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.denied = []message.Method{answer, none}
		ids := a.send(answered(do(b, once, 1)), do(b, once, 2, "fail"))
		w.advance(time.Minute)
		want(t, "waiting", b.up.waiting(), "")
		want(t, "state", a.sent(ids[0]).State, message.StateDelivered)
		w.settled(10 * time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		want(t, "why", a.sent(ids[0]).Text, "its reply does not come any more")
		a.denied = nil

		ids = a.send(answered(do(b, once, 3, "sleep=1s")))
		synctest.Wait()
		a.stop()
		w.advance(2 * time.Second)
		for range 2 {
			want(t, "cleared", len(b.clear(process.QueueFilter{To: "a"})), 1)
		}
		want(t, "waiting", b.up.waiting(), "")
		a.start()
		w.settled(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
	})
}

// TestNoticeChangesNoEndThatIsKnown: the reply was there, and its ACK was lost.
func TestNoticeChangesNoEndThatIsKnown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.faults(func(from, to string, d process.Delivery) memtransport.Fate {
			return memtransport.Fate{Drop: to == "b" && isAck(from, to, d)}
		})
		m := answered(do(b, once, 1))
		m.ReplyRetries = 2
		ids := a.send(m)
		synctest.Wait()
		before := a.sent(ids[0])
		want(t, "state", before.State, message.StateDone)
		w.advance(time.Minute)
		want(t, "dead letters", len(b.dead()), 1)
		w.faults(nil)
		w.settled(time.Minute)
		want(t, "notices", len(a.ran(none)), 1)
		want(t, "life", a.sent(ids[0]), before)
	})
}

// TestFailureThatNobodyAskedForIsToldHoweverLate: its word has the replyRetries of the request,
// and they may be few.
func TestFailureThatNobodyAskedForIsToldHoweverLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		m := do(b, once, 1, "sleep=1s", "fail")
		m.ReplyRetries = 1
		ids := a.send(m)
		synctest.Wait()
		a.stop()
		w.advance(time.Hour)
		a.start()
		w.settled(time.Minute)
		want(t, "code", a.sent(ids[0]).Code, message.CodeFailed)
		if !slices.ContainsFunc(a.ran(none), func(r run) bool { return r.inReplyTo == ids[0] }) {
			t.Error("no notice came")
		}
	})
}
