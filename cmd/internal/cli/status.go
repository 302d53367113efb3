package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"steward/client"
	"steward/message"
)

func statusOperation() operation {
	return operation{
		name: "status", args: "ID", least: 1, most: 1, local: true, result: client.Status{},
		short: "where a message is, and how it ended",
		about: `status says where a message is, and how it ended: when it was accepted, delivered, run and answered,
or for what it waits, and in which file here its reply is stored. It asks the node that runs here, which knows the messages that it has accepted and those
that came to it. The first characters of an id are enough when no other one begins with them.`,
		example: "steward status 06h0cc2c8w0000012d09p1y690\nsteward status -wait -timeout 1m 06h0cc2c8w0000012d09p1y690",
		exits:   "with -wait: 1 it failed, 3 it was not delivered, 4 denied, 5 timed out",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			wait := flags.Bool("wait", false, "wait until it has ended")
			timeout := duration(flags, "timeout", 0, "give up waiting after this `TIME`, such as 90s or 10m (default: never)")
			return func(ctx context.Context, c *call) error { return status(ctx, c, *wait, *timeout) }
		},
	}
}

func status(ctx context.Context, c *call, wait bool, timeout time.Duration) error {
	local, err := c.local(ctx)
	if err != nil {
		return err
	}
	defer local.Close()
	bounded := ctx
	if wait && timeout > 0 {
		var cancel func()
		bounded, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	st, err := local.Find(bounded, c.args[0])
	if err == nil && wait {
		st, err = local.Wait(bounded, st.ID)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitError{hinted{fmt.Errorf("%s has not ended after %v", c.args[0], timeout), "steward status " + c.args[0] + " says for what it waits"}, exitTimeout}
	}
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(st)
	} else {
		receiver := ""
		if l := st.Sent; l != nil && l.State == message.StateAccepted {
			receiver = c.acquaintance(ctx, local).missing(l.Peer)
		}
		err = printStatus(c, &st, receiver)
	}
	if l := st.Life(); l.Code == message.CodeTimeout && !c.json {
		fmt.Fprintln(c.err, "hint: run -timeout, or methodTimeout in a message, gives it longer")
	}
	if err != nil || !wait {
		return err
	}
	if why, code := howEnded(&st); code != exitDone {
		return exitError{errors.New(why), code}
	}
	return nil
}

// howEnded says of a message that has ended why it did not end well, and with which exit code; 0 when it did.
func howEnded(st *client.Status) (why string, code int) {
	l := st.Life()
	why = strings.TrimSuffix(string(l.Code)+": "+l.Text, ": ")
	switch {
	case l.State == message.StateDone:
		return "", exitDone
	case l.Code == message.CodeDenied:
		return why, exitDenied
	case l.Code == message.CodeTimeout:
		return why, exitTimeout
	case l.Code == message.CodeUnreachable, l.State == message.StateExpired, l.State == message.StateRemoved:
		return why, exitNoAnswer
	}
	return why, exitFailed
}

