package process_test

import (
	"testing"
	"time"

	"steward/message"
)

func with(m message.Message, header, value string) message.Message {
	m.Headers = map[string]string{header: value}
	return m
}

// What the node gave itself to do in an earlier start is ended and not run; what comes
// behind it is. Another node cannot make a message be passed over, or have it run in the
// name of a third one.
func TestMessagesOfAnEarlierStartAreNotRun(t *testing.T) {
	for _, method := range []message.Method{repeat, once, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				old := a.send(with(answered(do(a, method, 1)), message.HeaderStart, "an earlier one"), with(do(a, method, 2), message.HeaderStart, "an earlier one"))
				a.send(do(a, method, 3))
				b.send(with(do(a, method, 4), message.HeaderStart, "an earlier one"))
				w.settled(time.Minute)
				numbers := a.numbers(method)
				if len(numbers) != 2 || numbers[0]+numbers[1] != 7 {
					t.Errorf("ran %v, want 3 and 4", numbers)
				}
				for _, id := range old {
					l, err := a.up.kv.Received(id)
					if err != nil || l.State != message.StateExpired {
						t.Errorf("%+v, %v", l, err)
					}
				}
				want(t, "state of the one that awaits a reply", a.sent(old[0]).State, message.StateExpired)
				if events := a.events.reported(); len(events) != 0 {
					t.Errorf("reported: %+v", events)
				}
				want(t, "answers", len(a.ran(answer)), 0)
			})
		})
	}
}

func TestMessageInTheNameOfAnotherNodeIsAnsweredThere(t *testing.T) {
	for _, method := range []message.Method{repeat, once, manyOnce} {
		t.Run(string(method), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				c := w.add("c")
				c.start()
				ids := a.send(with(answered(do(a, method, 1)), message.HeaderFrom, "b"))
				w.settled(time.Minute)
				runs := a.ran(method)
				if len(runs) != 1 || runs[0].from != "b" {
					t.Errorf("runs %+v", runs)
				}
				if got := b.ran(answer); len(got) != 1 || got[0].from != "a" || got[0].inReplyTo != ids[0] {
					t.Errorf("answers %+v", got)
				}
				want(t, "state", a.sent(ids[0]).State, message.StateDone)

				a.send(with(answered(do(b, method, 2)), message.HeaderFrom, "c"))
				w.settled(time.Minute)
				if runs := b.ran(method); len(runs) != 1 || runs[0].from != "a" {
					t.Errorf("runs %+v", runs)
				}
				want(t, "answers at c", len(c.ran(answer)), 0)
				want(t, "answers at a", len(a.ran(answer)), 1)
			})
		})
	}
}
