package client

import (
	"encoding/json"
	"net/url"
	"time"

	"steward/message"
)

// The sockets of a node, in its socket folder.
const (
	MessageSocket = "steward.sock" // takes messages
	ControlSocket = "control.sock" // answers questions
)

// NodeInfo is what a node says of itself.
type NodeInfo struct {
	Node       message.Node `json:"node" doc:"its name"`
	Central    message.Node `json:"central" doc:"the node that gets errors and hellos"`
	Version    string       `json:"version" doc:"of the program"`
	Linked     bool         `json:"linked" doc:"whether there is a link to the broker"`
	Signatures string       `json:"signatures" doc:"off, sign or require: then nothing is taken from a node of which no key is trusted, no ACK either"`
	// MethodTimeout is defaultMethodTimeout, as it is now.
	MethodTimeout int `json:"methodTimeout" doc:"seconds after which a method is ended when its message does not say"`
	// DataFolder is the folder below which methods write files, from the root of the file system on.
	DataFolder string `json:"dataFolder" doc:"the folder below which methods write files"`
}

// Status is what a node knows of one message.
type Status struct {
	ID       message.ID      `json:"id" doc:"of the message"`
	Node     message.Node    `json:"node" doc:"the node that was asked"`
	Accepted time.Time       `json:"accepted" doc:"when it was accepted, by the clock of its sender"`
	Ended    bool            `json:"ended" doc:"whether it has ended as far as this node has to do with it"`
	Sent     *Life           `json:"sent,omitempty" doc:"its way to the receiver, if it was accepted here"`
	Received *Life           `json:"received,omitempty" doc:"its run here, if it came to this node"`
	Delivery *Delivery       `json:"delivery,omitempty" doc:"the attempt to deliver it that is under way"`
	GivenUp  bool            `json:"givenUp" doc:"whether it is kept among what was given up, and can be sent again"`
	Message  json.RawMessage `json:"message,omitempty" doc:"the message as it can be sent, as long as it waits, runs, or is kept"`
	Bytes    int             `json:"bytes,omitempty" doc:"size of the body of a reply"`
	File     string          `json:"file,omitempty" doc:"the file on this node in which its reply is stored, if it is there"`
}

// Life is what is known of a message at one node.
type Life struct {
	Peer      message.Node   `json:"peer" doc:"the other node"`
	Method    message.Method `json:"method"`
	State     message.State  `json:"state" doc:"accepted, delivered, received, done, failed, expired or removed"`
	Code      message.Code   `json:"code,omitempty" doc:"how it ended, in one word"`
	Text      string         `json:"text,omitempty" doc:"why, for people"`
	Exit      int            `json:"exit,omitempty" doc:"exit status of a command that failed"`
	Stderr    string         `json:"stderr,omitempty" doc:"the beginning of what a command wrote there"`
	Attempts  int            `json:"attempts,omitempty" doc:"to deliver it, or to run it"`
	Reply     bool           `json:"reply,omitempty" doc:"whether a reply is awaited"`
	Delivered *time.Time     `json:"delivered,omitempty" doc:"when its ACK came"`
	Started   *time.Time     `json:"started,omitempty" doc:"when its run began, or its turn came if it was not run, by the clock of the node that ran it"`
	Ended     *time.Time     `json:"ended,omitempty" doc:"when it ended"`
}

// Delivery is how the delivery of a message stands.
type Delivery struct {
	Attempts int        `json:"attempts" doc:"attempts without an ACK since the node started"`
	Retries  int        `json:"retries" doc:"attempts that there are, 0 for no end"`
	Next     *time.Time `json:"next,omitempty" doc:"when the attempt, or the wait before the next one, is over"`
	Reason   string     `json:"reason,omitempty" doc:"why there was no ACK, as far as that is known"`
	Denied   bool       `json:"denied,omitempty" doc:"that is that the broker does not let this node send there"`
	Linked   bool       `json:"linked" doc:"whether there is a link to the broker"`
}

// Stream is what waits for one method of one node.
type Stream struct {
	To       message.Node   `json:"to"`
	Method   message.Method `json:"method"`
	Messages uint64         `json:"messages" doc:"how many wait"`
	Bytes    uint64         `json:"bytes"`
	Oldest   message.ID     `json:"oldest" doc:"id of the first one"`
	Accepted time.Time      `json:"accepted" doc:"when that was accepted"`
	Delivery *Delivery      `json:"delivery,omitempty" doc:"how its delivery stands"`
}

