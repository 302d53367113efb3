package cli

import (
	"context"
	"flag"
	"fmt"
	"time"

	"steward/process/control"
)

func nodesOperation() operation {
	return operation{
		name: "nodes", local: true, result: control.Peer{}, lines: true,
		short: "who said hello, when last, and for whom something waits",
		about: `nodes shows which nodes said hello to the node that runs here, when they did so last, and with which
version, and for which nodes how much waits. On central those are all that have -startPubREQHello.`,
		example: "steward nodes",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(ctx context.Context, c *call) error {
				client, err := c.client(ctx)
				if err != nil {
					return err
				}
				defer client.Close()
				t := c.table("NODE", "LAST HELLO", "VERSION", "WAITING", "OLDEST", "TEXT")
				none := true
				err = client.Nodes(ctx, func(p control.Peer) error {
					none = false
					if c.json {
						return c.printJSON(p)
					}
					hello, oldest := "never", ""
					if p.Hello != nil {
						hello = span(time.Since(*p.Hello)) + " ago"
					}
					if p.Oldest != nil {
						oldest = span(time.Since(*p.Oldest))
					}
					t.row(p.Node, hello, p.Version, p.Waiting, oldest, p.Text)
					return nil
				})
				if err != nil {
					return err
				}
				if none && !c.json {
					fmt.Fprintln(c.err, "no node said hello here, and nothing waits\nhint: nodes with -startPubREQHello=SECONDS say hello to central")
				}
				return t.flush()
			}
		},
	}
}
