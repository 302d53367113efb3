//go:build !linux

package main

import (
	"context"
	"time"
)

// watchFile calls look again and again until it returns true.
func watchFile(ctx context.Context, _ string, look func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !look() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
