package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"steward/config"
	"steward/methods"
)

// completionScripts ask steward itself for the words, so they are the same whatever commands there are.
var completionScripts = map[string]string{
	"bash": `_steward() {
	local IFS=$'\n'
	COMPREPLY=($(steward completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _steward steward
`,
	"zsh": `#compdef steward
_steward() {
	local -a candidates
	candidates=("${(@f)$(steward completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n ${candidates[1]} ]]; then
		compadd -a candidates
	else
		_files
	fi
}
compdef _steward steward
`,
	"fish": `function __steward_words
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	test (count $current) -eq 0; and set current ''
	steward completion words -- $before[2..-1] $current 2>/dev/null
end
complete -c steward -a '(__steward_words)'
`,
}

// completionPatience is how long a shell waits for the names of nodes.
const completionPatience = time.Second

func completionOperation() operation {
	return operation{
		name: "completion", args: "bash|zsh|fish", least: 1, most: -1, takesCommand: true, local: true, values: "shells",
		short: "a script that completes commands, flags, nodes and methods in a shell",
		about: `completion prints a script for a shell, which then completes commands, flags, settings, methods and the names of the nodes
that the node that runs here knows.`,
		example: "source <(steward completion bash)\nsteward completion fish > ~/.config/fish/completions/steward.fish",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(ctx context.Context, c *call) error {
				if c.args[0] == "words" {
					return c.completeWords(ctx, c.args[1:])
				}
				script, ok := completionScripts[c.args[0]]
				if !ok || len(c.args) > 1 {
					return usageError{hinted{fmt.Errorf("%q is not bash, zsh or fish", strings.Join(c.args, " ")), "steward completion bash"}}
				}
				_, err := io.WriteString(c.out, script)
				return err
			}
		},
	}
}

// completeWords prints what the last of words, those behind the name of the program, can be.
func (c *call) completeWords(ctx context.Context, words []string) error {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	list, err := c.candidates(ctx, words[:len(words)-1], words[len(words)-1])
	if err != nil {
		return err
	}
	last := words[len(words)-1]
	done := ""
	if i := strings.LastIndexByte(last, ','); i >= 0 { // one more of a list
		done = last[:i+1]
	}
	for _, w := range list {
		if w = done + w; strings.HasPrefix(w, last) {
			fmt.Fprintln(c.out, w)
		}
	}
	return nil
}

// candidates are the words that can stand behind those before.
func (c *call) candidates(ctx context.Context, before []string, last string) ([]string, error) {
	if len(before) == 0 {
		if strings.HasPrefix(last, "-") {
			settings, err := c.settingNames()
			return dashed(settings, last), err
		}
		names := []string{"help"}
		for _, cmd := range commands() {
			names = append(names, cmd.name)
		}
		return names, nil
	}
	op, before, more := namedOperation(before)
	if op == nil {
		return more, nil
	}
	flags, _ := op.flags(&call{})
	if flag := flags.Lookup(strings.TrimLeft(before[len(before)-1], "-")); flag != nil && strings.HasPrefix(before[len(before)-1], "-") {
		switch unquoted(flag) {
		case "NODE":
			return c.nodeNames(ctx), nil
		case "METHOD":
			return methodNames()
		case "":
		default:
			return nil, nil // a file, or what nobody can guess
		}
	}
	if strings.HasPrefix(last, "-") {
		var names []string
		for _, f := range flagLines(flags) {
			name, _, _ := strings.Cut(strings.TrimLeft(f[0], "-"), " ")
			names = append(names, name)
		}
		return dashed(names, last), nil
	}
	if begun := new(call); op.takesCommand && begun.parse(flags, before[1:], true) == nil && len(begun.args) > 0 {
		return nil, nil // the command
	}
	switch op.values {
	case "nodes":
		return append(c.nodeNames(ctx), more...), nil
	case "methods":
		return methodNames()
	case "settings":
		return c.settingNames()
	case "shells":
		return []string{"bash", "zsh", "fish"}, nil
	}
	return more, nil
}

// namedOperation returns the operation that words name, and those of its words that are left, its name being the
// first of them; or no operation, and what the next word can be. With an operation, more is what else can
// stand in the place of its first argument.
func namedOperation(words []string) (op *operation, rest, more []string) {
	for _, cmd := range commands() {
		if cmd.name != words[0] || len(cmd.operations) == 0 {
			continue
		}
		for i := range cmd.operations {
			o := &cmd.operations[i]
			_, sub, several := strings.Cut(o.name, " ")
			if several && len(words) == 1 {
				more = append(more, sub)
			}
			if len(words) > 1 && o.called(words[1]) {
				return o, words[1:], nil
			}
		}
		return &cmd.operations[0], words, more
	}
	return nil, words, nil
}

func dashed(names []string, last string) []string {
	dash := "-"
	if strings.HasPrefix(last, "--") {
		dash = "--"
	}
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = dash + name
	}
	return list
}

// nodeNames are the nodes that the node knows that runs here; none when it does not answer.
func (c *call) nodeNames(ctx context.Context) (names []string) {
	local, err := c.local(ctx)
	if err != nil {
		return nil
	}
	defer local.Close()
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	info, err := local.Node(ctx)
	if err != nil {
		return nil
	}
	names = append(names, string(info.Node))
	for p, err := range local.Nodes(ctx) {
		if err == nil && p.Node != info.Node { // what came until an error is of use
			names = append(names, string(p.Node))
		}
	}
	return names
}

func methodNames() (names []string, err error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	for _, name := range registry.Names() {
		names = append(names, string(name))
	}
	return names, nil
}

func (c *call) settingNames() (names []string, err error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	settings, err := config.Describe(configMethods(registry))
	for _, s := range settings {
		names = append(names, s.Name)
	}
	return names, err
}
