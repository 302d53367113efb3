package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"steward/config"
	"steward/message"
	"steward/methods"
)

// errorLine is what errors prints with -json.
type errorLine struct {
	Time string     `json:"time" doc:"when it failed, by the clock of the node"`
	ID   message.ID `json:"id,omitzero" doc:"of the message that it is about, if there is one"`
	Text string     `json:"text" doc:"what failed: key=value pairs"`
}

func errorsOperation() operation {
	return operation{
		name: "errors", args: "[NODE]", most: 1, local: true, result: errorLine{}, lines: true, values: "nodes",
		short: "what failed lately, here and on the nodes that tell this one",
		about: `errors prints the last lines of the error log, of all nodes or of one: what failed there, and when. All
nodes send their errors to central, so that is where to look. What a command wrote on stderr that ended well is there
too, and shown with -stderr only. The files are read without asking the node, which need
not run.`,
		example: "steward errors\nsteward errors -f ship1",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			follow := flags.Bool("f", false, "go on with what is written, until Ctrl-C")
			n := flags.Int("n", 20, "the last `N` lines; 0: all, or none with -f")
			stderr := flags.Bool("stderr", false, "also what commands wrote on stderr that ended well")
			return func(ctx context.Context, c *call) error { return errorLog(ctx, c, *n, *follow, *stderr) }
		},
	}
}

func errorLog(ctx context.Context, c *call, n int, follow, stderr bool) error {
	if n < 0 {
		return usageError{errors.New("-n is negative")}
	}
	var of message.Node // nobody: of all
	if len(c.args) == 1 {
		of = message.Node(c.args[0])
		if err := of.Check(); err != nil {
			return usageError{err}
		}
	}
	cfg, local, err := c.node(ctx)
	if err != nil {
		return err
	}
	defer local.Close()
	log := methods.ErrorLog{Folder: cfg.SubscribersDataFolder, Stderr: stderr, Log: newLogger(c.err, cfg)}
	// A node that runs knows better than the settings, which may have changed.
	self, central := cfg.NodeName, cfg.CentralNodeName
	info, away := local.Node(ctx)
	if away == nil {
		log.Folder, self, central = info.DataFolder, info.Node, info.Central
	}
	known, err := log.Nodes()
	if err != nil {
		return err
	}
	if away != nil && len(known) == 0 {
		if _, err := os.Stat(filepath.Join(cfg.ConfigFolder, "config.toml")); errors.Is(err, fs.ErrNotExist) {
			return away // there is no node of which it could be said that nothing failed
		}
	}
	if log.Node = of; of != "" {
		known = append(known, string(self), string(central))
		for p, err := range local.Nodes(ctx) {
			if err != nil {
				break // it does not run
			}
			known = append(known, string(p.Node))
		}
	}
	unknown := of != "" && !slices.Contains(known, string(of))
	if unknown && follow {
		c.noErrorsOf(of, known, away == nil) // before it is waited for
	}
	none := true
	show := func(line string) error {
		none = false
		return c.errorLine(line)
	}
	if follow {
		err = log.Follow(ctx, n, show)
	} else {
		err = log.Last(n, show)
	}
	switch {
	case err != nil || !none:
	case unknown:
		c.noErrorsOf(of, known, away == nil)
	default:
		whose := ""
		if of != "" {
			whose = " of " + string(of)
		}
		fmt.Fprintf(c.err, "no errors%s are known here\n", whose)
		if central != self {
			fmt.Fprintf(c.err, "hint: the errors of this node are on %s\n", central)
		}
	}
	return err
}

// noErrorsOf says that a name is not known; all: known has all nodes that are.
func (c *call) noErrorsOf(name message.Node, known []string, all bool) {
	text := "no errors of %s are known here\n"
	if all {
		text = "no errors of %s are known, and no node of that name\n"
	}
	fmt.Fprintf(c.err, text+"hint: %s\n", name, config.DidYouMean(string(name), known, "steward nodes shows those that are known here"))
}

// errorLine prints a line of the error log.
func (c *call) errorLine(line string) error {
	if !c.json {
		_, err := fmt.Fprintln(c.out, line)
		return err
	}
	return c.printJSON(parseErrorLine(line))
}

func parseErrorLine(line string) (l errorLine) {
	l.Time, l.Text, _ = strings.Cut(line, " ")
	head, _, _ := strings.Cut(l.Text, " cause=")
	for _, pair := range strings.Fields(head) {
		if id, ok := strings.CutPrefix(pair, "id="); ok {
			l.ID, _ = message.ParseID(id) // a line that somebody else has written has none
		}
	}
	return l
}
