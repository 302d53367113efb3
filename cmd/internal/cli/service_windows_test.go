package cli

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/windows/svc"
)

// conducted is a service that a test conducts in the place of the service manager.
type conducted struct {
	t        *testing.T
	requests chan svc.ChangeRequest
	status   chan svc.Status
	hangups  chan os.Signal
	over     chan uint32
	specific bool
}

func conduct(t *testing.T, node serving) *conducted {
	c := &conducted{t: t, requests: make(chan svc.ChangeRequest), status: make(chan svc.Status), hangups: make(chan os.Signal, 1), over: make(chan uint32, 1)}
	h := &service{ctx: t.Context(), hangups: c.hangups, node: node}
	go func() {
		specific, code := h.Execute(nil, c.requests, c.status)
		c.specific = specific
		c.over <- code
	}()
	return c
}

func (c *conducted) is(want svc.State) {
	c.t.Helper()
	if got := <-c.status; got.State != want || (want == svc.Running) != (got.Accepts != 0) {
		c.t.Fatalf("%+v, want state %d", got, want)
	}
}

func TestServiceRunsWhenTheNodeIsReadyAndStopsWhenItIsTold(t *testing.T) {
	for _, how := range []svc.Cmd{svc.Stop, svc.Shutdown} {
		start := make(chan struct{})
		c := conduct(t, func(ctx context.Context, _ streams, ready func()) error {
			<-start
			ready()
			<-ctx.Done()
			return nil
		})
		c.is(svc.StartPending)
		close(start)
		c.is(svc.Running)
		c.requests <- svc.ChangeRequest{Cmd: svc.Interrogate, CurrentStatus: svc.Status{State: svc.Running, Accepts: svc.AcceptStop}}
		c.is(svc.Running)
		c.requests <- svc.ChangeRequest{Cmd: svc.ParamChange}
		<-c.hangups
		c.requests <- svc.ChangeRequest{Cmd: how}
		c.is(svc.StopPending)
		if code := <-c.over; code != 0 || c.specific {
			t.Errorf("%d, %v", code, c.specific)
		}
	}
}

func TestServiceWhoseNodeFailsSaysSo(t *testing.T) {
	c := conduct(t, func(context.Context, streams, func()) error { return errors.New("no disk") })
	c.is(svc.StartPending)
	if code := <-c.over; code != exitFailed || !c.specific {
		t.Errorf("%d, %v", code, c.specific)
	}
}
