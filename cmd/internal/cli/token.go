package cli

import (
	"cmp"
	"context"
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

func tokenOperations() []operation {
	const about = ` A token is a secret, is for one node, counts once, and for a while. The node of central that runs takes
note of it by itself.`
	return []operation{
		{
			name: "token list", configured: true, result: []shownToken{},
			short:   "the tokens that there are, and who used them",
			about:   "token list prints the tokens that central has made, without the secret." + about,
			example: "steward token list",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error { return onCentral(c, tokenList) }
			},
		},
		{
			name: "token new", configured: true, result: shownToken{},
			short:   "make a token for a new node",
			about:   "token new makes, on central, a token with which a new node is enrolled: steward enroll TOKEN." + about,
			example: "steward token new -node ship1\nsteward token new -node ship1 -ttl 15m -address tls://central.example:4222",
			define: func(flags *flag.FlagSet) func(context.Context, *call) error {
				var f tokenFlags
				flags.StringVar(&f.node, "node", "", "`NAME` as which the other node is to be enrolled")
				flags.StringVar(&f.address, "address", "", "where that node finds the broker, as `ADDRESS[,...]` (default: the embedded broker of this node, or its brokerAddress)")
				flags.StringVar(&f.ca, "ca", "", "`FILE` with which the certificate of the broker is checked (default: the authority of this node, or rootCAPath)")
				durationVar(flags, &f.ttl, "ttl", time.Hour, "how long the token lasts, as a `TIME` such as 15m (default 1h, at most 720h)")
				return func(_ context.Context, c *call) error { return onCentral(c, f.make) }
			},
		},
		{
			name: "token rm", args: "NODE|KEY", least: 1, most: 1, configured: true, result: tokensRemoved{}, values: "nodes",
			short:   "take a token back",
			about:   "token rm takes back, on central, the tokens for a node, or the one with a key.",
			example: "steward token rm ship1",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error { return onCentral(c, tokenRemove) }
			},
		},
	}
}

// onCentral has something done with the configuration of the central node.
func onCentral(c *call, do func(*call, *config.Config) error) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if cfg.NodeName != cfg.CentralNodeName {
		return usageError{fmt.Errorf("tokens are made on the central node, %s, and this is %s", cfg.CentralNodeName, cfg.NodeName)}
	}
	return do(c, cfg)
}

// show prints v as JSON, or else the text.
func (c *call) show(v any, text string) error {
	if c.json {
		return c.printJSON(v)
	}
	_, err := io.WriteString(c.out, text)
	return err
}

// maxTTL bounds how long a token lasts: a secret that lies about for longer is a door.
const maxTTL = 30 * 24 * time.Hour

// tokenFlags say which token is made.
type tokenFlags struct {
	node, address, ca string
	ttl               time.Duration
}

// shownToken is one line of a list. The token itself is shown once, by the command that makes it.
type shownToken struct {
	Token   string       `json:"token,omitempty" doc:"the secret; of a new one only"`
	Node    message.Node `json:"node"`
	Key     string       `json:"key" doc:"of the token"`
	Expires time.Time    `json:"expires"`
	UsedBy  string       `json:"usedBy,omitempty" doc:"the key of the node that was enrolled with it"`
}

// tokensRemoved is what rm prints with -json.
type tokensRemoved struct {
	Removed int `json:"removed" doc:"how many"`
}

func (f *tokenFlags) make(c *call, cfg *config.Config) error {
	if f.ttl > maxTTL || f.ttl < 0 {
		return usageError{fmt.Errorf("-ttl %v: want at most %v", f.ttl, maxTTL)}
	}
	n := message.Node(f.node)
	if err := n.Check(); err != nil {
		return usageError{hinted{fmt.Errorf("-node: %w", err), "steward token new -node NAME"}}
	}
	if n == cfg.NodeName || strings.Contains(f.node, "#") {
		return usageError{fmt.Errorf("%s cannot be the name of a new node", message.Quote(f.node))}
	}
	registry, err := methods.Builtin()
	if err == nil {
		_, err = node.FleetRules(cfg, registry) // with which the node could not be enrolled
	}
	if err != nil {
		return err
	}
	key, _, err := security.EnsureKey(cfg.NodeKeyFile)
	if err != nil {
		return err
	}
	t := enroll.Token{Node: n, Central: cfg.NodeName, CentralKey: key.Public()}
	if f.address != "" {
		t.Brokers = strings.Split(f.address, ",")
	} else if t.Brokers, err = node.BrokerAddresses(cfg); err != nil {
		return hinted{err, "-address says where the new node finds the broker"}
	}
	if f.ca != "" {
		t.CA, err = os.ReadFile(f.ca)
	} else {
		t.CA, err = node.BrokerCA(cfg)
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
	if err := node.Tokens(cfg).Add(t.Key.Public(), n, expires); err != nil {
		return err
	}
	return c.show(shownToken{Token: text, Node: n, Key: t.Key.Public().String(), Expires: expires}, text+"\n")
}

func tokenList(c *call, cfg *config.Config) error {
	list, err := node.Tokens(cfg).List()
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
	return c.show(shown, b.String())
}

func tokenRemove(c *call, cfg *config.Config) error {
	list, err := node.Tokens(cfg).List()
	if err != nil {
		return err
	}
	removed := 0
	for _, t := range list {
		if string(t.Node) != c.args[0] && t.Key.String() != c.args[0] {
			continue
		}
		if err := node.Tokens(cfg).Remove(t.Key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		removed++
	}
	if removed == 0 {
		return hinted{fmt.Errorf("there is no token for %s", message.Quote(c.args[0])), "steward token list"}
	}
	return c.show(tokensRemoved{removed}, "")
}
