package errorkernel

import "log/slog"

// Policy decides what is to be done about an event. It is pure: the same event gets the
// same action, and nothing else happens.
type Policy func(Event) Action

// DefaultPolicy keeps the node going: a process that failed is started anew (how often is
// bounded by its supervisor), what the disk or the broker did not take is tried again, and
// about everything else there is nothing to do but to tell.
func DefaultPolicy(ev Event) Action {
	switch ev.Class {
	case ProcessFailed, ProcessPanic:
		return Restart
	case StoreFailed, LinkFailed:
		return Retry
	}
	return Continue
}

// level is how loud an event is in the local log: error when somebody has to act, warn
// when the node helps itself, info when nothing need be wrong.
func level(c Class, a Action) slog.Level {
	switch {
	case a == Stop, a == Escalate:
		return slog.LevelError
	case c == ProcessPanic, c == ProcessStuck, c == StoreFailed, c == GivenUp, c == NameTaken, c == RulesFailed, c == Unproven:
		return slog.LevelError
	case c == WroteStderr:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}
