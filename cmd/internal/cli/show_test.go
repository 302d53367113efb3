package cli

import (
	"testing"
	"time"
)

func TestSpansAreWholeTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-2 * time.Second:                 "-2.0s",
		1234 * time.Microsecond:          "1ms",
		9500 * time.Millisecond:          "9.5s",
		30 * time.Second:                 "30s",
		time.Minute:                      "1m",
		90 * time.Second:                 "1m30s",
		10*time.Minute + time.Second:     "10m1s",
		time.Hour:                        "1h",
		10*time.Hour + 10*time.Minute:    "10h10m",
		24*time.Hour + 59*time.Second:    "24h",
		49 * time.Hour:                   "2d",
		100*24*time.Hour + 3*time.Minute: "100d",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
