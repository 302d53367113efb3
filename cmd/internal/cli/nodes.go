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
		short: "which nodes are known here, when they were heard of, and for whom something waits",
		about: `nodes shows the nodes that the node which runs here knows: those with a key that it trusts, or with a token that
nobody has used yet, and those that were revoked; those of which something came; and those for which something waits, and how much. HEARD is when
something of a node came here last: an ACK or a message, since the node that is asked started, or a hello. Hellos, with the
version, come to central from nodes with -startPubREQHello alone.`,
		example: "steward nodes",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(ctx context.Context, c *call) error {
				local, err := c.local(ctx)
				if err != nil {
					return err
				}
				defer local.Close()
				t := c.table("NODE", "KEY", "HEARD", "LAST HELLO", "VERSION", "WAITING", "OLDEST", "TEXT")
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
					heard, hello, oldest := "never", "none", ""
					if p.Heard != nil {
						heard = span(time.Since(*p.Heard)) + " ago"
					}
					if p.Hello != nil {
						hello = span(time.Since(*p.Hello)) + " ago"
					}
					if p.Oldest != nil {
						oldest = span(time.Since(*p.Oldest))
					}
					t.row(p.Node, string(p.Key), heard, hello, p.Version, p.Waiting, oldest, p.Text)
				}
				if none && !c.json {
					fmt.Fprintln(c.err, "no other node is known here: none has a key, nothing came of any, and nothing waits\nhint: nodes with -startPubREQHello=SECONDS say hello to central")
				}
				return t.flush()
			}
		},
	}
}
