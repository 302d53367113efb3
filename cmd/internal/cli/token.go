package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/message"
	"steward/methods"
	"steward/security"
	"steward/security/enroll"
)

const tokenHelp = `steward token, on central, makes the tokens with which new nodes are enrolled: steward enroll TOKEN. A
token is a secret, is for one node, counts once, and for a while. The node of central that runs takes
note of it by itself.

usage: steward token new [flags] -node NAME
       steward token list [flags]
       steward token rm [flags] NODE|KEY

  steward token new -node ship1
  steward token new -node ship1 -ttl 15m -address tls://central.example:4222

  -node NAME             new: as which the other node is to be enrolled
  -ttl TIME              new: how long the token lasts, such as 15m (default 1h, at most 720h)
  -address ADDRESS[,...] new: where that node finds the broker (default: the embedded broker of this
                         node, or its brokerAddress)
  -ca FILE               new: what the certificate of the broker is checked with (default: the authority
                         of this node, or rootCAPath)
  -configFolder FOLDER   that of central (default ./etc, or CONFIGFOLDER in the environment)
  -json                  print JSON

exit codes: 0 done, 1 failed, 2 usage
`

// maxTTL bounds how long a token lasts: a secret that lies about for longer is a door.
const maxTTL = 30 * 24 * time.Hour

type tokenFlags struct {
	*flag.FlagSet
	cfg               *config.Config
	node, address, ca string
	ttl               time.Duration
	json              bool
	out               io.Writer
}

var tokenCommands = map[string]struct {
	args int
	run  func(*tokenFlags) error
}{
	"new":  {0, tokenNew},
	"list": {0, tokenList},
	"rm":   {1, tokenRemove},
}

func runToken(_ context.Context, args []string, s streams) error {
	name := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	f := &tokenFlags{FlagSet: flag.NewFlagSet("token", flag.ContinueOnError), out: s.out}
	f.SetOutput(io.Discard)
	folder := f.String("configFolder", "", "")
	f.BoolVar(&f.json, "json", false, "")
	if name == "new" {
		f.StringVar(&f.node, "node", "", "")
		f.StringVar(&f.address, "address", "", "")
		f.StringVar(&f.ca, "ca", "", "")
		f.DurationVar(&f.ttl, "ttl", time.Hour, "")
	}
	err := f.Parse(args)
	command, ok := tokenCommands[name]
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, werr := io.WriteString(s.out, tokenHelp)
		return errors.Join(werr, flag.ErrHelp)
	case !ok:
		err = fmt.Errorf("%s is not a command", message.Quote(name))
	case err == nil && f.NArg() != command.args:
		err = fmt.Errorf("%d arguments", f.NArg())
	case err == nil && f.ttl > maxTTL || f.ttl < 0:
		err = fmt.Errorf("-ttl %v: want at most %v", f.ttl, maxTTL)
	}
	if err == nil {
		f.cfg, err = configOf(s.env, "configFolder", *folder)
	}
	if err == nil && f.cfg.NodeName != f.cfg.CentralNodeName {
		err = fmt.Errorf("tokens are made on the central node, %s, and this is %s", f.cfg.CentralNodeName, f.cfg.NodeName)
	}
	if err != nil {
		return usageError{hinted{fmt.Errorf("token %s: %w", name, err), "steward token -h"}}
	}
	if err = command.run(f); err != nil && !errors.As(err, new(usageError)) {
		return fmt.Errorf("token %s: %w", name, err)
	}
	return err
}

func (f *tokenFlags) print(v any, text string) error {
	if f.json {
		return json.NewEncoder(f.out).Encode(v)
	}
	_, err := io.WriteString(f.out, text)
	return err
}

// shownToken is one line of a list. The token itself is shown once, by the command that makes it.
type shownToken struct {
	Token   string       `json:"token,omitempty"`
	Node    message.Node `json:"node"`
	Key     string       `json:"key"`
	Expires time.Time    `json:"expires"`
	UsedBy  string       `json:"usedBy,omitempty"`
}

func tokenNew(f *tokenFlags) error {
	n := message.Node(f.node)
	if err := n.Check(); err != nil {
		return usageError{hinted{fmt.Errorf("token new: -node: %w", err), "steward token new -node NAME"}}
	}
	if n == f.cfg.NodeName || strings.Contains(f.node, "#") {
		return usageError{fmt.Errorf("token new: %s cannot be the name of a new node", message.Quote(f.node))}
	}
	registry, err := methods.Builtin()
	if err == nil {
		_, err = node.FleetRules(f.cfg, registry) // with which the node could not be enrolled
	}
	if err != nil {
		return err
	}
	key, _, err := security.EnsureKey(f.cfg.NodeKeyFile)
	if err != nil {
		return err
	}
	t := enroll.Token{Node: n, Central: f.cfg.NodeName, CentralKey: key.Public()}
	if f.address != "" {
		t.Brokers = strings.Split(f.address, ",")
	} else if t.Brokers, err = node.BrokerAddresses(f.cfg); err != nil {
		return hinted{err, "-address says where the new node finds the broker"}
	}
	if f.ca != "" {
		t.CA, err = os.ReadFile(f.ca)
	} else {
		t.CA, err = node.BrokerCA(f.cfg)
	}
	if err != nil {
		return err
	}
	if t.Key, err = security.NewKey(); err != nil {
		return err
	}
	text, err := t.Text()
	if err != nil {
		return err
	}
	if _, err := enroll.ParseToken(text); err != nil { // what cannot be read there is no token
		return err
	}
	expires := time.Now().Add(f.ttl).UTC().Truncate(time.Second)
	if err := node.Tokens(f.cfg).Add(t.Key.Public(), n, expires); err != nil {
		return err
	}
	return f.print(shownToken{Token: text, Node: n, Key: t.Key.Public().String(), Expires: expires}, text+"\n")
}

func tokenList(f *tokenFlags) error {
	list, err := node.Tokens(f.cfg).List()
	if err != nil {
		return err
	}
	shown := []shownToken{}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tSTATE\tEXPIRES\tKEY OF THE TOKEN\tUSED BY")
	for _, t := range list {
		one := shownToken{Node: t.Node, Key: t.Key.String(), Expires: t.Expires}
		state := "open"
		if time.Now().After(t.Expires) {
			state = "expired"
		}
		if t.Used != nil {
			state, one.UsedBy = "used", t.Used.String()
		}
		shown = append(shown, one)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.Node, state, t.Expires.Format(time.RFC3339), one.Key, cmp.Or(one.UsedBy, "-"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return f.print(shown, b.String())
}

func tokenRemove(f *tokenFlags) error {
	list, err := node.Tokens(f.cfg).List()
	if err != nil {
		return err
	}
	removed := 0
	for _, t := range list {
		if string(t.Node) != f.Arg(0) && t.Key.String() != f.Arg(0) {
			continue
		}
		if err := node.Tokens(f.cfg).Remove(t.Key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		removed++
	}
	if removed == 0 {
		return hinted{fmt.Errorf("there is no token for %s", message.Quote(f.Arg(0))), "steward token list"}
	}
	return f.print(map[string]int{"removed": removed}, "")
}
