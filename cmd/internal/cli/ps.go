package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"steward/client"
	"steward/message"
	"steward/methods"
	"steward/process"
)

func psOperation() operation {
	return operation{
		name: "ps", args: "[NODE]", most: 1, local: true, result: client.Process{}, values: "nodes",
		short: "the processes of a node",
		about: `ps shows the processes of the node that runs here, each below the one that supervises it: since when
it is in its state, how often it was started anew, and what it failed with last. One that is done had only a beginning to see to. With a NODE it asks that one, which
takes a message there and back.`,
		example: "steward ps\nsteward ps ship1",
		exits:   "3 the node did not answer, 4 denied, 5 timed out",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			timeout := duration(flags, "timeout", 30*time.Second, "how long to wait for another node, as a `TIME` such as 10s")
			return func(ctx context.Context, c *call) error {
				if len(c.args) == 1 {
					return remotePs(ctx, c, *timeout)
				}
				local, err := c.local(ctx)
				if err != nil {
					return err
				}
				defer local.Close()
				tree, err := local.Processes(ctx)
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(tree)
				}
				text, err := methods.ProcessText(treeOf(tree))
				if err == nil {
					_, err = io.WriteString(c.out, text)
				}
				return err
			}
		},
	}
}

// remotePs asks another node for its processes.
func remotePs(ctx context.Context, c *call, timeout time.Duration) (err error) {
	if c.json {
		return usageError{hinted{errors.New("-json is for the processes of the node that runs here"), "run it on that node: steward run " + c.args[0] + " -- steward ps -json"}}
	}
	if timeout <= 0 {
		return usageError{errors.New("-timeout has to be above 0")}
	}
	e, err := c.ask(ctx, client.Message{To: nodesOf(c.args[0]), Method: message.MethodOpCommand, Operation: &message.Operation{Cmd: message.OpPs},
		Retries: client.Unlimited, TTL: timeout, MethodTimeout: timeout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.drop(ctx)) }()
	c.tellStrangers("ps", c.acquaintance(ctx, e.local), []message.Node{e.all[0].Node}, true)
	bounded, cancel := context.WithTimeout(ctx, inWhole(timeout))
	defer cancel()
	var text bytes.Buffer
	err = e.wait(bounded, func(_ *errand, piece []byte) error { _, err := text.Write(piece); return err },
		func(x *errand, a *client.Away) {
			c.tellAway("ps", x, a, "the question waits, for "+timeout.String()+" at most")
		})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if why, code := e.all[0].failed("is taken back"); code != exitDone {
		return exitError{hinted{fmt.Errorf("%s: %s", e.all[0].Node, why), "steward nodes says when a node was heard of last"}, code}
	}
	_, err = c.out.Write(text.Bytes())
	return err
}

// treeOf is what a node says of its processes, for those who show it.
func treeOf(p client.Process) process.Tree {
	t := process.Tree{Name: p.Name, ID: p.ID, State: process.State(p.State), Since: p.Since, Restarts: p.Restarts, Error: p.Error}
	for _, child := range p.Children {
		t.Children = append(t.Children, treeOf(child))
	}
	return t
}
