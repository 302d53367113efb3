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

const revokeHelp = `steward revoke, on central, takes all keys of a node out of the fleet: the broker of central cuts it off
and lets it in no more, and all other nodes are told, by a message that central signs, that its keys
count for nothing. The node of central that runs takes note by itself; one that does not, when it starts.

usage: steward revoke [flags] NODE

  steward revoke ship7 -yes

  -yes                   do not ask
  -configFolder FOLDER   that of central (default ./etc, or CONFIGFOLDER in the environment)

exit codes: 0 done, 1 failed, 2 usage
`

func runRevoke(_ context.Context, args []string, s streams) error {
	flags := flag.NewFlagSet("revoke", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	yes := flags.Bool("yes", false, "")
	folder := flags.String("configFolder", "", "")
	err := flags.Parse(args)
	name := flags.Arg(0)
	if err == nil && flags.NArg() > 1 { // flags may stand behind the name
		err = flags.Parse(flags.Args()[1:])
		if err == nil && flags.NArg() > 0 {
			err = fmt.Errorf("%q is one argument too many", flags.Arg(0))
		}
	}
	if errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, revokeHelp)
		return errors.Join(werr, flag.ErrHelp)
	}
	if err == nil && name == "" {
		err = errors.New("no node")
	}
	var cfg *config.Config
	if err == nil {
		cfg, err = configOf(s.env, "configFolder", *folder)
	}
	if err == nil && cfg.NodeName != cfg.CentralNodeName {
		err = fmt.Errorf("keys are revoked on the central node, %s, and this is %s", cfg.CentralNodeName, cfg.NodeName)
	}
	if err == nil && message.Node(name) == cfg.NodeName {
		err = errors.New("central cannot revoke itself")
	}
	if err != nil {
		return usageError{hinted{fmt.Errorf("revoke: %w", err), "steward revoke -h"}}
	}
	if err := revoke(cfg, message.Node(name), *yes, s); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
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
			fmt.Fprintf(s.out, "%s %s\n", t.Node, t.Key)
		}
	}
	for _, t := range tokens {
		if t.Node == n && t.Used == nil {
			fmt.Fprintf(s.out, "token for %s until %s\n", n, t.Expires.Format(time.RFC3339))
			keys[t.Key] = true
		}
	}
	if len(lines) == 0 && !keysOf(tokens, keys) {
		return hinted{fmt.Errorf("no key of %s is trusted", message.Quote(string(n))), "steward keys list"}
	}
	if !yes {
		fmt.Fprint(s.err, "revoke all of these? type yes: ")
		answer, _ := bufio.NewReader(s.in).ReadString('\n')
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
