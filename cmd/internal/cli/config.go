package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/methods"
)

// setting is what config show prints with -json.
type setting struct {
	Name    string        `json:"name"`
	Value   string        `json:"value" doc:"as it would be given by flag; passwords are dots"`
	Origin  config.Origin `json:"origin" doc:"default, file, environment or flag"`
	Where   string        `json:"where" doc:"the flag, the variable, or file:line:column"`
	Default bool          `json:"default" doc:"whether the value is the default, wherever it comes from"`
}

func configOperations() []operation {
	return []operation{
		{
			name: "config show", args: "[NAME...]", most: -1, local: true, result: setting{}, lines: true, values: "settings",
			short: "each setting, and where its value comes from",
			about: `config show prints the settings that a node would have that is started here now, and where the value of
each comes from. The first start of a node writes all defaults into config.toml: those are shown as default, with the place where they
stand. Passwords are shown as dots. Other flags of a node can be given behind --.`,
			example: "steward config show\nsteward config show brokerAddress nodeName\nsteward config show -- -nodeName=ship1",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error { return configShow(c) }
			},
		},
		{
			name: "config check", local: true,
			short: "whether the settings make sense",
			about: `config check reads config.toml and the environment as a node does at its start, and says what is wrong
with them, with file, line and column. Nothing is written.`,
			example: "steward config check -configFolder /etc/steward",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error { return configCheck(c) }
			},
		},
		{
			name:    "config default",
			short:   "a config.toml with every setting, its default, and what it means",
			about:   "config default prints the config.toml that a node writes at its first start: every setting, its default, and what it means.",
			example: "steward config default > etc/config.toml",
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(_ context.Context, c *call) error {
					registry, err := methods.Builtin()
					if err != nil {
						return err
					}
					text, err := config.DefaultFile(configMethods(registry))
					if err == nil {
						_, err = io.WriteString(c.out, text)
					}
					return err
				}
			},
		},
	}
}

func configShow(c *call) error {
	var names, flags []string
	for i, arg := range c.args {
		if len(arg) > 0 && arg[0] == '-' {
			flags = c.args[i:]
			break
		}
		names = append(names, arg)
	}
	cfg, err := c.config(flags...)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	t := c.table("SETTING", "VALUE", "FROM")
	for _, v := range cfg.Values() {
		if known[v.Name] = true; len(names) > 0 && !wanted[v.Name] {
			continue
		}
		if c.json {
			if err := c.printJSON(setting{v.Name, v.Value, v.Origin, v.Where, v.Default}); err != nil {
				return err
			}
			continue
		}
		from := v.Where
		if v.Default && v.Origin == config.FromFile {
			from = "default (" + from + ")"
		}
		t.row(v.Name, v.Value, from)
	}
	for _, name := range names {
		if !known[name] {
			return usageError{hinted{fmt.Errorf("there is no setting %q%s", name, nearest(name, slices.Collect(maps.Keys(known)))), "steward config show lists them"}}
		}
	}
	return t.flush()
}

func configCheck(c *call) error {
	cfg, err := c.config()
	var wrong usageError
	if errors.As(err, &wrong) {
		return wrong.error // which is what it was asked for
	}
	if err != nil {
		return err
	}
	if err := node.CheckFolders(cfg); err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintf(c.err, "steward: config check: warning: %s\n", w)
	}
	path := filepath.Join(cfg.ConfigFolder, "config.toml")
	text := "%s is good; the node is called %s\n"
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		text = "there is no %s: with the defaults, the node is called %s\n"
	}
	_, err = fmt.Fprintf(c.out, text, path, cfg.NodeName)
	return err
}
