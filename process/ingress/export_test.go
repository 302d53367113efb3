package ingress

import (
	"context"
	"net"
)

// ServeOn serves connections of a listener that is no socket file.
func (s *Socket) ServeOn(ctx context.Context, ln net.Listener) error { return s.serve(ctx, ln) }
