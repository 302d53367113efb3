package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"steward/client"
	"steward/config"
)

// operation is a command of an operator. Its help, its completion and its part of doc/commands.md
// are made from this.
type operation struct {
	name    string // with the name of its command before it: queue rm
	also    string // another word for the last one of name, in few cases
	args    string // as in the help: ID..., none when empty
	short   string // what it does, in a few words
	about   string // what it does, in full
	example string // one or more lines to be typed
	// exits are the exit codes besides 0, 1, 2 and 130 that have a meaning here.
	exits string
	// result is what -json prints, as a value without a content, nil for a command without it. lines: one
	// such value to a line.
	result any
	lines  bool
	// values are what a shell completes an argument with: the word for it in words.
	values string
	// local: it is about the node that runs here, and takes the flags that say where that is.
	local bool
	// configured: it is about what a configuration says, and takes the flag that says where that is.
	configured bool
	// takesCommand: its last arguments are a command with flags of its own. The operation's stand before its first
	// argument, or before --.
	takesCommand bool
	// least and most are how many arguments it takes; most -1 is any number.
	least, most int
	// define declares its flags, and returns what it does.
	define func(flags *flag.FlagSet) func(context.Context, *call) error
}

// call is one run of an operation.
type call struct {
	streams
	args []string
	json bool
	// before is how many of args stood before --; 0 without that.
	before int

	configFolder, socketFolder string
}

// single makes a command of one operation.
func single(op operation) command {
	return command{name: op.name, summary: op.short, operations: []operation{op}, run: op.run}
}

// several makes a command of operations, of which the names begin with its own. Without one it is the first.
func several(name, summary string, ops ...operation) command {
	return command{name: name, summary: summary, operations: ops, run: func(ctx context.Context, args []string, s streams) error {
		switch {
		case len(args) == 0:
			return ops[0].run(ctx, args, s)
		case isHelp(args[0]):
			return errors.Join(helpOfAll(s.out, name, summary, ops), flag.ErrHelp)
		case strings.HasPrefix(args[0], "-"):
			return ops[0].run(ctx, args, s)
		}
		for _, op := range ops {
			if op.called(args[0]) {
				return op.run(ctx, args[1:], s)
			}
		}
		names := make([]string, len(ops))
		for i, op := range ops {
			names[i] = strings.TrimPrefix(op.name, name+" ")
		}
		return usageError{hinted{fmt.Errorf("%s: %q is not one of its commands%s", name, args[0], nearest(args[0], names)), "steward " + name + " -h lists them"}}
	}}
}

// called reports whether a word is the last one of its name.
func (o *operation) called(word string) bool {
	_, last, several := strings.Cut(o.name, " ")
	return several && word == last || o.also != "" && word == o.also
}

// nearest asks whether a name was meant that is much like a word, if there is one.
func nearest(word string, names []string) string {
	if question := config.DidYouMean(word, names, ""); question != "" {
		return "; " + question
	}
	return ""
}

func isHelp(arg string) bool {
	switch strings.TrimLeft(arg, "-") {
	case "h", "help":
		return strings.HasPrefix(arg, "-")
	}
	return false
}

func (o *operation) run(ctx context.Context, args []string, s streams) error {
	c := &call{streams: s}
	flags, do := o.flags(c)
	switch err := c.parse(flags, args, o.takesCommand); {
	case errors.Is(err, flag.ErrHelp):
		return errors.Join(o.help(s.out), flag.ErrHelp)
	case err != nil:
		return usageError{hinted{fmt.Errorf("%s: %w", o.name, err), "steward " + o.name + " -h"}}
	}
	switch n := len(c.args); {
	case n < o.least:
		return usageError{hinted{fmt.Errorf("%s: %s is missing", o.name, o.missing(n)), "steward " + o.usage()}}
	case o.most >= 0 && n > o.most:
		return usageError{hinted{fmt.Errorf("%s: %q is one argument too many", o.name, c.args[o.most]), "steward " + o.usage()}}
	}
	err := do(ctx, c)
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var no *client.Error
	var status exitStatus
	if errors.As(err, &status) {
		return err
	}
	named := withHint(inEachLine{o.name, err})
	if errors.As(err, &no) && no.Status == http.StatusBadRequest {
		named = usageError{named}
	}
	return named
}

// withHint adds what a node, or its client, has to say about what can be done.
func withHint(err error) error {
	if no := (*client.Error)(nil); errors.As(err, &no) && no.Hint != "" {
		return hinted{err, no.Hint}
	}
	return err
}

