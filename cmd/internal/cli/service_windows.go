package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

// eventSource is the name by which the event log knows the node.
const eventSource = "steward"

// asService runs a node, under the service manager if that has started it. Then its log goes to the event log, since a
// service has no stderr.
func asService(ctx context.Context, s streams, hangups chan<- os.Signal, node serving) error {
	isService, err := svc.IsWindowsService()
	if err != nil {
		return fmt.Errorf("ask whether this is a service: %w", err)
	}
	if !isService {
		return node(ctx, s, func() {})
	}
	log, err := eventlog.Open(eventSource)
	if err != nil {
		return fmt.Errorf("open the event log: %w", err)
	}
	defer log.Close()
	events := eventWriter{log}
	s.out, s.err = events, events
	h := &service{ctx: ctx, streams: s, hangups: hangups, node: node}
	if err := svc.Run(eventSource, h); err != nil {
		return fmt.Errorf("run as a service: %w", err)
	}
	if h.err != nil {
		_ = log.Error(1, h.err.Error()) // nobody sees stderr
	}
	return h.err
}

// service answers the service manager for one run of a node.
type service struct {
	ctx     context.Context // that of the one call that made it
	streams streams
	hangups chan<- os.Signal
	node    serving
	err     error // of the node, when Execute has returned
}

// How long the service manager is asked to be patient: a start may make a large database smaller.
const (
	startHint = 15 * time.Minute
	stopHint  = time.Minute
)

// Execute is part of svc.Handler.
func (h *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (specific bool, code uint32) {
	status <- svc.Status{State: svc.StartPending, WaitHint: uint32(startHint.Milliseconds())}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.node(ctx, h.streams, sync.OnceFunc(func() { close(ready) })) }()
	for {
		select {
		case <-ready:
			ready = nil
			status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptParamChange}
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.ParamChange:
				select {
				case h.hangups <- syscall.SIGHUP:
				default: // one waits, and will read what is there then
				}
			case svc.Stop, svc.Shutdown:
				ready = nil
				status <- svc.Status{State: svc.StopPending, WaitHint: uint32(stopHint.Milliseconds())}
				cancel()
			}
		case h.err = <-done:
			if h.err != nil {
				return true, exitFailed
			}
			return false, exitDone
		}
	}
}

// eventWriter makes an event of each line of a log.
type eventWriter struct{ log *eventlog.Log }

func (w eventWriter) Write(line []byte) (int, error) {
	write := w.log.Info
	switch {
	case bytes.Contains(line, []byte("level=ERROR")), bytes.Contains(line, []byte(`"level":"ERROR"`)):
		write = w.log.Error
	case bytes.Contains(line, []byte("level=WARN")), bytes.Contains(line, []byte(`"level":"WARN"`)):
		write = w.log.Warning
	}
	if err := write(1, string(bytes.TrimSpace(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
