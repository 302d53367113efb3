package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"steward/client"
	"steward/message"
)

// queueShown is what queue ls prints with -json.
type queueShown struct {
	Waiting []client.Stream `json:"waiting" doc:"what waits, by receiver and method"`
	GivenUp []client.Queued `json:"givenUp" doc:"what was given up, oldest first"`
	Removed []client.Queued `json:"removed" doc:"what somebody has removed, oldest first"`
}

func queueOperations() []operation {
	const which = "\nAll of -to, -method and -older that are given have to fit."
	return []operation{
		{
			name: "queue ls", also: "list", local: true, result: queueShown{},
			short: "what waits, by receiver and method, and what was given up or removed",
			about: `queue ls shows what waits on this node, by receiver and method, what was given up, and what somebody has removed. TRIES got no ACK so far, of how
many there are; - is for what somebody has taken off, of which that is not known. On a terminal, lines are cut off at its edge. queue list
is the same.` + which,
			example: "steward queue ls -to ship1",
			define:  filtered(false, queueList),
		},
		{
			name: "queue show", args: "[ID...]", most: -1, local: true, result: client.Queued{}, lines: true,
			short:   "the messages themselves",
			about:   "queue show prints messages that wait, in their order, or with -given-up those that were given up,\nwith -removed those that were removed, and with both both. An ID is enough for either." + which,
			example: "steward queue show -to ship1 -n 10\nsteward queue show -given-up 06h0cc2c8w0000012d09p1y690",
			define:  filtered(true, queueShow),
		},
		{
			name: "queue rm", also: "remove", args: "[ID...]", most: -1, local: true, result: client.Removed{}, lines: true,
			short: "take messages off, or forget what was given up",
			about: `queue rm takes messages off the queue. They end as removed, and are kept as that; with -given-up it is those that
were given up that are forgotten, with -removed those that were removed. A message that was under way may arrive all the same. queue
remove is the same.` + which,
			example: "steward queue rm 06h0cc2c8w0000012d09p1y690\nsteward queue rm -to ship1 -older 24h\nsteward queue rm -given-up -removed -all",
			define:  filtered(true, queueRemove),
		},
		{
			name: "queue retry", args: "[ID...]", most: -1, local: true, result: client.Retried{}, lines: true,
			short: "send again what was given up",
			about: `queue retry sends messages again that were given up. Each becomes a new message with an id of its own, which
is printed behind the old one; steward status of the old one names it too. What somebody has removed, by queue rm or at the
end of run, is left out, unless it is named by its ID or -removed is given.` + which,
			example: "steward queue retry 06h0cc2c8w0000012d09p1y690\nsteward queue retry -to ship1\nsteward queue retry -all",
			define:  filtered(false, queueRetry),
		},
	}
}

// filtered makes a definition with the flags that say which messages are meant; kept: those that wait no more, too.
func filtered(kept bool, do func(ctx context.Context, c *call, local *client.Client, f client.Filter, n int) error) func(*flag.FlagSet) func(context.Context, *call) error {
	return func(flags *flag.FlagSet) func(context.Context, *call) error {
		var f client.Filter
		flags.StringVar((*string)(&f.To), "to", "", "those for this `NODE`")
		flags.StringVar((*string)(&f.Method), "method", "", "those for this `METHOD`")
		durationVar(flags, &f.OlderThan, "older", 0, "those that were accepted longer than this `TIME` ago, such as 90s or 24h")
		if kept {
			flags.BoolVar(&f.GivenUp, "given-up", false, "those that were given up, in place of those that wait")
			flags.BoolVar(&f.Removed, "removed", false, "those that were removed, in place of those that wait")
		}
		n := 0
		switch flags.Name() {
		case "queue retry":
			flags.BoolVar(&f.Removed, "removed", false, "what was removed, too")
			fallthrough
		case "queue rm":
			flags.BoolVar(&f.All, "all", false, "all of them")
		default:
			flags.IntVar(&n, "n", 50, "the first `N` messages of a list; 0: all")
		}
		return func(ctx context.Context, c *call) error {
			f.IDs = c.args
			local, err := c.local(ctx)
			if err != nil {
				return err
			}
			defer local.Close()
			return do(ctx, c, local, f, n)
		}
	}
}

