//go:build nobroker

package cli

import (
	"context"
	"time"
)

func runScreen(context.Context, *topWatch, topShown, time.Duration) error { return errNoScreen }
