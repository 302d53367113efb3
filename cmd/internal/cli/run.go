package cli

import (
	"bufio"
	"bytes"
	"cmp"
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
several, and then the beginning of what it wrote on stderr. The messages are kept until a node is there to take them, and run waits for
as long as that takes, be it for ever: in a script say -timeout, or -detach. Ctrl-C
leaves them so, and says how to take them back. On a terminal a line for each node says how it stands, and Ctrl-C
asks whether to take back what was not delivered. Commands for one node run one after the other, and each is ended after 10s (defaultMethodTimeout
of the node that runs here) unless -timeout gives it longer. A command gets no standard input, and is no line for a shell: sh -c 'LINE' is one.`,
		example: "steward run ship1 -- df -h\nsteward run -timeout 1m ship1,ship2 -- systemctl restart ntp\nsteward run -stream -timeout 1h ship1 -- tail -f /var/log/syslog\nsteward run -detach -timeout 1h ship1 -- apt-get -y upgrade",
		exits:   "of one node that has run its command: the status of that, be it one of the following, too (what -json has as code tells them apart); else 1 some failed, 3 some did not get it in time, 4 denied, 5 timed out: it was cut off, or no answer came in time",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			var r runner
			flags.BoolVar(&r.stream, "stream", false, "print what is written while the command runs, which then waits for no other one there")
			flags.BoolVar(&r.detach, "detach", false, "print the ids of the messages and wait for nothing; what the commands write lands in files, which are kept for 30 days")
			durationVar(flags, &r.timeout, "timeout", 0, "`TIME` after which nobody waits, what was not delivered is not run, and the command is ended (default: wait for ever, and end the command when defaultMethodTimeout of the node that runs here says so)")
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
	if c.before > 1 {
		nodes, command := c.args[:c.before], c.args[1:c.before]
		return usageError{hinted{fmt.Errorf("%q stands before --, where the nodes are; several nodes are one word: %s", command[0], strings.Join(nodes, ",")),
			fmt.Sprintf("a command that has -- in it stands behind another one: steward run %s -- %s -- %s", nodes[0], strings.Join(command, " "), strings.Join(c.args[c.before:], " "))}}
	}
	m := client.Command{Nodes: nodesOf(c.args[0]), Args: c.args[1:], Stream: r.stream, Timeout: r.timeout}.Message()
	e, err := c.ask(ctx, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	c.tellStrangers("run", c.acquaintance(ctx, e.local), m.To, !r.detach)
	if r.detach {
		return c.detached(ctx, e, r.timeout)
	}
	bounded := ctx
	if r.timeout > 0 {
		var cancel func()
		bounded, cancel = context.WithTimeout(ctx, inWhole(r.timeout))
		defer cancel()
	}
	lines := c.runLive(bounded, e, r.timeout)
	if lines != nil {
		defer lines.stop()
	}
	waits := "the message waits, without an end: -timeout gives it one"
	if r.timeout > 0 {
		waits = "the message waits, for " + r.timeout.String() + " at most"
	}
	shown := c.outputOf(e, lines)
	err = e.wait(bounded, shown.write, func(x *errand, a *client.Away) {
		if lines != nil {
			lines.noteAway(x, a)
			return
		}
		c.tellAway("run", x, a, waits)
	})
	if lines != nil {
		lines.stop()
	}
	switch {
	case ctx.Err() != nil:
		if lines != nil {
			lines.rest()
		}
		if lines != nil {
			c.takeBack(e)
		}
		c.left(e)
		return ctx.Err()
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if err := shown.end(); err != nil {
		return err
	}
	err = c.outcome(e, shown)
	if lines != nil {
		lines.sum()
	}
	return err
}

// takeBack asks whether messages that were not delivered are to be taken back, and does so. A second Ctrl-C leaves
// them, and ends the program.
func (c *call) takeBack(e *errands) {
	var nodes, ids []string
	for _, x := range e.all {
		if l := x.status.Sent; l != nil && l.State == message.StateAccepted {
			nodes, ids = append(nodes, string(x.Node)), append(ids, x.ID.String())
		}
	}
	if len(ids) == 0 || c.terminal(c.in) == nil {
		return
	}
	fmt.Fprintf(c.err, "Not delivered to %s. Leave it in the queue, or take it back? [L/t] ", strings.Join(nodes, ", "))
	line, err := bufio.NewReader(c.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || !strings.HasPrefix("take it back", cmp.Or(answer, "l")) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookPatience)
	defer cancel()
	_, err = e.local.Remove(ctx, client.Filter{IDs: ids})
	if err = errors.Join(err, e.look(ctx)); err != nil {
		fmt.Fprintf(c.err, "steward: run: take it back: %v\n", err)
	}
	for _, x := range e.all {
		if l := x.status.Sent; l != nil && l.State == message.StateRemoved {
			fmt.Fprintf(c.err, "taken back: message %s for %s\n", x.ID, x.Node)
		}
	}
}

// detached says what was handed in.
func (c *call) detached(ctx context.Context, e *errands, timeout time.Duration) error {
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
	if timeout > 0 || c.json {
		return nil
	}
	info, err := e.local.Node(ctx)
	if err == nil {
		fmt.Fprintf(c.err, "hint: each may run for %v; -timeout gives more\n", time.Duration(info.MethodTimeout)*time.Second)
	}
	return err
}

// left says what becomes of messages that nobody waits for any more.
func (c *call) left(e *errands) {
	for _, x := range e.all {
		if x.status.Ended {
			continue
		}
		what, hint := "stays", fmt.Sprintf(", steward queue rm %s takes it back as long as it waits", x.ID)
		if l := x.status.Sent; l != nil && l.State == message.StateDelivered {
			what, hint = "was delivered, and goes on there", ""
		}
		fmt.Fprintf(c.err, "steward: run: message %s for %s %s; its output lands in %s\nhint: steward status %s says where it is%s\n",
			x.ID, x.Node, what, x.File, x.ID, hint)
	}
}

// outcome prints what is known of the ends, and is the error for those that were not good.
func (c *call) outcome(e *errands, shown *outputs) error {
	codes, hint := map[int]bool{}, ""
	for _, x := range e.all {
		l := x.status.Sent
		why, code := x.failed(notRun)
		if l == nil { // the history has forgotten it
			l = &client.Life{}
		}
		if c.json {
			if err := c.printJSON(ran{Node: x.Node, ID: x.ID, State: l.State, Code: l.Code, Text: l.Text, Exit: l.Exit, Stdout: shown.kept[x].String(), Stderr: l.Stderr}); err != nil {
				return err
			}
		} else if l.Stderr != "" {
			w := prefixed{w: c.err, prefix: shown.prefix(x), whole: true}
			w.write([]byte(strings.TrimSuffix(l.Stderr, "\n") + "\n"))
		}
		if code == exitDone {
			continue
		}
		if l.Code == message.CodeTimeout {
			hint = "-timeout 10m gives it longer"
			if x.within > 0 {
				hint = "a longer -timeout gives it more"
			}
		} else if line := c.args[len(c.args)-1]; len(c.args) == 2 && strings.ContainsAny(line, " \t") && strings.HasSuffix(l.Text, " not found") {
			hint = fmt.Sprintf("one word with blanks is no command: steward run %s -- sh -c '%s'", c.args[0], strings.ReplaceAll(line, "'", `'\''`))
		}
		command := code == exitFailed && l.Exit != 0 && len(e.all) == 1
		if command {
			code = l.Exit // what it says is said
		} else if !c.json && shown.live == nil {
			fmt.Fprintf(c.err, "steward: run: %s: %s\n", x.Node, strings.Join(strings.Fields(why), " "))
		}
		codes[code] = true
	}
	err := exitOf(codes)
	if hint != "" && !c.json {
		return hinted{err, hint}
	}
	return err
}

// outputs print what comes from several nodes, line by line, or of one as it is.
type outputs struct {
	c       *call
	several bool
	live    *runLive // nil without a terminal
	lines   map[*errand]*prefixed
	kept    map[*errand]*bytes.Buffer // with -json
}

func (c *call) outputOf(e *errands, lines *runLive) *outputs {
	o := &outputs{c: c, several: len(e.all) > 1, live: lines, lines: map[*errand]*prefixed{}, kept: map[*errand]*bytes.Buffer{}}
	out := c.out
	if lines != nil && c.terminal(c.out) != nil {
		out = aboveLive{&lines.live, c.err} // the same terminal
	}
	for _, x := range e.all {
		o.lines[x] = &prefixed{w: out, prefix: o.prefix(x), whole: o.several || lines != nil}
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

// prefixed writes whole lines behind a prefix, or, if they need not be whole, anything at once.
type prefixed struct {
	w      io.Writer
	prefix string
	whole  bool
	rest   []byte
}

func (p *prefixed) write(piece []byte) error {
	if !p.whole {
		_, err := p.w.Write(piece)
		return err
	}
	p.rest = append(p.rest, piece...)
	end := bytes.LastIndexByte(p.rest, '\n') + 1
	if end == 0 {
		return nil
	}
	var b bytes.Buffer
	for line := range bytes.Lines(p.rest[:end]) {
		b.WriteString(p.prefix)
		b.Write(line)
	}
	p.rest = p.rest[end:]
	_, err := p.w.Write(b.Bytes())
	return err
}
