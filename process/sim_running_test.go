package process_test

import (
	"testing"
	"time"
)

// What runs is told while it runs, and what was delivered is counted, in messages and bytes.
func TestRunsAndTrafficAreTold(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		start := time.Now()
		ids := a.send(answered(do(b, once, 1, "sleep=20s")), answered(do(b, once, 2)))
		w.advance(10 * time.Second)
		runs := b.up.progress.Runs()
		if len(runs) != 1 || runs[0].Message.ID != ids[0] || runs[0].Attempt != 1 || runs[0].Started.Sub(start) > time.Second {
			t.Fatalf("runs: %+v", runs)
		}
		traffic := a.up.router.Traffic()
		if len(traffic) != 1 || traffic[0].Peer != b.name || traffic[0].Method != once || traffic[0].Messages != 2 || traffic[0].Bytes == 0 {
			t.Errorf("traffic: %+v", traffic)
		}
		w.settled(time.Minute)
		want(t, "runs at the end", len(b.up.progress.Runs()), 0)
	})
}
