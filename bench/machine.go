package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// describe says on which machine the figures are made, and how long its disk takes to sync.
func describe() ([]string, error) {
	sync, err := syncTime()
	if err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("machine   %s, %d cores, %s/%s, %s", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()),
		fmt.Sprintf("disk      %.2f ms to write 4 KiB and sync them in %s (median)", milliseconds(sync), os.TempDir()),
		fmt.Sprintf("load      %s when it began", loadAverage()),
		fmt.Sprintf("messages  %d bytes of text each; broker, nodes and peers on loopback, fsync on, signatures only where it says so", payloadSize),
	}, nil
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, " \t:\n")
		}
	}
	return "unknown processor"
}

// loadAverage tells whether somebody else was using the machine.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(b)); len(f) > 2 {
		return strings.Join(f[:3], " ")
	}
	return "unknown"
}

func syncTime() (d time.Duration, err error) {
	f, err := os.CreateTemp("", "steward-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var each []time.Duration
	page := make([]byte, 4096)
	for range 50 {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		each = append(each, time.Since(began))
	}
	return quantile(each, 0.5), nil
}