// flags returns the flags of the operation, whose values go into c, and what it does.
func (o *operation) flags(c *call) (*flag.FlagSet, func(context.Context, *call) error) {
	flags := flag.NewFlagSet(o.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	do := o.define(flags)
	if o.result != nil {
		flags.BoolVar(&c.json, "json", false, "print JSON")
	}
	if o.local || o.configured {
		flags.StringVar(&c.configFolder, "configFolder", "", "`FOLDER` of the node's configuration (default ./etc, or CONFIGFOLDER in the environment)")
	}
	if o.local {
		flags.StringVar(&c.socketFolder, "socketFolder", "", "`FOLDER` of the node's sockets (default: as its configuration says)")
	}
	return flags, do
}

// parse reads flags and arguments, which may come in any order, up to --. With a command among them
// and without -- the flags end at the first argument.
func (c *call) parse(flags *flag.FlagSet, args []string, command bool) error {
	command = command && !slices.Contains(args, "--")
	for {
		if err := flags.Parse(args); err != nil {
			return err
		}
		rest := flags.Args()
		if len(rest) == 0 {
			return nil
		}
		if command {
			c.args = rest
			return nil
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			c.before = len(c.args)
			c.args = append(c.args, rest...)
			return nil
		}
		c.args = append(c.args, rest[0])
		args = rest[1:]
	}
}

func (o *operation) usage() string {
	return strings.TrimSpace(o.name + " [flags] " + o.args)
}

// missing is what has to stand behind n arguments.
func (o *operation) missing(n int) string {
	for arg := range strings.FieldsSeq(o.args) {
		if strings.HasPrefix(arg, "[") {
			continue // it may be left out
		}
		if n == 0 {
			return strings.TrimSuffix(arg, "...")
		}
		n--
	}
	return "an argument"
}

func (o *operation) help(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "steward %s\n\nusage: steward %s\n", o.about, o.usage())
	for line := range strings.Lines(strings.TrimSpace(o.example) + "\n") {
		b.WriteString("\n  " + strings.TrimSpace(line))
	}
	b.WriteString("\n")
	flags, _ := o.flags(&call{})
	shown := flagLines(flags)
	width := 0
	for _, f := range shown {
		width = max(width, len(f[0]))
	}
	times := false
	for i, f := range shown {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "  %-*s  %s\n", width, f[0], f[1])
		times = times || strings.HasSuffix(f[0], " TIME")
	}
	if times {
		b.WriteString("\na TIME is 90s, 10m or 1h; a number alone is seconds\n")
	}
	fmt.Fprintf(&b, "\nexit codes: %s\n", o.exitCodes())
	_, err := io.WriteString(w, b.String())
	return err
}

func (o *operation) exitCodes() string {
	codes := "0 done, 1 failed, 2 usage"
	if o.exits != "" {
		codes += ", " + o.exits
	}
	return codes + ", 130 interrupted"
}

// unquoted is what the value of a flag is called, nothing for one without.
func unquoted(f *flag.Flag) string {
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		return ""
	}
	value, _ := flag.UnquoteUsage(f)
	return value
}

// flagLines are the flags with what they mean.
func flagLines(flags *flag.FlagSet) (lines [][2]string) {
	flags.VisitAll(func(f *flag.Flag) {
		_, usage := flag.UnquoteUsage(f)
		if none := f.DefValue == "" || f.DefValue == "0" || f.DefValue == "false"; !none && !strings.Contains(usage, "default "+f.DefValue) {
			usage += " (default " + f.DefValue + ")"
		}
		lines = append(lines, [2]string{strings.TrimSpace("-" + f.Name + " " + unquoted(f)), usage})
	})
	return lines
}

func helpOfAll(w io.Writer, name, summary string, ops []operation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "steward %s: %s\n\n", name, summary)
	for _, o := range ops {
		fmt.Fprintf(&b, "  steward %-14s %s\n", o.name, o.short)
	}
	fmt.Fprintf(&b, "\nEach has a help of its own: steward %s -h. Without a name it is the first.\n\nexit codes: 0 done, 1 failed, 2 usage, 130 interrupted\n", ops[0].name)
	_, err := io.WriteString(w, b.String())
	return err
}

// config returns the configuration of the node that is meant.
func (c *call) config(more ...string) (*config.Config, error) {
	for name, folder := range map[string]string{"configFolder": c.configFolder, "socketFolder": c.socketFolder} {
		if folder != "" {
			more = append(more, "-"+name+"="+folder)
		}
	}
	cfg, err := configFrom(more, c.env)
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

// node returns the configuration of the node that is meant, and a client of it, which is to be closed. The
// folders in a configuration may be seen from the current one: then another node may answer there, which is an
// error.
func (c *call) node(ctx context.Context) (*config.Config, *client.Client, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, nil, err
	}
	local := client.New(cfg.SocketFolder)
	var once sync.Once
	local.Lost = func(err error) {
		once.Do(func() { fmt.Fprintf(c.err, "steward: %v; it is waited for\n", err) })
	}
	if c.configFolder == "" || c.socketFolder != "" {
		return cfg, local, nil
	}
	info, err := local.Node(ctx)
	if err == nil && info.Node != cfg.NodeName {
		local.Close()
		return nil, nil, hinted{fmt.Errorf("%s answers in %s, and the configuration in %s is that of %s", info.Node, cfg.SocketFolder, c.configFolder, cfg.NodeName),
			"folders in a configuration are seen from the current one: go to the folder of the node, or say -socketFolder"}
	}
	return cfg, local, nil // when nobody answers, the command says so
}

// local is node without the configuration.
func (c *call) local(ctx context.Context) (*client.Client, error) {
	_, local, err := c.node(ctx)
	return local, err
}

// printJSON writes a value on one line.
func (c *call) printJSON(v any) error { return encodeLine(c.out, v) }

func encodeLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
