package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/message"
	"steward/security"
	"steward/security/enroll"
)

func revokeOperation() operation {
	return operation{
		name: "revoke", args: "NODE", least: 1, most: 1, configured: true, values: "nodes",
		short: "take the keys of a node out of the fleet",
		about: `revoke takes, on central, all keys of a node out of the fleet: the broker of central cuts it off
and lets it in no more, and all other nodes are told, by a message that central signs, that its keys
count for nothing. The node of central that runs takes note by itself; one that does not, when it starts.
Messages that wait for the revoked node end when their attempts are used up; how to take them off is said.`,
		example: "steward revoke ship7 -yes",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			yes := flags.Bool("yes", false, "do not ask")
			return func(ctx context.Context, c *call) error {
				cfg, err := c.config()
				if err != nil {
					return err
				}
				n := message.Node(c.args[0])
				switch {
				case cfg.NodeName != cfg.CentralNodeName:
					return usageError{fmt.Errorf("keys are revoked on the central node, %s, and this is %s", cfg.CentralNodeName, cfg.NodeName)}
				case n == cfg.NodeName:
					return usageError{errors.New("central cannot revoke itself")}
				}
				if err := revoke(cfg, n, *yes, c.streams); err != nil {
					return err
				}
				return c.tellStranded(ctx, cfg, n)
			}
		},
	}
}

// revoke notes what is revoked before it takes it off the list of what is trusted: whatever comes in
// between, running it again does the rest.
func revoke(cfg *config.Config, n message.Node, yes bool, s streams) error {
	trusted, err := security.ReadTrust(cfg.TrustedNodesFile)
	if err != nil {
		return err
	}
	tokens, err := node.Tokens(cfg).List()
	if err != nil {
		return err
	}
	var lines []security.Trusted // of the keys of that node, also for others
	var text strings.Builder
	keys := map[security.PublicKey]bool{}
	for _, t := range trusted {
		keys[t.Key] = keys[t.Key] || t.Node == n
	}
	own, err := security.LoadKey(cfg.NodeKeyFile)
	if err == nil && keys[own.Public()] {
		return fmt.Errorf("a key of %s is that of %s itself; steward keys untrust takes the line off the list", n, cfg.NodeName)
	}
	for _, t := range trusted {
		if keys[t.Key] {
			lines = append(lines, t)
			fmt.Fprintf(&text, "%s %s\n", t.Node, t.Key)
		}
	}
	for _, t := range tokens {
		if t.Node == n && t.Used == nil {
			fmt.Fprintf(&text, "token for %s until %s\n", n, t.Expires.Format(time.RFC3339))
			keys[t.Key] = true
		}
	}
	if len(lines) == 0 && !keysOf(tokens, keys) {
		return hinted{fmt.Errorf("no key of %s is trusted", message.Quote(string(n))), "steward keys list"}
	}
	if !yes {
		fmt.Fprintf(s.err, "trusted keys of %s, each with a node for which it speaks, and tokens of it that are not used yet:\n", n)
	}
	if _, err := io.WriteString(s.out, text.String()); err != nil {
		return err
	}
	if !yes {
		fmt.Fprint(s.err, "revoke all of these? type yes: ")
		answer, _ := bufio.NewReader(s.in).ReadString('\n')
		if !strings.HasSuffix(answer, "\n") || s.terminal(s.in) == nil { // no terminal has ended the line
			fmt.Fprintln(s.err)
		}
		if strings.TrimSpace(answer) != "yes" {
			return hinted{errors.New("nothing is revoked"), "steward revoke " + string(n) + " -yes"}
		}
	}
	for _, t := range tokens {
		if keys[t.Key] {
			if err := node.Tokens(cfg).Remove(t.Key); err != nil {
				return err
			}
		}
	}
	for _, t := range lines {
		if _, err := security.Trust(node.RevokedFile(cfg), t.Node, t.Key); err != nil {
			return err
		}
	}
	for _, t := range lines {
		if _, err := security.Untrust(cfg.TrustedNodesFile, t.Node, &t.Key); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(tokens []enroll.Pending, keys map[security.PublicKey]bool) bool {
	for _, t := range tokens {
		if keys[t.Key] {
			return true
		}
	}
	return false
}
