package config

import (
	"fmt"
	"strconv"
	"strings"
)

// header is the top of a new file.
const header = `# The settings of this node. Each start reads them. A value given by flag is written
# here, too, and so becomes the next default; one from the environment (STEWARD_NODE_NAME
# for nodeName) counts for that start only. Order: this file < environment < flag.
#
# Times are in whole seconds. A startSub... list says which nodes may use a method here:
# names, "*" for all, "` + Central + `" for the central node whatever its name. An empty
# list is a subscriber that is switched off, as -startSub...=` + Off + ` does.
#
# Delete this file to get all defaults back.
`

// newText returns a file with every value given and a comment for each.
func newText(values []change) []byte {
	var b strings.Builder
	b.WriteString(header)
	group := ""
	for _, v := range values {
		if v.group != group {
			group = v.group
			fmt.Fprintf(&b, "\n# ---- %s ----\n", group)
		}
		b.WriteString("\n" + v.block())
	}
	return []byte(b.String())
}

// block returns the lines of a setting: its comment and key = value.
func (c change) block() string {
	about := c.help
	if c.unit == "seconds" {
		about += "; in seconds"
	}
	return "# " + about + ". Default: " + strings.ReplaceAll(encode(c.def, nil), "\n", " ") + "\n" +
		c.name + " = " + encode(c.value, nil) + "\n"
}

// encode returns v as TOML. Comments that stood in a list stay in it.
func encode(v any, comments []string) string {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case string:
		return quote(v)
	case []string:
		items := make([]string, 0, len(v))
		for _, s := range v {
			items = append(items, quote(s))
		}
		if len(comments) == 0 {
			return "[" + strings.Join(items, ", ") + "]"
		}
		text := "[\n"
		for _, c := range comments {
			text += "  " + c + "\n"
		}
		for _, item := range items {
			text += "  " + item + ",\n"
		}
		return text + "]"
	}
	panic(fmt.Sprintf("config: no TOML for a %T", v))
}

// quote returns a TOML basic string. The values here are UTF-8 without control characters.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
