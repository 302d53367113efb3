package message

import "time"

// Operation is an operator's command to a node itself.
type Operation struct {
	Cmd string
	Arg OperationArg
}

// OperationArg are the arguments of an [Operation]; which of them count depends on its Cmd.
type OperationArg struct {
	Method        Method
	Kind          string
	ReceivingNode Node
	ID            int
	AllowedNodes  []Node
	MessageID     ID
	// OlderThan is counted from the acceptance of a message; 0 is no bound.
	OlderThan time.Duration
}

// The commands of an [Operation].
const (
	OpPs         = "ps"
	OpStartProc  = "startProc"
	OpStopProc   = "stopProc"
	OpClearQueue = "clearQueue"
)

// The kinds of process that an [Operation] starts and stops.
const (
	KindSubscriber = "subscriber"
	KindPublisher  = "publisher"
)
