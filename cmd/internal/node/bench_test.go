package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// BenchmarkDeliver is the whole way of messages, from being handed in at one node to the end of their
// runs at another one, with a broker between them, all in this process.
func BenchmarkDeliver(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			central := run(b, "-embeddedBroker=127.0.0.1:0")
			ship1 := run(b, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL())
			for up, changed := ship1.Link(); !up; up, changed = ship1.Link() {
				<-changed
			}
			msgs := make([]message.Message, n)
			for i := range msgs {
				msgs[i] = message.Message{To: "ship1", Method: "REQToFileAppend", Data: []string{strings.Repeat("x", 100)}, FileName: "lines",
					ReplyMethod: message.MethodNone, ACKTimeout: time.Minute, MethodTimeout: time.Minute}
			}
			b.ReportAllocs()
			for b.Loop() {
				for i := range msgs {
					central.store.Stamp(&msgs[i])
				}
				// They run in order, so that all have run when the last one has.
				steps, stop := ship1.Watch(msgs[n-1].ID)
				if _, err := central.router.AcceptStamped(b.Context(), msgs); err != nil {
					b.Fatal(err)
				}
				for step := <-steps; step.What != process.StepEnded; step = <-steps {
				}
				stop()
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
