package errorkernel

import "fmt"

var classNames = [...]string{
	ProcessFailed: "process-failed",
	ProcessPanic:  "process-panic",
	ProcessStuck:  "process-stuck",
	GivenUp:       "given-up",
	MethodFailed:  "method-failed",
	Refused:       "refused",
	StoreFailed:   "store-failed",
	LinkFailed:    "link-failed",
	NameTaken:     "name-taken",
	RulesFailed:   "rules-failed",
	Unproven:      "unproven",
	WroteStderr:   "wrote-stderr",
}

// String returns the class as it is spelled in log lines and error messages.
func (c Class) String() string {
	if c > 0 && int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class-%d", uint8(c))
}

var actionNames = [...]string{
	Continue: "continue",
	Retry:    "retry",
	Restart:  "restart",
	Stop:     "stop",
	Escalate: "escalate",
}

// String returns the action as it is spelled in log lines.
func (a Action) String() string {
	if a > 0 && int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action-%d", uint8(a))
}
