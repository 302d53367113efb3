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
		short: "which nodes are known here, who said hello, and for whom something waits",
		about: `nodes shows the nodes that the node which runs here knows: those with a key that it trusts, or with a token that
nobody has used yet, and those that were revoked; those that said hello, when last, and with which version; and those for
which something waits, and how much. Only nodes with -startPubREQHello say hello: of the others, "never" says nothing.`,
		example: "steward nodes",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(ctx context.Context, c *call) error {
				client, err := c.client(ctx)
				if err != nil {
					return err
				}
				defer client.Close()
				t := c.table("NODE", "KEY", "LAST HELLO", "VERSION", "WAITING", "OLDEST", "TEXT")
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
					t.row(p.Node, string(p.Key), hello, p.Version, p.Waiting, oldest, p.Text)
					return nil
				})
				if err != nil {
					return err
				}
				if none && !c.json {
					fmt.Fprintln(c.err, "no other node is known here: none has a key or said hello, and nothing waits\nhint: nodes with -startPubREQHello=SECONDS say hello to central")
				}
				return t.flush()
			}
		},
	}
}
