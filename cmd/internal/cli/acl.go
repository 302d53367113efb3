package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"steward/client"
	"steward/cmd/internal/node"
	"steward/config"
	"steward/message"
	"steward/message/wire"
	"steward/methods"
	"steward/security/acl"
)

func aclOperations() []operation {
	return []operation{
		{
			name: "acl show", configured: true, result: shownRules{},
			short: "the lists and the rules of a node",
			about: `acl show prints who may do what on the node that has this configuration: the lists of the settings startSub..., and
the rules in the file acl.toml of the config folder, or in the one that aclFile names.`,
			example: "steward acl show -configFolder ship1/etc",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error { return aclShow(c) }
			},
		},
		{
			name: "acl check", args: "FROM METHOD [ARG...]", least: 2, most: -1, takesCommand: true, configured: true, result: verdict{}, values: "nodes",
			short: "whether a node may do something here, and what decides that",
			about: `acl check says whether node FROM may have METHOD run with these arguments on the node that has this
configuration, and what decides that. The ARGs of REQOpCommand are an opCmd and its opArg. What was
changed by startProc in a node that runs is not known here.`,
			example: "steward acl check central REQCliCommand systemctl restart nginx\nsteward acl check central REQOpCommand startProc method=REQHttpGet allowedNodes=ship1,ship2",
			exits:   "4 denied",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error { return aclCheck(c) }
			},
		},
		{
			name: "acl push", args: "FILE NODE[,NODE...]", least: 2, most: 2, local: true,
			short: "send rules to nodes",
			about: `acl push hands the rules in FILE to the node that runs here, for each NODE, and prints the ids of the
messages. What became of them is in the replies, in the file REQAclUpdate.log of each node.`,
			example: "steward acl push acl.toml ship1,ship2",
			define: func(flags *flag.FlagSet) func(context.Context, *call) error {
				force := flags.Bool("force", false, "also rules after which central could send no others")
				return func(ctx context.Context, c *call) error { return aclPush(ctx, c, *force) }
			},
		},
	}
}

// rules reads the configuration of a node and its rules.
func (c *call) rules() (*config.Config, *methods.Registry, *acl.File, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, nil, nil, err
	}
	cfg, err := c.config()
	if err != nil {
		return nil, nil, nil, err
	}
	file, err := node.OpenRules(cfg, registry, func(error) {})
	if err != nil {
		return nil, nil, nil, usageError{hinted{err, mendRules(cfg)}}
	}
	return cfg, registry, file, nil
}

// mendRules is what to do about rules that make no sense, or are not there.
func mendRules(cfg *config.Config) string {
	if cfg.ACLFile != "" {
		return "mend the file, or aclFile, which names it: the node does not start without"
	}
	return "mend the file, or take it away: then the lists of startSub... alone decide"
}

// verdict is what check prints.
type verdict struct {
	Allowed bool           `json:"allowed" doc:"whether it may"`
	Node    message.Node   `json:"node" doc:"the one that was asked about"`
	From    message.Node   `json:"from"`
	Method  message.Method `json:"method"`
	Own     bool           `json:"own,omitempty" doc:"the messages of a node for itself are always allowed"`
	List    *listVerdict   `json:"list,omitempty" doc:"what the list of the method says"`
	Rules   *rulesVerdict  `json:"rules,omitempty" doc:"what the rules say"`
}

// listVerdict is what the list of the method says.
type listVerdict struct {
	Allowed bool     `json:"allowed"`
	Name    string   `json:"name"`
	Nodes   []string `json:"nodes"`
}

// rulesVerdict is what the rules say.
type rulesVerdict struct {
	Allowed bool   `json:"allowed"`
	File    string `json:"file"`
	Version int64  `json:"version,omitempty" doc:"absent when there are no rules"`
	Rule    string `json:"rule,omitempty" doc:"that decided"`
	Why     string `json:"why"`
}

func aclCheck(c *call) error {
	cfg, registry, file, err := c.rules()
	if err != nil {
		return err
	}
	m, err := messageOf(cfg.NodeName, c.args[1], c.args[2:], registry)
	if err != nil {
		return usageError{err}
	}
	v := verdict{Allowed: true, Node: cfg.NodeName, From: message.Node(c.args[0]), Method: m.Method}
	if err := v.From.Check(); err != nil {
		return usageError{err}
	}
	if v.Own = v.From == v.Node || v.From == message.Local; !v.Own {
		list, rules := cfg.Subscribers[m.Method], file.Now()
		d := rules.Decide(v.From, v.Node, m)
		v.List = &listVerdict{Allowed: node.Listed(list, v.From), Name: "startSub" + string(m.Method), Nodes: list}
		v.Rules = &rulesVerdict{Allowed: d.Allowed, File: file.Path(), Rule: d.Rule, Why: d.Why}
		if rules != nil {
			v.Rules.Version = rules.Version
		}
		v.Allowed = v.List.Allowed && d.Allowed
	}
	if c.json {
		err = c.printJSON(v)
	} else {
		err = v.print(c.out)
	}
	if err == nil && !v.Allowed {
		err = exitStatus(exitDenied)
	}
	return err
}

