package cli

import (
	"bytes"
	"testing"
)

// The same trouble is told once, and the hint with the first one.
func TestEmulationTellsItsTroubleOnce(t *testing.T) {
	var out bytes.Buffer
	w := linkWatch{s: streams{err: &out}, hint: "do that", told: map[string]bool{}}
	for _, up := range []int{1, 1, 2, 1} {
		w.tellTrouble(up)
	}
	want := `steward: emulate: 1 of 0 nodes are connected: no answer of the broker yet
hint: do that
steward: emulate: 2 of 0 nodes are connected: no answer of the broker yet
`
	if got := out.String(); got != want {
		t.Errorf("got %s", got)
	}
}
