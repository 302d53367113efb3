package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
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

const aclHelp = `steward acl shows the rules of who may do what on a node, says what they come to, and sends them to
nodes. They are in the file acl.toml of the config folder, or in the one that aclFile names.

usage: steward acl check [flags] FROM METHOD [ARG...]
       steward acl show [flags]
       steward acl push [flags] FILE NODE[,NODE...]

check says whether node FROM may have METHOD run with these arguments on the node that has this
configuration, and what decides that. The ARGs of REQOpCommand are an opCmd and its opArg. What was
changed by startProc in a node that runs is not known here.

show prints the lists and the rules.

push hands the rules in FILE to the node that runs here, for each NODE, and prints the ids of the
messages. What became of them is in the replies, in the file REQAclUpdate.log of each node.

  steward acl check central REQCliCommand systemctl restart nginx
  steward acl check central REQOpCommand startProc method=REQHttpGet allowedNodes=ship1,ship2
  steward acl push acl.toml ship1,ship2

  -configFolder FOLDER   that of the node (default ./etc, or CONFIGFOLDER in the environment)
  -json                  check, show: print JSON
  -socketFolder FOLDER   push: where the node's steward.sock is (default: as its configuration says)
  -force                 push: also rules after which central could send no others

exit codes: 0 allowed or done, 1 failed, 2 usage, 4 denied, 130 interrupted
`

// aclFlags are those of all commands about rules.
type aclFlags struct {
	*flag.FlagSet
	configFolder, socketFolder string
	json, force                bool
}

var aclCommands = map[string]struct {
	args        string
	least, most int // of args; 0 is no bound
	flags       []string
	run         func(ctx context.Context, f *aclFlags, s streams) error
}{
	"check": {"FROM METHOD [ARG...]", 2, 0, []string{"json"}, aclCheck},
	"show":  {"", 0, 0, []string{"json"}, aclShow},
	"push":  {"FILE NODE[,NODE...]", 2, 2, []string{"socketFolder", "force"}, aclPush},
}

func runACL(ctx context.Context, args []string, s streams) error {
	if len(args) == 0 {
		return usageError{hinted{errors.New("acl: no command"), "steward acl check, show or push; steward acl -h"}}
	}
	c, known := aclCommands[args[0]]
	f := &aclFlags{FlagSet: flag.NewFlagSet("acl", flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.StringVar(&f.configFolder, "configFolder", "", "")
	if slices.Contains(c.flags, "json") {
		f.BoolVar(&f.json, "json", false, "")
	}
	if slices.Contains(c.flags, "force") {
		f.BoolVar(&f.force, "force", false, "")
		f.StringVar(&f.socketFolder, "socketFolder", "", "")
	}
	rest := args
	if known {
		rest = args[1:]
	}
	switch err := f.Parse(rest); {
	case errors.Is(err, flag.ErrHelp):
		_, werr := io.WriteString(s.out, aclHelp)
		return errors.Join(werr, flag.ErrHelp)
	case !known:
		return usageError{hinted{fmt.Errorf("acl: %s is not a command", message.Quote(args[0])), "steward acl check, show or push; steward acl -h"}}
	case err != nil:
		return usageError{hinted{fmt.Errorf("acl %s: %w", args[0], err), "steward acl -h"}}
	}
	if n := f.NArg(); n < c.least || n > max(c.least, c.most) && args[0] != "check" {
		return usageError{hinted{fmt.Errorf("acl %s: %d arguments", args[0], n), strings.TrimSpace("steward acl " + args[0] + " [flags] " + c.args)}}
	}
	return c.run(ctx, f, s)
}

// rulesOf reads the configuration of a node and its rules.
func rulesOf(configFolder string, env []string) (*config.Config, *methods.Registry, *acl.File, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, nil, nil, err
	}
	cfg, err := configOf(env, "configFolder", configFolder)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	file, err := node.OpenRules(cfg, registry, func(error) {})
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	return cfg, registry, file, nil
}

// verdict is what check prints.
type verdict struct {
	Allowed bool           `json:"allowed"`
	Node    message.Node   `json:"node"`
	From    message.Node   `json:"from"`
	Method  message.Method `json:"method"`
	Own     bool           `json:"own,omitempty"` // a node's own messages are always allowed
	List    *listVerdict   `json:"list,omitempty"`
	Rules   *rulesVerdict  `json:"rules,omitempty"`
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
	Version int64  `json:"version,omitempty"` // 0: there are no rules
	Rule    string `json:"rule,omitempty"`    // that decided
	Why     string `json:"why"`
}

func aclCheck(_ context.Context, f *aclFlags, s streams) error {
	cfg, registry, file, err := rulesOf(f.configFolder, s.env)
	if err != nil {
		return err
	}
	m, err := messageOf(cfg.NodeName, f.Arg(1), f.Args()[2:], registry)
	if err != nil {
		return usageError{fmt.Errorf("acl check: %w", err)}
	}
	v := verdict{Allowed: true, Node: cfg.NodeName, From: message.Node(f.Arg(0)), Method: m.Method}
	if err := v.From.Check(); err != nil {
		return usageError{fmt.Errorf("acl check: %w", err)}
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
	if f.json {
		err = json.NewEncoder(s.out).Encode(v)
	} else {
		err = v.print(s.out)
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

func aclShow(_ context.Context, f *aclFlags, s streams) error {
	cfg, registry, file, err := rulesOf(f.configFolder, s.env)
	if err != nil {
		return err
	}
	rules := file.Now()
	if f.json {
		return json.NewEncoder(s.out).Encode(shown(cfg, file.Path(), rules))
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
	_, err = io.WriteString(s.out, b.String())
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
	Lists   map[message.Method][]string `json:"lists"`
	File    string                      `json:"file"`
	Version int64                       `json:"version,omitempty"` // 0: there are no rules
	Rules   []shownRule                 `json:"rules"`
}

type shownRule struct {
	Name    string   `json:"name"`
	Effect  string   `json:"effect"`
	From    []string `json:"from"`
	Methods []string `json:"methods"`
	Args    []string `json:"args"` // null: any
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
func aclPush(ctx context.Context, f *aclFlags, s streams) error {
	name := f.Arg(0)
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("acl push: %w", err)
	}
	registry, err := methods.Builtin()
	if err != nil {
		return err
	}
	if _, err := acl.Parse(name, string(text), registry.Names()); err != nil {
		return usageError{err}
	}
	cfg, err := configOf(s.env, "configFolder", f.configFolder, "socketFolder", f.socketFolder)
	if err != nil {
		return usageError{err}
	}
	// Without end: rules are for nodes that are away, too.
	update := client.Message{To: nodesOf(f.Arg(1)), Method: message.MethodACLUpdate, Data: []string{string(text)}, Retries: client.Unlimited}
	if f.force {
		update.Data = append(update.Data, "force")
	}
	local := client.New(cfg.SocketFolder)
	defer local.Close()
	ids, err := local.Send(ctx, update)
	if err != nil {
		return withHint(fmt.Errorf("acl push %s: %w", name, err))
	}
	for _, id := range ids {
		fmt.Fprintln(s.out, id)
	}
	return nil
}