func (v *verdict) print(w io.Writer) error {
	word := map[bool]string{true: "allowed", false: "denied"}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s to %s on %s\n", word[v.Allowed], v.Method, v.From, v.Node)
	if v.Own {
		fmt.Fprintln(&b, "  a node's own messages are always allowed: their door is the socket")
	} else {
		nodes := strings.Join(v.List.Nodes, ",")
		if nodes == "" {
			nodes = config.Off
		}
		rules := "no rules: there is no " + v.Rules.File
		if v.Rules.Version > 0 {
			rules = fmt.Sprintf("%s, version %d of %s", v.Rules.Why, v.Rules.Version, v.Rules.File)
		}
		fmt.Fprintf(&b, "  list   %s: %s is %s\n  rules  %s: %s\n", word[v.List.Allowed], v.List.Name, nodes, word[v.Rules.Allowed], rules)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// messageOf makes the message about which is asked, as the node would.
func messageOf(self message.Node, method string, args []string, registry *methods.Registry) (*message.Message, error) {
	draft := wire.Draft{ToNodes: []string{string(message.Local)}, Method: method, Data: args}
	if method == string(message.MethodOpCommand) && len(args) > 0 {
		op, err := operationOf(args[0], args[1:])
		if err != nil {
			return nil, err
		}
		draft.Operation, draft.Data = op, nil
	}
	msgs, err := draft.Resolve(wire.Defaults{Self: self, Catalog: node.Catalog{Registry: registry}})
	if err != nil {
		return nil, err
	}
	return &msgs[0], nil
}

// operationOf reads an operation with its arguments as name=value.
func operationOf(cmd string, args []string) (*wire.DraftOperation, error) {
	op := &wire.DraftOperation{Cmd: cmd}
	names := []string{"method", "kind", "receivingNode", "id", "allowedNodes", "messageID", "olderThan"}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%s: want name=value, with a name of opArg", message.Quote(arg))
		}
		var err error
		switch name {
		case "method":
			op.Method = value
		case "kind":
			op.Kind = value
		case "receivingNode":
			op.ReceivingNode = value
		case "id":
			op.ID, err = strconv.ParseInt(value, 10, 64)
		case "allowedNodes":
			op.AllowedNodes = strings.Split(value, ",")
		case "messageID":
			op.MessageID = &value
		case "olderThan":
			op.OlderThan = new(int64)
			*op.OlderThan, err = strconv.ParseInt(value, 10, 64)
		default:
			err = fmt.Errorf("opArg has no %s%s", message.Quote(name), wire.DidYouMean(name, names))
		}
		if err != nil {
			return nil, err
		}
	}
	return op, nil
}

func aclShow(c *call) error {
	cfg, registry, file, err := c.rules()
	if err != nil {
		return err
	}
	rules := file.Now()
	if c.json {
		return c.printJSON(shown(cfg, file.Path(), rules))
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "METHOD\tMAY BE USED BY")
	for _, m := range registry.Names() {
		fmt.Fprintf(table, "%s\t%s\n", m, cmp.Or(strings.Join(cfg.Subscribers[m], ","), config.Off))
	}
	if rules == nil {
		fmt.Fprintf(table, "\nThere are no rules: there is no %s. The lists alone decide.\n", file.Path())
	} else {
		fmt.Fprintf(table, "\nVersion %d of %s. What no rule allows is denied.\n\nRULE\tEFFECT\tFROM\tMETHODS\tARGS\n", rules.Version, file.Path())
		for _, r := range rules.Rules {
			args := "any"
			if r.Args != nil {
				args = fmt.Sprintf("%q", r.Args)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Name, effect(r), strings.Join(r.From, ","), strings.Join(r.Methods, ","), args)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = io.WriteString(c.out, b.String())
	return err
}

func effect(r acl.Rule) string {
	if r.Deny {
		return "deny"
	}
	return "allow"
}

// shownRules is what show prints as JSON.
type shownRules struct {
	Lists   map[message.Method][]string `json:"lists" doc:"of each method: who may use it"`
	File    string                      `json:"file"`
	Version int64                       `json:"version,omitempty" doc:"absent when there are no rules"`
	Rules   []shownRule                 `json:"rules"`
}

type shownRule struct {
	Name    string   `json:"name"`
	Effect  string   `json:"effect" doc:"allow or deny"`
	From    []string `json:"from"`
	Methods []string `json:"methods"`
	Args    []string `json:"args" doc:"null: any"`
}

func shown(cfg *config.Config, path string, rules *acl.Rules) shownRules {
	all := shownRules{Lists: cfg.Subscribers, File: path, Rules: []shownRule{}}
	if rules != nil {
		all.Version = rules.Version
		for _, r := range rules.Rules {
			all.Rules = append(all.Rules, shownRule{r.Name, effect(r), r.From, r.Methods, r.Args})
		}
	}
	return all
}

// aclPush sends a file of rules, unless it has a mistake that can be seen here.
func aclPush(ctx context.Context, c *call, force bool) error {
	name := c.args[0]
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	registry, err := methods.Builtin()
	if err != nil {
		return err
	}
	if _, err := acl.Parse(name, string(text), registry.Names()); err != nil {
		return usageError{err}
	}
	// Without end: rules are for nodes that are away, too.
	update := client.Message{To: nodesOf(c.args[1]), Method: message.MethodACLUpdate, Data: []string{string(text)}, Retries: client.Unlimited}
	if force {
		update.Data = append(update.Data, "force")
	}
	local, err := c.local(ctx)
	if err != nil {
		return err
	}
	defer local.Close()
	ids, err := local.Send(ctx, update)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, id := range ids {
		fmt.Fprintln(c.out, id)
	}
	return nil
}
