package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"steward/client"
	"steward/message"
)

// ran is what run prints with -json for each node.
type ran struct {
	Node   message.Node  `json:"node"`
	ID     message.ID    `json:"id" doc:"of the message"`
	State  message.State `json:"state" doc:"done, failed, expired or removed; accepted or delivered when nobody waits for the end"`
	Code   message.Code  `json:"code,omitempty" doc:"how it ended, in one word"`
	Text   string        `json:"text,omitempty" doc:"why, for people"`
	Exit   int           `json:"exit" doc:"exit status of the command"`
	Stdout string        `json:"stdout" doc:"what it wrote there"`
	Stderr string        `json:"stderr" doc:"the beginning of what it wrote there"`
}

func runOperation() operation {
	return operation{
		name: "run", args: "NODE[,NODE...] [--] COMMAND [ARG...]", least: 2, most: -1, takesCommand: true, local: true, result: ran{}, lines: true, values: "nodes",
		short: "run a command on other nodes, and print what it writes",
		about: `run has nodes run a command, and prints what it writes on stdout, before each line the node when there are
several, and then the beginning of what it wrote on stderr. The messages are kept until a node is there to take them; Ctrl-C
leaves them so, and says how to take them back. Commands for one node run one after the other. The command is no line for a shell:
sh -c 'LINE' is one.`,
		example: "steward run ship1 -- df -h\nsteward run -timeout 1m ship1,ship2 -- systemctl restart ntp\nsteward run -stream -timeout 1h ship1 -- tail -f /var/log/syslog\nsteward run -detach ship1 -- apt-get -y upgrade",
		exits:   "of one node: that of its command; of several: 1 some failed; 3 some nodes did not answer, 4 denied, 5 timed out",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			var r runner
			flags.BoolVar(&r.stream, "stream", false, "print what is written while the command runs, which then waits for no other one there")
			flags.BoolVar(&r.detach, "detach", false, "print the ids of the messages and wait for nothing")
			flags.DurationVar(&r.timeout, "timeout", 0, "`TIME` after which nobody waits, what was not delivered is not run, and the command is ended (default: wait for ever, and end the command when the node's defaultMethodTimeout says so)")
			return r.run
		},
	}
}

// runner runs commands on nodes.
type runner struct {
	stream, detach bool
	timeout        time.Duration
}

func (r *runner) run(ctx context.Context, c *call) (err error) {
	if r.timeout < 0 {
		return usageError{errors.New("-timeout is negative")}
	}
	m := client.Command{Nodes: nodesOf(c.args[0]), Args: c.args[1:], Stream: r.stream, Timeout: r.timeout}.Message()
	e, err := c.ask(ctx, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if r.detach {
		return c.detached(e)
	}
	bounded := ctx
	if r.timeout > 0 {
		var cancel func()
		bounded, cancel = context.WithTimeout(ctx, inWhole(r.timeout))
		defer cancel()
	}
	shown := c.outputOf(e)
	err = e.wait(bounded, shown.write, func(x *errand, a *client.Away) { c.tellAway("run", x, a, "the message waits") })
	switch {
	case ctx.Err() != nil:
		c.left(e)
		return ctx.Err()
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if err := shown.end(); err != nil {
		return err
	}
	return c.outcome(e, shown)
}

// detached says what was handed in.
func (c *call) detached(e *errands) error {
	for _, x := range e.all {
		if c.json {
			if err := c.printJSON(ran{Node: x.Node, ID: x.ID, State: message.StateAccepted}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(c.out, "%s %s\n", x.ID, x.Node)
	}
	fmt.Fprintf(c.err, "steward status ID says where it is; what the commands write lands in %s\n", strings.Replace(e.all[0].File, string(e.all[0].Node), "NODE", 1))
	return nil
}

// left says what becomes of messages that nobody waits for any more.
func (c *call) left(e *errands) {
	for _, x := range e.all {
		if !x.status.Ended {
			fmt.Fprintf(c.err, "steward: run: message %s for %s stays; its output lands in %s\nhint: steward status %s says where it is, steward queue rm %s takes it back as long as it waits\n",
				x.ID, x.Node, x.File, x.ID, x.ID)
		}
	}
}

// outcome prints what is known of the ends, and is the error for those that were not good.
func (c *call) outcome(e *errands, shown *outputs) error {
	codes := map[int]bool{}
	for _, x := range e.all {
		l := x.status.Sent
		why, code := x.failed("is not run any more")
		if l == nil { // the history has forgotten it
			l = &client.Life{}
		}
		if c.json {
			if err := c.printJSON(ran{Node: x.Node, ID: x.ID, State: l.State, Code: l.Code, Text: l.Text, Exit: l.Exit, Stdout: shown.kept[x].String(), Stderr: l.Stderr}); err != nil {
				return err
			}
		} else if l.Stderr != "" {
			w := prefixed{w: c.err, prefix: shown.prefix(x)}
			w.write([]byte(strings.TrimSuffix(l.Stderr, "\n") + "\n"))
		}
		if code == exitDone {
			continue
		}
		command := code == exitFailed && l.Exit != 0 && len(e.all) == 1
		if command {
			code = l.Exit // what it says is said
		} else if !c.json {
			fmt.Fprintf(c.err, "steward: run: %s: %s\n", x.Node, strings.Join(strings.Fields(why), " "))
		}
		codes[code] = true
	}
	return exitOf(codes)
}

// outputs print what comes from several nodes, line by line, or of one as it is.
type outputs struct {
	c       *call
	several bool
	lines   map[*errand]*prefixed
	kept    map[*errand]*bytes.Buffer // with -json
}

func (c *call) outputOf(e *errands) *outputs {
	o := &outputs{c: c, several: len(e.all) > 1, lines: map[*errand]*prefixed{}, kept: map[*errand]*bytes.Buffer{}}
	for _, x := range e.all {
		o.lines[x] = &prefixed{w: c.out, prefix: o.prefix(x)}
		o.kept[x] = new(bytes.Buffer)
	}
	return o
}

func (o *outputs) prefix(x *errand) string {
	if !o.several {
		return ""
	}
	return string(x.Node) + ": "
}

func (o *outputs) write(x *errand, piece []byte) error {
	if o.c.json {
		o.kept[x].Write(piece)
		return nil
	}
	return o.lines[x].write(piece)
}

// end prints what is behind the last whole line.
func (o *outputs) end() error {
	for _, p := range o.lines {
		if len(p.rest) > 0 {
			if err := p.write([]byte{'\n'}); err != nil {
				return err
			}
		}
	}
	return nil
}

// prefixed writes whole lines behind a prefix, or anything at once without one.
type prefixed struct {
	w      io.Writer
	prefix string
	rest   []byte
}

func (p *prefixed) write(piece []byte) error {
	if p.prefix == "" {
		_, err := p.w.Write(piece)
		return err
	}
	p.rest = append(p.rest, piece...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 {
			return nil
		}
		if _, err := fmt.Fprintf(p.w, "%s%s\n", p.prefix, p.rest[:i]); err != nil {
			return err
		}
		p.rest = p.rest[i+1:]
	}
}