// printStatus prints what is known of a message, with what is to be said of its receiver.
func printStatus(c *call, st *client.Status, receiver string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	l := st.Life()
	from, to := st.Node, l.Peer
	if st.Sent == nil {
		from, to = l.Peer, st.Node
	}
	fmt.Fprintf(w, "message\t%s\n", st.ID)
	fmt.Fprintf(w, "method\t%s\n", l.Method)
	fmt.Fprintf(w, "from\t%s\n", from)
	fmt.Fprintf(w, "to\t%s\n", to)
	fmt.Fprintf(w, "state\t%s\n", stateText(st, l))
	if receiver != "" {
		fmt.Fprintf(w, "node\t%s\n", receiver)
	}
	if st.Message != nil {
		fmt.Fprintf(w, "text\t%s\n", st.Message)
	}
	if l.Stderr != "" {
		fmt.Fprintf(w, "stderr\t%s\n", strings.Join(strings.Fields(l.Stderr), " "))
	}
	if st.File != "" {
		fmt.Fprintf(w, "reply\t%s\n", oneLineKeeping(st.File))
	}
	if st.GivenUp {
		fmt.Fprintf(w, "again\tsteward queue retry %s\n", st.ID)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(c.out)
	w = tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, s := range timeline(st) {
		since := ""
		if d := s.at.Sub(st.Accepted); d != 0 {
			since = "+" + span(d)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", clock(s.at), since, s.what)
	}
	return w.Flush()
}

// stateText says in a line where a message is.
func stateText(st *client.Status, l *client.Life) string {
	switch l.State {
	case message.StateAccepted:
		return "waits for " + string(l.Peer) + deliveryText(st.Delivery)
	case message.StateDelivered:
		return "delivered; its reply is awaited" + because(l)
	case message.StateReceived:
		if l.Started != nil {
			return fmt.Sprintf("runs, for %s now", span(time.Since(*l.Started)))
		}
		return "received; it waits for its turn"
	}
	return string(l.State) + because(l)
}

func because(l *client.Life) string {
	why := l.Text
	if l.Code != "" && message.EndOf(l.Code) == l.State && string(l.Code) != string(l.State) {
		why = strings.TrimSuffix(string(l.Code)+": "+why, ": ")
	}
	if why == "" {
		return ""
	}
	return ": " + strings.Join(strings.Fields(why), " ")
}

// deliveryText says how a delivery stands.
func deliveryText(d *client.Delivery) string {
	if d == nil {
		return ""
	}
	text := ""
	if d.Attempts > 0 {
		text = fmt.Sprintf("; no ACK in %s%s", count(d.Attempts, "attempt"), of(d.Retries))
	}
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	switch {
	case !d.Linked:
		text += "; there is no link to the broker"
	case d.Next != nil:
		text += "; the next attempt is in " + span(max(0, time.Until(*d.Next)))
	}
	return text
}

func of(retries int) string {
	if retries == 0 {
		return ""
	}
	return fmt.Sprintf(" of %d", retries)
}

// moment is one step in the life of a message.
type moment struct {
	at   time.Time
	what string
}

func timeline(st *client.Status) []moment {
	var all []moment
	add := func(at *time.Time, format string, args ...any) {
		if at != nil {
			all = append(all, moment{*at, fmt.Sprintf(format, args...)})
		}
	}
	from := st.Node
	if st.Sent == nil {
		from = st.Received.Peer
	}
	add(&st.Accepted, "accepted by %s", from)
	if l := st.Sent; l != nil {
		attempts := ""
		if l.Attempts > 1 {
			attempts = " after " + count(l.Attempts-1, "attempt") + " without an ACK"
		}
		add(l.Delivered, "delivered to %s%s", l.Peer, attempts)
		if st.Received == nil {
			began, but := turnOf(l)
			add(l.Started, "%s on %s, by its clock%s", began, l.Peer, but)
		}
		switch {
		case l.Ended == nil:
		case l.Reply && l.Started != nil:
			add(l.Ended, "its reply was here: %s%s", l.State, because(l))
		default:
			add(l.Ended, "%s%s", l.State, because(l))
		}
	}
	if l := st.Received; l != nil {
		began, but := turnOf(l)
		add(l.Started, "%s here%s%s", began, runText(l.Attempts), but)
		add(l.Ended, "ended here: %s%s", l.State, because(l))
	}
	if st.Sent != nil && st.Received != nil { // all of it by one clock
		slices.SortStableFunc(all, func(a, b moment) int { return a.at.Compare(b.at) })
	}
	return all
}

// turnOf says what happened when the turn of a message came.
func turnOf(l *client.Life) (began, but string) {
	if l.Code == message.CodeExpired || l.Code == message.CodeDenied {
		return "its turn came", "; not run"
	}
	return "started", ""
}

func runText(attempt int) string {
	if attempt < 2 {
		return ""
	}
	return fmt.Sprintf(", run %d", attempt)
}
