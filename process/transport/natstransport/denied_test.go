package natstransport

import (
	"testing"

	"steward/internal/natstest"
	"steward/process"
)

// Each frame that the broker does not let through is told to who asked for it, and reported only when that one
// does not know what it is about. Subscriptions are none of its business.
func TestWhatMayNotBeSentIsToldEachTime(t *testing.T) {
	file, public := seedFile(t)
	b := natstest.StartConfig(t, `authorization { users: [ { nkey: `+public+`, permissions: { publish: ["central.>"], subscribe: ["ship1.>"] } } ] }`)
	report := newEvents()
	tr := open(t, Options{Servers: []string{b.URL()}, Name: "ship1", NkeySeedFile: file, Report: report})
	denied := make(chan string, 10)
	tr.OnDenied(func(subject string) bool {
		denied <- subject
		return subject == "ship2.REQPing.EventACK"
	})
	waitState(t, tr, true)
	if _, err := tr.Subscribe("ship3.REQPing.EventACK", func(process.Delivery) {}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"ship2.REQPing.EventACK", "central.REQPing.EventACK", "ship2.REQPing.EventACK", "ship2.REQPing.EventNACK"} {
		if err := tr.Publish(subject, "ship1.ACK.1", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"ship2.REQPing.EventACK", "ship2.REQPing.EventACK", "ship2.REQPing.EventNACK"} {
		if got := receive(t, denied); got != want {
			t.Errorf("told of %s, want %s", got, want)
		}
	}
	for _, want := range []string{"ship3.REQPing.EventACK", "ship2.REQPing.EventNACK"} {
		if ev := receive(t, report); ev.Subject != want {
			t.Errorf("reported %s, want %s: %v", ev.Subject, want, ev.Err)
		}
	}
}