// Queued is a message that waits, or was given up.
type Queued struct {
	ID       message.ID      `json:"id"`
	To       message.Node    `json:"to"`
	Method   message.Method  `json:"method"`
	Accepted time.Time       `json:"accepted"`
	GivenUp  *time.Time      `json:"givenUp,omitempty" doc:"when it was given up; absent for one that waits"`
	Code     message.Code    `json:"code,omitempty" doc:"why, in one word"`
	Text     string          `json:"text,omitempty" doc:"why, for people"`
	Attempts int             `json:"attempts,omitempty" doc:"attempts to deliver it; absent for one that waits, or was removed"`
	Message  json.RawMessage `json:"message" doc:"as it can be sent"`
	Bytes    int             `json:"bytes,omitempty" doc:"size of the body of a reply"`
}

// Removed says how many messages of a stream were removed, or forgotten.
type Removed struct {
	To       message.Node   `json:"to"`
	Method   message.Method `json:"method"`
	Messages int            `json:"messages"`
	GivenUp  bool           `json:"givenUp" doc:"they had been given up, or removed before, and are forgotten"`
}

// Retried is a message that was given up and is sent again, or is left out of that.
type Retried struct {
	ID      message.ID     `json:"id" doc:"under which it was given up"`
	NewID   message.ID     `json:"newID,omitzero" doc:"under which it is sent again; absent for one that is left out"`
	To      message.Node   `json:"to"`
	Method  message.Method `json:"method"`
	LeftOut bool           `json:"leftOut,omitempty" doc:"it is not sent again: somebody has removed it, and neither its id nor -removed was given"`
}

// Key says what is known of the keys of a node.
type Key string

// What there is to know of them.
const (
	KeyTrusted Key = "trusted" // one of them is
	KeyToken   Key = "token"   // there is a token for it that nobody has used yet
	KeyRevoked Key = "revoked" // all are revoked
)

// Peer is a node that is known here: by a key or a token, by a hello or anything else that came of it, or since something waits for it.
type Peer struct {
	Node    message.Node `json:"node"`
	Key     Key          `json:"key,omitempty" doc:"trusted; token: nobody has used its token yet; revoked; absent when there is none"`
	Heard   *time.Time   `json:"heard,omitempty" doc:"when something of it came here last: an ACK or a message, since the node started, or a hello"`
	Hello   *time.Time   `json:"hello,omitempty" doc:"when its last hello was sent"`
	Version string       `json:"version,omitempty" doc:"which it said it has"`
	Text    string       `json:"text,omitempty" doc:"what else it said"`
	Waiting uint64       `json:"waiting" doc:"messages that wait for it"`
	Oldest  *time.Time   `json:"oldest,omitempty" doc:"when the oldest of them was accepted"`
}

// Run is a method that runs.
type Run struct {
	ID      message.ID     `json:"id" doc:"of the message"`
	From    message.Node   `json:"from"`
	Method  message.Method `json:"method"`
	Data    []string       `json:"data,omitempty" doc:"its arguments; long ones are cut off"`
	Started time.Time      `json:"started"`
	Attempt int            `json:"attempt" doc:"1, or more when it was run before"`
}

// Traffic is what was delivered on a stream.
type Traffic struct {
	To       message.Node   `json:"to"`
	Method   message.Method `json:"method"`
	Messages uint64         `json:"messages" doc:"how many were acknowledged since the stream was needed last"`
	Bytes    uint64         `json:"bytes" doc:"of these, as they went over the link, compressed"`
}

// Process is a process of a node and what it supervises, as it was at one moment.
type Process struct {
	Name     string    `json:"name"`
	ID       int64     `json:"id,omitempty" doc:"by which stopProc knows it"`
	State    string    `json:"state" doc:"starting, running, backoff, stopping, stopped, or done for what has done its work"`
	Since    time.Time `json:"since" doc:"when the state began"`
	Restarts int       `json:"restarts,omitempty" doc:"since it was added"`
	Error    string    `json:"error,omitempty" doc:"its latest failure"`
	Children []Process `json:"children,omitempty" doc:"what it supervises, with the same keys"`
}

// Filter says which messages of the queue are meant. All that is set has to fit.
type Filter struct {
	IDs       []string // whole, or their beginnings
	To        message.Node
	Method    message.Method
	OlderThan time.Duration // since acceptance
	// GivenUp: those that were given up, and not those that wait. By a filter without IDs, what somebody has removed is not among them.
	GivenUp bool
	// Removed: those that somebody has removed, and not those that wait; with GivenUp both.
	Removed bool
	// All has to be set for what changes messages when nothing else is.
	All bool
}

func (f *Filter) values() url.Values {
	v := url.Values{"id": f.IDs}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("to", string(f.To))
	set("method", string(f.Method))
	if f.OlderThan != 0 {
		set("olderThan", f.OlderThan.String())
	}
	for name, is := range map[string]bool{"givenUp": f.GivenUp, "removed": f.Removed, "all": f.All} {
		if is {
			set(name, "true")
		}
	}
	return v
}
