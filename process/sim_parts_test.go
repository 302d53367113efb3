package process_test

import (
	"testing"
	"time"
)

func TestRestOfAFailedRunFollowsItsParts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		for n, what := range [][]string{{"parts=2", "body=rest", "failures=1"}, {"body=all", "failures=1"}} {
			m := answered(do(b, once, n, what...))
			m.MethodRetries = 1
			a.send(m)
		}
		w.settled(time.Second)
		var bodies []string
		var ends []bool
		for _, r := range a.ran(answer) {
			bodies, ends = append(bodies, r.body), append(ends, r.result != nil)
		}
		// Of a run of which no part was on the way, only the last one is told of.
		wantList(t, "bodies", bodies, []string{"part 0", "part 1", "rest", "part 0", "part 1", "rest", "all"})
		wantList(t, "ends", ends, []bool{false, false, false, false, false, true, true})
	})
}
