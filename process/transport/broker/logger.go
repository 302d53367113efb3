//go:build !nobroker

package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
)

// logger passes the lines of a nats-server to slog. The server exits the program after a
// fatal line only if its logger does; this one remembers the line instead, for Start to
// return.
type logger struct {
	log *slog.Logger

	mu    sync.Mutex // guards first
	first error      // the first fatal line
}

func newLogger(log *slog.Logger) *logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &logger{log: log}
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
func (l *logger) Errorf(format string, args ...any)  { l.line(slog.LevelError, format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }

func (l *logger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	if l.first == nil {
		l.first = fmt.Errorf(format, args...)
	}
	l.mu.Unlock()
	l.line(slog.LevelError, format, args)
}
