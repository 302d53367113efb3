package cli

import (
	"context"
	"flag"
	"fmt"
	"time"

	"steward/client"
)

func nodesOperation() operation {
	return operation{
		name: "nodes", local: true, result: client.Peer{}, lines: true,
		short: "who said hello, when last, and for whom something waits",
		about: `nodes shows which nodes said hello to the node that runs here, when they did so last, and with which
version, and for which nodes how much waits. On central those are all that have -startPubREQHello.`,
		example: "steward nodes",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(ctx context.Context, c *call) error {
				local, err := c.local(ctx)
				if err != nil {
					return err
				}
				defer local.Close()
				t := c.table("NODE", "LAST HELLO", "VERSION", "WAITING", "OLDEST", "TEXT")
				none := true
				for p, err := range local.Nodes(ctx) {
					if err != nil {
						return err
					}
					none = false
					if c.json {
						if err := c.printJSON(p); err != nil {
							return err
						}
						continue
					}
					hello, oldest := "never", ""
					if p.Hello != nil {
						hello = span(time.Since(*p.Hello)) + " ago"
					}
					if p.Oldest != nil {
						oldest = span(time.Since(*p.Oldest))
					}
					t.row(p.Node, hello, p.Version, p.Waiting, oldest, p.Text)
				}
				if none && !c.json {
					fmt.Fprintln(c.err, "no node said hello here, and nothing waits\nhint: nodes with -startPubREQHello=SECONDS say hello to central")
				}
				return t.flush()
			}
		},
	}
}