func queueList(ctx context.Context, c *call, local *client.Client, f client.Filter, n int) error {
	shown := queueShown{Waiting: []client.Stream{}}
	for s, err := range local.Queue(ctx, f) {
		if err != nil {
			return err
		}
		if f.OlderThan == 0 || time.Since(s.Accepted) > f.OlderThan {
			shown.Waiting = append(shown.Waiting, s)
		}
	}
	f.GivenUp = true
	givenUp, moreGivenUp, err := keptOf(ctx, local, f, n)
	if err != nil {
		return err
	}
	f.GivenUp, f.Removed = false, true
	removed, moreRemoved, err := keptOf(ctx, local, f, n)
	if err != nil {
		return err
	}
	shown.GivenUp, shown.Removed = givenUp, removed
	if c.json {
		return c.printJSON(shown)
	}
	if len(shown.Waiting)+len(shown.GivenUp)+len(shown.Removed) == 0 {
		fmt.Fprintln(c.out, "nothing waits, and nothing is kept that was given up")
		return nil
	}
	cut := false
	if len(shown.Waiting) > 0 {
		fmt.Fprintln(c.out, "waiting:")
		t := c.narrowTable("TO", "METHOD", "MSGS", "SIZE", "OLDEST", "TRIES", "NEXT", "WHY")
		for _, s := range shown.Waiting {
			tries, next, why := "", "", ""
			if d := s.Delivery; d != nil {
				tries, why = fmt.Sprint(d.Attempts), d.Reason
				if d.Retries > 0 {
					tries += fmt.Sprintf("/%d", d.Retries)
				}
				if d.Next != nil {
					next = "in " + span(max(0, time.Until(*d.Next)))
				}
				if !d.Linked {
					why = "no link to the broker"
				}
			}
			t.row(s.To, s.Method, s.Messages, size(s.Bytes), span(time.Since(s.Accepted)), tries, next, why)
		}
		if err := t.flush(); err != nil {
			return err
		}
		cut = t.isCut()
	}
	lists := 0
	if len(shown.Waiting) > 0 {
		lists++
	}
	for _, kept := range []struct {
		name string
		all  []client.Queued
		more bool
	}{{"given up", shown.GivenUp, moreGivenUp}, {"removed", shown.Removed, moreRemoved}} {
		if len(kept.all) == 0 {
			continue
		}
		if lists++; lists > 1 {
			fmt.Fprintln(c.out)
		}
		fmt.Fprintln(c.out, kept.name+":")
		t := c.narrowTable("ID", "TO", "METHOD", "AGO", "TRIES", "WHY")
		for _, q := range kept.all {
			tries := ""
			if attemptsKnown(&q) {
				tries = fmt.Sprint(q.Attempts)
			}
			t.row(q.ID, q.To, q.Method, span(time.Since(*q.GivenUp)), tries, string(q.Code)+": "+q.Text)
		}
		if err := t.flush(); err != nil {
			return err
		}
		cut = cut || t.isCut()
		if kept.more {
			fmt.Fprintf(c.out, "and more; -n 0 shows all\n")
		}
	}
	if cut {
		fmt.Fprintln(c.err, "hint: steward queue | cat cuts nothing off; steward queue show shows the messages themselves")
	}
	return nil
}

// keptOf returns the first n of what is kept and fits, and whether there are more; n being 0, all.
func keptOf(ctx context.Context, local *client.Client, f client.Filter, n int) (kept []client.Queued, more bool, err error) {
	kept = []client.Queued{}
	ask := n
	if n > 0 {
		ask++ // to see whether there are more
	}
	for q, err := range local.Queued(ctx, f, ask) {
		if err != nil {
			return nil, false, err
		}
		if n > 0 && len(kept) == n {
			return kept, true, nil
		}
		kept = append(kept, q)
	}
	return kept, false, nil
}

