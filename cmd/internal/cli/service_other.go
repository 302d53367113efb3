//go:build !windows

package cli

import (
	"context"
	"os"
)

// asService runs a node. Other service managers than that of Windows start a program like any other.
func asService(ctx context.Context, s streams, _ chan<- os.Signal, node serving) error {
	return node(ctx, s, func() {})
}
