package process_test

import (
	"context"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
	"steward/process"
)

// outlook is how a message of a stream of n stands.
func (n *simNode) outlook(to *simNode, m message.Method, about message.ID) (process.Outlook, bool) {
	ctx, cancel := context.WithTimeout(n.w.t.Context(), time.Second)
	defer cancel()
	return n.up.router.Outlook(ctx, kvstore.Stream{Peer: to.name, Method: m}, about)
}

func TestOutlookSaysHowADeliveryStands(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a")
		b := w.add("b")
		a.start()
		m := do(b, once, 1)
		m.Retries = 7
		first := a.send(m)[0]
		began := time.Now()
		w.advance(11 * time.Second) // two attempts of five seconds
		second := a.send(do(b, once, 2))[0]
		o, ok := a.outlook(b, once, message.ID{})
		if !ok || o.Message != first || o.Attempts != 2 || o.Retries != 7 || !o.Linked || o.Reason == "" || !o.Next.Equal(began.Add(15*time.Second)) {
			t.Errorf("of the first: %+v, %t; it is %v since it was sent", o, ok, time.Since(began))
		}
		// It is behind the first one, which is tried alone.
		if o, ok := a.outlook(b, once, second); !ok || o.Message != second || o.Attempts != 0 || o.Reason == "" {
			t.Errorf("of the second: %+v, %t", o, ok)
		}
		if o, ok := a.outlook(b, repeat, message.ID{}); ok {
			t.Errorf("of a stream without a publisher: %+v", o)
		}
		b.start()
		w.settled(time.Minute)
		if o, ok := a.outlook(b, once, message.ID{}); !ok || !o.Message.IsZero() || o.Attempts != 0 || !o.Next.IsZero() {
			t.Errorf("when all was delivered: %+v, %t", o, ok)
		}
	})
}

// What was given up and is sent again runs once, in its old order, whatever happens to the sender.
func TestRetriedMessagesRunOnceAndInOrder(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a")
		b := w.add("b")
		a.start()
		msgs := series(b, once, 1, 5)
		for i := range msgs {
			msgs[i].Retries = 1
		}
		ids := a.send(msgs...)
		w.advance(6 * time.Second)
		want(t, "dead letters", len(a.dead()), 5)
		retried, err := a.up.router.Retry(t.Context(), ids[1:4])
		a.must(err)
		want(t, "sent again", len(retried), 3)
		again, err := a.up.router.Retry(t.Context(), ids[1:4])
		a.must(err)
		want(t, "sent again twice", len(again), 0)
		a.crash()
		a.start()
		b.start()
		w.advance(10 * time.Second)
		wantList(t, "runs", b.numbers(once), []int{2, 3, 4})
		want(t, "dead letters", len(a.dead()), 2)
		for _, r := range retried {
			want(t, "state", a.sent(r.New).State, message.StateDone)
		}
	})
}