// attemptsKnown says whether the attempts of a message that was given up were counted: who takes one off the queue does
// not know how many its publisher has made.
func attemptsKnown(q *client.Queued) bool { return q.Attempts > 0 || q.Code != message.CodeRemoved }

func queueShow(ctx context.Context, c *call, local *client.Client, f client.Filter, n int) error {
	shown := 0
	for q, err := range local.Queued(ctx, f, n) {
		if err != nil {
			return err
		}
		shown++
		if err := showQueued(c, &q, shown == 1); err != nil {
			return err
		}
	}
	if shown == 0 {
		return nothing(f)
	}
	return nil
}

// showQueued prints a message in full.
func showQueued(c *call, q *client.Queued, first bool) error {
	if c.json {
		return c.printJSON(q)
	}
	if !first {
		fmt.Fprintln(c.out)
	}
	fmt.Fprintf(c.out, "%s  %s to %s, accepted %s ago\n", q.ID, q.Method, q.To, span(time.Since(q.Accepted)))
	if q.GivenUp != nil {
		after := ""
		if attemptsKnown(q) {
			after = ", after " + count(q.Attempts, "attempt")
		}
		end := "given up"
		if q.Code == message.CodeRemoved {
			end = "removed"
		}
		fmt.Fprintf(c.out, "%s %s ago%s: %s: %s\n", end, span(time.Since(*q.GivenUp)), after, q.Code, q.Text)
	}
	if q.Bytes > 0 {
		fmt.Fprintf(c.out, "a reply, with %s in its body\n", size(uint64(q.Bytes)))
	}
	var text bytes.Buffer
	if err := json.Indent(&text, q.Message, "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.out, text.String())
	return err
}

// nothing is the error for a filter that no message fits.
func nothing(f client.Filter) error {
	what := "waits"
	hint := "steward queue shows what waits; with -given-up it is about what was given up, with -removed about what was removed"
	switch {
	case f.GivenUp && f.Removed:
		what, hint = "was given up or removed", "steward queue shows what was"
	case f.Removed:
		what, hint = "was removed", "steward queue shows what was removed"
	case f.GivenUp:
		what, hint = "was given up", "steward queue shows what was given up"
	}
	if len(f.IDs) == 1 {
		return hinted{fmt.Errorf("no message %s %s", message.Quote(f.IDs[0]), what), "steward status " + f.IDs[0] + " says where it is"}
	}
	return hinted{errors.New("nothing that fits " + what), hint}
}

func queueRemove(ctx context.Context, c *call, local *client.Client, f client.Filter, _ int) error {
	removed, err := local.Remove(ctx, f)
	total := 0
	for _, r := range removed {
		total += r.Messages
		if c.json {
			err = errors.Join(err, c.printJSON(r))
			continue
		}
		did := "removed"
		if r.GivenUp {
			did = "forgot"
		}
		_, werr := fmt.Fprintf(c.out, "%s %s: %s to %s\n", did, count(r.Messages, "message"), r.Method, r.To)
		err = errors.Join(err, werr)
	}
	if err == nil && total == 0 {
		return nothing(f)
	}
	return err
}

func queueRetry(ctx context.Context, c *call, local *client.Client, f client.Filter, _ int) error {
	retried, leftOut, err := local.Retry(ctx, f)
	for _, r := range append(retried, leftOut...) {
		switch {
		case c.json:
			err = errors.Join(err, c.printJSON(r))
		case !r.LeftOut:
			_, werr := fmt.Fprintf(c.out, "%s %s  %s to %s\n", r.ID, r.NewID, r.Method, r.To)
			err = errors.Join(err, werr)
		}
	}
	switch n := len(leftOut); {
	case n == 1:
		fmt.Fprintln(c.err, "1 that was removed is left out; name it by its id, or give -removed")
	case n > 1:
		fmt.Fprintf(c.err, "%d that were removed are left out; name them by their ids, or give -removed\n", n)
	}
	switch {
	case err != nil || len(retried) > 0:
		return err
	case len(leftOut) > 0:
		return errors.New("nothing else that fits was given up")
	}
	f.GivenUp = true
	return nothing(f)
}
