package config

import (
	"fmt"
	"io"
	"strings"
)

// Description is what there is to know about a setting before it has a value.
type Description struct {
	Name    string // of the flag and in the file
	Env     string // the environment variable
	Group   string
	Unit    string // string, int, seconds or nodes
	Limits  string // of a number
	Default string // as it would be given by flag
	Help    string
	InFile  bool // whether it stands in config.toml
}

// Describe returns every setting in the order of the help text.
func Describe(methods []Method) ([]Description, error) {
	opts, err := options(methods)
	if err != nil {
		return nil, err
	}
	list := make([]Description, 0, len(opts))
	for _, o := range opts {
		list = append(list, Description{Name: o.name, Env: EnvName(o.name), Group: o.group, Unit: o.unit, Limits: o.limits,
			Default: o.show(o.def), Help: o.help, InFile: o.inFile()})
	}
	return list, nil
}

// Usage writes the help text of the flags, one line each, in groups.
func Usage(w io.Writer, methods []Method) error {
	opts, err := Describe(methods)
	if err != nil {
		return err
	}
	width := 0
	for _, o := range opts {
		width = max(width, len(o.Name)+len(o.Unit))
	}
	var b strings.Builder
	b.WriteString("Usage: steward [flags]\n")
	group := ""
	for _, o := range opts {
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		help := o.Help
		if o.Default != "" {
			help += " (default " + o.Default + ")"
		}
		fmt.Fprintf(&b, "  -%-*s  %s\n", width+1, o.Name+" "+o.Unit, help)
	}
	fmt.Fprintf(&b, "\nOne dash or two; -node is the same as -nodeName.\n"+
		"Order: default < config.toml < environment (%s for nodeName) < flag.\n"+
		"What is given by flag is written to config.toml and is the next default.\n", EnvName("nodeName"))
	_, err = io.WriteString(w, b.String())
	return err
}
