package config

import (
	"fmt"
	"io"
	"strings"
)

// Usage writes the help text of the flags, one line each, in groups.
func Usage(w io.Writer, methods []Method) error {
	opts, err := options(methods)
	if err != nil {
		return err
	}
	width := 0
	for _, o := range opts {
		width = max(width, len(o.name)+len(o.unit))
	}
	var b strings.Builder
	b.WriteString("Usage: steward [flags]\n")
	group := ""
	for _, o := range opts {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		help := o.help
		if def := o.show(o.def); def != "" {
			help += " (default " + def + ")"
		}
		fmt.Fprintf(&b, "  -%-*s  %s\n", width+1, o.name+" "+o.unit, help)
	}
	fmt.Fprintf(&b, "\nOne dash or two; -node is the same as -nodeName.\n"+
		"Order: default < config.toml < environment (%s for nodeName) < flag.\n"+
		"What is given by flag is written to config.toml and is the next default.\n", EnvName("nodeName"))
	_, err = io.WriteString(w, b.String())
	return err
}
