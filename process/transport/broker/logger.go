//go:build !nobroker

package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// logger passes the lines of a nats-server to slog. The server exits the program after a
// fatal line only if its logger does; this one remembers the line instead, for Start to
// return.
type logger struct {
	log     *slog.Logger
	refused func(line string, what Refusal) // nil for nobody

	changing atomic.Bool // who may log in is being changed

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

func newLogger(log *slog.Logger, refused func(string, Refusal)) *logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &logger{log: log, refused: refused}
}

func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *logger) line(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "embedded broker", slog.String("line", text(format, args)))
	}
}

// Noticef is debug here: what a server says of its own start and of every reload is of no
// use to the operator of a node.
func (l *logger) Noticef(format string, args ...any) { l.line(slog.LevelDebug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.line(slog.LevelWarn, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }

// Debugf is a line for debugging, but for one about a client that does without TLS where there has to be some: a server takes
// that for a probe, and it may be somebody who tries what there is.
func (l *logger) Debugf(format string, args ...any) {
	if strings.Contains(format, "TLS handshake error") {
		if line := text(format, args); strings.Contains(line, withoutTLS) {
			l.Errorf("%s", line)
			return
		}
	}
	l.line(slog.LevelDebug, format, args)
}

// withoutTLS is what crypto/tls says of a client that does not speak it.
const withoutTLS = "first record does not look like a TLS handshake"

// Errorf is a warning when it is about a client, who may be anybody, and debug when the same was
// said of one from that host a short time ago.
func (l *logger) Errorf(format string, args ...any) {
	line := text(format, args)
	m := ofClient.FindStringSubmatch(line)
	if m == nil {
		l.line(slog.LevelError, "%s", []any{line})
		return
	}
	if m[2] == authentication && l.changing.Load() {
		// It was connected and had not said yet who it is, see SetUsers: it will come back.
		l.line(slog.LevelDebug, "%s", []any{line})
		return
	}
	level := slog.LevelDebug
	news, room := l.news([2]string{m[1], chosen.ReplaceAllString(m[2], "$1")}, time.Now())
	if news && room {
		level = slog.LevelWarn
	}
	// Also when there is no room for it here: so many strangers do not cover up what a node tries.
	if what, ok := refusalOf(m[2]); ok && news && l.refused != nil {
		l.refused(line, what)
	}
	l.line(level, "%s", []any{line})
}

// ofClient finds host and text of a line about a client.
var ofClient = regexp.MustCompile(`^(\S+):\d+ - [a-z]+:\d+ - (.*)$`)

// refusal finds out that a line is about something that a client may not do, or that one or nobody gets in. Not
// about one that breaks off in the middle of TLS: a link that fails does that, too.
var refusal = regexp.MustCompile(`^(?:".*" - )?(` + authentication + `|Publish Violation|Subscription Violation|maximum payload exceeded|` + tooMany +
	`|` + handshake + `(?:remote error: )?tls:)(?:\W|$)`)

// refusalOf says what a text about a client refuses it, if it does.
func refusalOf(text string) (what Refusal, ok bool) {
	m := refusal.FindStringSubmatch(text)
	switch {
	case m == nil:
		return 0, false
	case m[1] == authentication, m[1] == tooMany:
		return RefusedLogin, true
	case strings.HasPrefix(m[1], handshake):
		return RefusedTLS, true
	}
	return RefusedDeed, true
}

// chosen is what is another text each time that a client does the same again: a size, and in what way and on which port it
// has broken off. What crypto/tls says itself in a few fixed words is kept: old versions are not the same as no TLS at all.
var chosen = regexp.MustCompile(`(TLS handshake error: (?:remote error: )?tls: [A-Za-z ]+|TLS handshake error|maximum payload exceeded)(?:\W.*)?$`)

// What is said of those who do not get in.
const (
	authentication = "authentication error"
	tooMany        = "maximum connections exceeded"
	handshake      = "TLS handshake error: "
)

// text formats what a server says. It puts what a client calls itself into the format: a name may be full of verbs, which
// would make a line of any length of it.
func text(format string, args []any) string {
	const end = `" - `
	if i := strings.LastIndex(format, end); i >= 0 {
		format = strings.ReplaceAll(format[:i], "%", "%%") + format[i:]
	}
	return fmt.Sprintf(format, args...)
}

// news reports whether it is time to say this of a host, and notes that it is said if there is room for that.
func (l *logger) news(what [2]string, now time.Time) (news, room bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.told[what]; ok && now.Sub(at) < tellEvery {
		return false, false
	}
	if len(l.told) >= maxTold {
		maps.DeleteFunc(l.told, func(_ [2]string, at time.Time) bool { return now.Sub(at) >= tellEvery })
		if len(l.told) >= maxTold {
			return true, false
		}
	}
	if l.told == nil {
		l.told = make(map[[2]string]time.Time)
	}
	l.told[what] = now
	return true, true
}

func (l *logger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	if l.first == nil {
		l.first = fmt.Errorf(format, args...)
	}
	l.mu.Unlock()
	l.line(slog.LevelError, format, args)
}
