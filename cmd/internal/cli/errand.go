package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"steward/client"
	"steward/message"
)

const (
	// lookPatience is how long it may take to ask where messages are when nobody waits any more.
	lookPatience = 5 * time.Second
	// lastWord is how long the nodes have, after a time that they keep to themselves, to say how it ended.
	lastWord = time.Second
)

// errands are messages that a command hands in, one for each of several nodes, and whose replies it waits for.
type errands struct {
	local   *client.Client
	replies *client.Replies
	all     []*errand
	byID    map[message.ID]*errand
}

// errand is one of them.
type errand struct {
	client.Sent
	status client.Status
	within time.Duration // in which it is to begin, and then to end; 0: as the node says
	wrote  atomic.Bool   // something came of it, so it has begun: nothing else says so before the end
}

// nodesOf reads nodes as they are given on a command line.
func nodesOf(list string) (nodes []message.Node) {
	for name := range strings.SplitSeq(list, ",") {
		nodes = append(nodes, message.Node(name))
	}
	return nodes
}

// inWhole is how long a command waits for nodes that have d.
func inWhole(d time.Duration) time.Duration {
	whole := d.Truncate(time.Second)
	if whole < d {
		whole += time.Second // as it is in messages
	}
	return whole + lastWord
}

// ask hands in a message for each of its nodes.
func (c *call) ask(ctx context.Context, m client.Message) (*errands, error) {
	local, err := c.local(ctx)
	if err != nil {
		return nil, err
	}
	replies, err := local.Ask(ctx, m)
	if err != nil {
		local.Close()
		if errors.Is(err, message.ErrInvalid) {
			err = usageError{err}
		}
		return nil, err
	}
	e := &errands{local: local, replies: replies, byID: map[message.ID]*errand{}}
	for _, sent := range replies.Sent() {
		x := &errand{Sent: sent, within: m.TTL}
		e.all, e.byID[sent.ID] = append(e.all, x), x
	}
	return e, nil
}

// wait waits until all have ended, or ctx does; in any case each has its status then. Whatever comes of a reply is
// written with output, in pieces; away, if not nil, is called once for each node that does not take its message.
func (e *errands) wait(ctx context.Context, output func(x *errand, piece []byte) error, away func(x *errand, a *client.Away)) error {
	for part, err := range e.replies.Parts(ctx) {
		if err != nil {
			return errors.Join(err, e.look(context.WithoutCancel(ctx)))
		}
		x := e.byID[part.ID]
		switch {
		case part.End != nil:
			x.status = *part.End
		case part.Away == nil:
			x.wrote.Store(true)
			if err := output(x, part.Output); err != nil {
				return err
			}
		case away != nil:
			away(x, part.Away)
		}
	}
	return nil
}

// look asks where those messages are of which the end is not known.
func (e *errands) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	for _, x := range e.all {
		if x.status.Ended {
			continue
		}
		var err error
		if x.status, err = e.local.Status(ctx, x.ID); err != nil {
			return err
		}
	}
	return nil
}

// close gives back what is held.
func (e *errands) close() error {
	e.local.Close()
	return e.replies.Close()
}

// drop is close for what makes no sense any more when nobody waits for it.
func (e *errands) drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookPatience)
	defer cancel()
	return errors.Join(e.replies.Withdraw(ctx), e.close())
}

// tellAway says that a node does not take its message, and what becomes of that.
func (c *call) tellAway(command string, x *errand, a *client.Away, then string) {
	if !a.Linked {
		fmt.Fprintf(c.err, "steward: %s: %s: there is no link to the broker; %s\n", command, x.Node, then)
		return
	}
	if a.Denied {
		fmt.Fprintf(c.err, "steward: %s: %s; %s\nhint: %s\n", command, a.Reason, then, hintReach)
		return
	}
	last := cmp.Or(ofKey(a.Key), ", and was not heard of since this node started")
	if a.Heard != nil {
		last = fmt.Sprintf(", and was heard of last %s ago%s", span(time.Since(*a.Heard)), ofKey(a.Key))
	}
	fmt.Fprintf(c.err, "steward: %s: %s does not answer%s; %s: %s\n", command, x.Node, last, then, a.Reason)
}

// hintReach is for a broker that does not let a node send.
const hintReach = "by default nodes may send to central only, and no commands: embeddedBrokerReach on central, or the permissions at another broker, say who may send what"

// ofKey says which keys of a node are why it does not answer, if they are.
func ofKey(k client.Key) string {
	switch k {
	case client.KeyRevoked:
		return ", its keys are revoked here"
	case client.KeyToken:
		return ", and nobody has used its token yet"
	}
	return ""
}

// notRun is what becomes of a command that was not delivered in time.
const notRun = "is not run any more, unless steward queue retry sends it again"

// ends are the words of end, in the order in which they are counted.
var ends = []string{"done", "failed", "denied", "timed out", "interrupted", "not delivered", "not run in time", "taken back", "without an answer"}

// end says in a word or two how an errand has ended, or where it was left.
func (x *errand) end() string {
	l := x.status.Sent
	switch {
	case l == nil:
		return "without an answer"
	case l.State == message.StateDone:
		return "done"
	case l.State == message.StateExpired && l.Delivered != nil:
		return "not run in time"
	case l.State == message.StateExpired, l.State == message.StateAccepted, l.Code == message.CodeUnreachable:
		return "not delivered"
	case l.State == message.StateRemoved:
		return "taken back"
	case l.Code == message.CodeDenied:
		return "denied"
	case l.Code == message.CodeTimeout:
		return "timed out"
	case l.Code == message.CodeInterrupted:
		return "interrupted"
	case x.status.Ended:
		return "failed"
	}
	return "without an answer"
}

// failed says why an errand did not end well, and with which exit code; 0 when it did. undelivered is what becomes of one that
// was not delivered in time.
func (x *errand) failed(undelivered string) (why string, code int) {
	return x.failedAt(&x.status, undelivered)
}

// failedAt is failed for what was known at some moment.
func (x *errand) failedAt(st *client.Status, undelivered string) (why string, code int) {
	l := st.Sent
	switch {
	case l == nil:
		return "no answer", exitNoAnswer
	case l.State == message.StateExpired && l.Delivered != nil:
		return fmt.Sprintf("delivered, but its turn did not come in time: message %s is not run any more", x.ID), exitNoAnswer
	case l.State == message.StateExpired:
		_, why, known := strings.Cut(l.Text, "; last: ")
		if known {
			why = ": " + why
		}
		return fmt.Sprintf("not delivered in time: message %s %s%s", x.ID, undelivered, why), exitNoAnswer
	case st.Ended:
		return howEnded(st)
	case l.State != message.StateAccepted && x.wrote.Load():
		return fmt.Sprintf("it runs, but did not end in %v: message %s is cut off %[1]v after it began, and what else it writes lands in %[3]s", x.within, x.ID, x.File), exitTimeout
	case l.State != message.StateAccepted:
		return fmt.Sprintf("delivered, but it did not get its turn, or did not end, in %v: if it has not begun by then message %s is not run, else it is cut off %[1]v after it began, and what it writes lands in %[3]s; steward status %[2]s says which%[4]s",
			x.within, x.ID, x.File, because(l)), exitTimeout
	}
	if d := st.Delivery; d != nil && !d.Linked {
		why = ": there is no link to the broker"
	} else if d != nil && d.Reason != "" {
		why = ": " + d.Reason
	}
	return fmt.Sprintf("not delivered in time: message %s %s%s", x.ID, undelivered, why), exitNoAnswer
}
