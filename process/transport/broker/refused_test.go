//go:build !nobroker

package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// told collects what a broker says that it has refused.
type told struct {
	mu    sync.Mutex
	lines []string // guarded by mu
	more  chan struct{}
}

func newTold() *told { return &told{more: make(chan struct{}, 1000)} }

func (r *told) refused(line string, _ Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	r.more <- struct{}{}
}

func (r *told) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

func TestFrameThatIsTooLargeIsToldOnceForEachHost(t *testing.T) {
	r := newTold()
	s := start(t, Options{MaxPayload: 4096, Refused: r.refused})
	for i := range 5 {
		conn, in := greet(t, s)
		if _, err := fmt.Fprintf(conn, "CONNECT {}\r\nPUB a %d\r\n", 5000+i); err != nil {
			t.Fatal(err)
		}
		if got := errorLine(t, in); !strings.Contains(got, "Maximum Payload Violation") {
			t.Errorf("got %q", got)
		}
		_ = conn.Close()
	}
	if all := r.all(); len(all) != 1 || !strings.Contains(all[0], "maximum payload exceeded: 5000 vs 4096") || !strings.HasPrefix(all[0], "127.0.0.1:") {
		t.Errorf("told is %q", all)
	}
}
