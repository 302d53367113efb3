package natstransport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"steward/errorkernel"
)

// burst is how long a subscription has to keep up before dropped frames are worth another
// line.
const burst = 10 * time.Second

// maxSeen bounds what is remembered between two links, and about one.
const maxSeen = 256

// faults decides what is said about what goes wrong: each once, until it changes.
type faults struct {
	log      *slog.Logger
	reporter errorkernel.Reporter
	advisor  advisor
	denied   atomic.Pointer[func(subject string) bool] // see Transport.OnDenied

	mu   sync.Mutex         // guards the fields below
	seen map[[2]string]bool // server and reason of failures since there was a link
	last error              // why there is none; nil when there is one, or when that is not known
	done map[string]bool    // what advisor.without says and was said
}

// attempt notes that server could not be used.
func (f *faults) attempt(server string, err error) {
	key := [2]string{server, reason(err)}
	f.mu.Lock()
	f.last = f.trouble(server, err)
	known := f.seen[key] || len(f.seen) >= maxSeen
	if f.seen == nil {
		f.seen = make(map[[2]string]bool)
	}
	if !known {
		f.seen[key] = true
	}
	f.mu.Unlock()
	switch {
	case known:
		f.log.Debug("still no connection to the broker", "server", server, "err", err)
	case outOfReach(err):
		f.log.Warn("no connection to the broker", "server", server, "err", err)
	default:
		f.report("", fmt.Errorf("connect to broker %s: %w%s", server, err, f.advisor.advice(err)))
	}
}

func (f *faults) up(server string) {
	f.mu.Lock()
	clear(f.seen)
	f.last = nil
	f.mu.Unlock()
	f.advisor.served.Store(true)
	f.log.Info("connected to the broker", "server", server)
}

func (f *faults) lost(server string, err error) {
	f.mu.Lock()
	f.last = f.trouble(server, cmp.Or(err, io.EOF))
	f.mu.Unlock()
	if err == nil || outOfReach(err) {
		f.log.Warn("connection to the broker lost", "server", server, "err", err)
		return
	}
	f.report("", fmt.Errorf("connection to broker %s: %w%s", server, err, f.advisor.advice(err)))
}

// trouble is why server is not used, in words that are the same at each attempt.
func (f *faults) trouble(server string, err error) error {
	return fmt.Errorf("%s: %s%s", server, reason(err), f.advisor.advice(err))
}

// outOfReach says that err is what a link that comes and goes looks like, and no refusal.
func outOfReach(err error) bool {
	var network net.Error
	isNetwork := errors.As(err, &network)
	if isNetwork && network.Timeout() {
		return true
	}
	// Both may come with a network error inside.
	var op *net.OpError
	if errors.Is(err, nats.ErrTLS) || errors.As(err, &op) && op.Op == "remote error" {
		return false
	}
	return isNetwork || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrStaleConnection) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrNoServers)
}

// reason is err without what differs at each attempt: the port at our end.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

func (f *faults) report(subject string, err error) {
	if f.reporter == nil {
		f.log.Warn("the broker refused something", "subject", subject, "err", err)
		return
	}
	f.reporter.Report(errorkernel.Event{Class: errorkernel.LinkFailed, Process: "transport", Subject: subject, Err: err})
}

// linkFaults is faults for one connection.
type linkFaults struct {
	*faults
	reported map[string]bool // used by the library's callback goroutine alone

	slowMu sync.Mutex
	slow   map[string]time.Time // when a subscription last dropped frames; guarded by slowMu
}

func (f *faults) link() *linkFaults {
	return &linkFaults{faults: f, slow: make(map[string]time.Time), reported: make(map[string]bool)}
}

// dropped notes that a subscription had no room for a frame.
func (f *linkFaults) dropped(subject string) {
	f.slowMu.Lock()
	defer f.slowMu.Unlock()
	now := time.Now()
	if now.Sub(f.slow[subject]) > burst {
		f.log.Warn("frames dropped: they arrive faster than they are taken", "subject", subject)
	}
	f.slow[subject] = now
}

// notAllowed tells of a subject that is not in the permissions of this node. What can be done
// without is no failure, and said once, however often the link comes and goes.
func (f *faults) notAllowed(subject string, err error) {
	about := f.advisor.without(subject, forSubscription(err))
	if about == "" {
		f.report(subject, fmt.Errorf("%w; add it to the permissions of this node at the broker, as steward broker-config prints them", err))
		return
	}
	f.mu.Lock()
	known := f.done[about] || len(f.done) >= maxSeen
	if f.done == nil {
		f.done = make(map[string]bool)
	}
	if !known {
		f.done[about] = true
	}
	f.mu.Unlock()
	if !known {
		f.log.Warn("the node goes on without a subject that the broker does not allow it", "subject", subject, "means", about)
	}
}

// forSubscription says that what a broker says about permissions is not about publishing.
func forSubscription(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "for subscription")
}

// quoted finds the subject in what a broker says about permissions.
var quoted = regexp.MustCompile(`"([^"]*)"`)

// async takes what the library calls back with.
func (f *linkFaults) async(sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrSlowConsumer) && sub != nil:
		f.dropped(sub.Subject)
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrMaxSubscriptionsExceeded),
		errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrAuthorization):
		subject := ""
		if m := quoted.FindStringSubmatch(err.Error()); m != nil {
			subject = m[1]
		}
		if told := f.denied.Load(); told != nil && errors.Is(err, nats.ErrPermissionViolation) && !forSubscription(err) && (*told)(subject) {
			return
		}
		if f.reported[err.Error()] || len(f.reported) >= maxSeen {
			return
		}
		f.reported[err.Error()] = true
		if errors.Is(err, nats.ErrPermissionViolation) {
			f.notAllowed(subject, err)
			return
		}
		f.report(subject, err)
	default:
		// Errors that end the connection are dealt with when it has ended; what is left is
		// garbage that somebody sent.
		f.log.Debug("error on the connection to the broker", "err", err)
	}
}
