package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"steward/message"
)

// parseFlags returns the flags given, by the name of their option and unread. Of a flag
// given twice the last one counts.
func parseFlags(args []string, opts []option) (map[string]string, error) {
	given := make(map[string]string)
	fs := flag.NewFlagSet("steward", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	left := len(args) // to read, after the last flag that was understood
	set := func(name string) func(string) error {
		return func(s string) error {
			given[name] = s
			left = fs.NArg()
			return nil
		}
	}
	for _, o := range opts {
		fs.Func(o.name, o.help, set(o.name))
	}
	fs.Func("node", "the same as nodeName", set("nodeName"))

	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, flag.ErrHelp
		}
		bad, _, _ := strings.Cut(args[len(args)-left], "=")
		name := strings.TrimPrefix(strings.TrimPrefix(bad, "-"), "-")
		if fs.Lookup(name) != nil {
			return nil, fmt.Errorf("-%s: the value is missing", name)
		}
		return nil, fmt.Errorf("unknown flag %s; %s", message.Quote(bad), DidYouMean(name, names(opts), "steward -help lists them all"))
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %s; the settings of a node are flags, steward -help lists them", message.Quote(maskBrokers(strings.Join(fs.Args(), " "))))
	}
	return given, nil
}

const envPrefix = "STEWARD_"

// parseEnv returns the environment by name, and a warning for each variable that looks
// like a setting and is none.
func parseEnv(env []string, opts []option) (vars map[string]string, warnings []string) {
	known := make([]string, 0, len(opts))
	for _, o := range opts {
		known = append(known, EnvName(o.name))
	}
	// Set for commands, and so inherited by a node that one of them starts.
	foreign := []string{"STEWARD_NODE", "STEWARD_FROM", "STEWARD_MESSAGE_ID", "STEWARD_ATTEMPT"}
	vars = make(map[string]string, len(env))
	for _, v := range env {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			continue
		}
		vars[name] = value
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) && !slices.Contains(foreign, name) {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not a setting; %s", message.Quote(name), DidYouMean(name, known, "it is not read")))
		}
	}
	return vars, warnings
}

// EnvName returns the environment variable of a setting: STEWARD_ and the words of its
// name in capitals, joined by underscores. A word starts at a capital that follows a small
// letter or a digit, at the last capital of several before a small letter, and before and
// after REQ: nodeName is STEWARD_NODE_NAME, rootCAPath is STEWARD_ROOT_CA_PATH,
// startSubREQnCliCommandCont is STEWARD_START_SUB_REQ_N_CLI_COMMAND_CONT.
func EnvName(setting string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	const req = "REQ"
	before, after, found := strings.Cut(setting, req)
	writeWords(&b, before)
	if found {
		if before != "" {
			b.WriteByte('_')
		}
		b.WriteString(req)
		if after != "" {
			b.WriteByte('_')
		}
		writeWords(&b, after)
	}
	return b.String()
}

func writeWords(b *strings.Builder, name string) {
	rs := []rune(name)
	for i, r := range rs {
		if i > 0 && unicode.IsUpper(r) {
			afterSmall := !unicode.IsUpper(rs[i-1])
			beforeSmall := i+1 < len(rs) && unicode.IsLower(rs[i+1])
			if afterSmall || beforeSmall {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToUpper(r))
	}
}
