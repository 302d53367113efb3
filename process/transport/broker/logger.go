//go:build !nobroker

package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"sync"
	"time"
)

// logger passes the lines of a nats-server to slog. The server exits the program after a
// fatal line only if its logger does; this one remembers the line instead, for Start to
// return.
type logger struct {
	log     *slog.Logger
	refused func(line string) // nil for nobody

	mu    sync.Mutex // guards the fields below
	first error      // the first fatal line
	// told is when something was last said about the clients of one host. Who reaches the
	// port can bring about such lines, one for each attempt.
	told map[[2]string]time.Time // by host and line
}

const (
	// tellEvery is the time between two lines that say the same of one host.
	tellEvery = time.Minute
	maxTold   = 100
)

func newLogger(log *slog.Logger, refused func(string)) *logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &logger{log: log, refused: refused}
}

func (l *logger) debug() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }

func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *logger) line(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "embedded broker", slog.String("line", fmt.Sprintf(format, args...)))
	}
}

// Noticef is debug here: what a server says of its own start and of every reload is of no
// use to the operator of a node.
func (l *logger) Noticef(format string, args ...any) { l.line(slog.LevelDebug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.line(slog.LevelWarn, format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }

// Errorf is a warning when it is about a client, who may be anybody, and debug when somebody else is told, or the same was
// said of one from that host a short time ago.
func (l *logger) Errorf(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	m := ofClient.FindStringSubmatch(line)
	if m == nil {
		l.line(slog.LevelError, "%s", []any{line})
		return
	}
	level := slog.LevelDebug
	if l.news([2]string{m[1], m[2]}, time.Now()) {
		level = slog.LevelWarn
		if l.refused != nil && refusal.MatchString(m[2]) { // who is told says so
			level = slog.LevelDebug
			l.refused(line)
		}
	}
	l.line(level, "%s", []any{line})
}

// ofClient finds host and text of a line about a client.
var ofClient = regexp.MustCompile(`^(\S+):\d+ - [a-z]+:\d+ - (.*)$`)

// refusal finds out that a line is about something that a client may not do. Lines about clients that
// never came as far as that are not: anybody on the network can bring them about.
var refusal = regexp.MustCompile(`^(?:".*" - )?(?:authentication error|Publish Violation|Subscription Violation)\b`)

// news reports whether it is time to say this of a host, and notes that it is said.
func (l *logger) news(what [2]string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.told[what]; ok && now.Sub(at) < tellEvery {
		return false
	}
	if len(l.told) >= maxTold {
		maps.DeleteFunc(l.told, func(_ [2]string, at time.Time) bool { return now.Sub(at) >= tellEvery })
		if len(l.told) >= maxTold {
			return false
		}
	}
	if l.told == nil {
		l.told = make(map[[2]string]time.Time)
	}
	l.told[what] = now
	return true
}

func (l *logger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	if l.first == nil {
		l.first = fmt.Errorf(format, args...)
	}
	l.mu.Unlock()
	l.line(slog.LevelError, format, args)
}
