package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"steward/config"
	"steward/message"
	"steward/methods"
	"steward/process"
)

var update = flag.Bool("update", false, "write the documents that are made from the code")

const root = "../../.."

func builtin(t *testing.T) *methods.Registry {
	t.Helper()
	registry, err := methods.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

// Documents that are made from the code say what the code says.
func TestGeneratedDocumentsAreUpToDate(t *testing.T) {
	registry := builtin(t)
	schema, err := messageSchema(registry)
	if err != nil {
		t.Fatal(err)
	}
	man, err := manPage()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"steward.1":           man,
		"message.schema.json": string(schema),
		"methods.md":          methodsDocument(t, registry),
		"commands.md":         commandsDocument(),
		"configuration.md":    configurationDocument(t, registry),
	} {
		path := filepath.Join(root, "doc", name)
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if line, want, got := firstDifference(text, string(have)); line != 0 {
			t.Errorf("doc/%s:%d is not what the code says; run make generate\nhave %q\nwant %q", name, line, got, want)
		}
	}
}

// firstDifference returns the first line in which two texts differ, or 0.
func firstDifference(want, got string) (line int, wanted, have string) {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		wanted, have = "", ""
		if i < len(w) {
			wanted = w[i]
		}
		if i < len(g) {
			have = g[i]
		}
		if wanted != have || i >= len(w) || i >= len(g) {
			return i + 1, wanted, have
		}
	}
	return 0, "", ""
}

const generated = "<!-- Made from the code by `make generate`. Change it there. -->\n\n"

const methodsHead = `# Methods

What a node can be asked to do. Fields of a message, ways to send one, and more about commands, tails,
web pages, operations and files: [messages.md](messages.md).

| method | does | who may use it, when nobody says |
|---|---|---|
`

const methodsMiddle = `
**Kind** is the last part of the subject ` + "`<node>.<method>.<kind>`" + ` on which a message travels. An ACK says that the
receiver has it on disk; a NACK kind is sent once and not kept.

**Who may use it** is a list of each node for itself, ` + "`startSub<method>`" + `
([configuration.md](configuration.md#subscribers)), and with which arguments is for the rules in [acl.md](acl.md), if there are
any. A node's own messages are always allowed.

**Order** is about messages of one sender for one method of one node.

**A crash** is one of the node that runs the method, while it runs.
`

func methodsDocument(t *testing.T, registry *methods.Registry) string {
	var b strings.Builder
	b.WriteString(generated + methodsHead)
	for _, s := range registry.All() {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s |\n", s.Name, strings.ToLower(string(s.Name)), cell(s.Summary), accessText(t, s))
	}
	b.WriteString(methodsMiddle)
	for _, s := range registry.All() {
		file := exampleOf(s.Name)
		example, err := os.ReadFile(filepath.Join(root, "example", file))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s.", s.Name, cell(capital(s.Summary)))
		if s.Details != "" {
			b.WriteString(" " + s.Details)
		}
		args := "none"
		if s.Args != "" {
			args = "`" + s.Args + "`"
		}
		b.WriteString("\n\n| | |\n|---|---|\n")
		fmt.Fprintf(&b, "| arguments, in `data` | %s |\n", args)
		fmt.Fprintf(&b, "| kind | `%s` |\n", s.Kind)
		fmt.Fprintf(&b, "| who may use it, when `startSub%s` does not say | %s |\n", s.Name, accessText(t, s))
		fmt.Fprintf(&b, "| order | %s |\n", orderText(s))
		fmt.Fprintf(&b, "| after a crash | %s |\n", crashText(t, s))
		fmt.Fprintf(&b, "| reply method, when the message names none | %s |\n", replyText(s))
		fmt.Fprintf(&b, "\n[example/%s](../example/%s):\n\n```json\n%s\n```\n", file, file, bytes.TrimSpace(example))
	}
	return b.String()
}

func accessText(t *testing.T, s process.Spec) string {
	switch s.Access {
	case process.AccessCentral:
		return "the central node"
	case process.AccessAll:
		return "every node"
	}
	t.Fatalf("%s: access %d has no text", s.Name, s.Access)
	return ""
}

func orderText(s process.Spec) string {
	switch {
	case s.Ordered:
		return "one after the other, as accepted"
	case s.Parallel > 0:
		return fmt.Sprintf("none; up to %d at a time", s.Parallel)
	}
	return "none; up to `maxParallel` at a time"
}

func crashText(t *testing.T, s process.Spec) string {
	switch s.Crash {
	case process.Repeat:
		return "it is run again, which does no harm"
	case process.Once:
		return "it is not run again unless `methodRetries` says so; the sender learns `interrupted`"
	case process.Exact:
		return "what was half done is taken back, and it is run again: its effect is there once"
	case process.Resume:
		return "it goes on from where it was, in the time that is left"
	}
	t.Fatalf("%s: crash %d has no text", s.Name, s.Crash)
	return ""
}

func replyText(s process.Spec) string {
	if s.Reply == message.MethodNone {
		return "`REQNone`: it makes no reply"
	}
	return "`" + string(s.Reply) + "`"
}

// exampleOf makes req_n_cli_command.json of REQnCliCommand.
func exampleOf(m message.Method) string {
	var b strings.Builder
	b.WriteString("req")
	for i, r := range strings.TrimPrefix(string(m), "REQ") {
		if i == 0 || unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String() + ".json"
}

// cell makes text fit into a cell of a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`).Replace(s) }

const configurationHead = `# Configuration

A node is told what it is by settings. The value of each comes from the strongest that has one:

1. the **flag**, ` + "`-nodeName=ship1`, with one dash or two (`-node` is the same as `-nodeName`);" + `
2. the **environment**, ` + "`STEWARD_NODE_NAME=ship1`;" + `
3. the **file**, ` + "`config.toml` in the config folder;" + `
4. the default.

**The config folder** is ` + "`./etc`, or what `-configFolder`, `STEWARD_CONFIG_FOLDER`, `CONFIGFOLDER` or `CONFIG_FOLDER`" + ` says,
the first of them that is given. It cannot stand in the file that it finds.

**The file** is made by the first start, with every setting, its default and what it means. Later starts read it; they
add settings that it lacks, and keep comments, order and layout. It is replaced in one step, so that it is the old or
the new one at any moment. One that cannot be written is a warning in the log, and the node goes on. One that is
no TOML stops the start with file, line and column; so does a key that is not known, with the nearest that
is. Delete the file to get all defaults back.

**Write-back.** A value given by flag is written to the file, and so is the default of the next start; a value from the
environment counts for one start. Only settings with which a node could be built are written.

**` + "`RST`" + `** in place of the nodes of a ` + "`startSub…`" + ` setting switches that subscriber off and empties its list, by flag in the file
too. In the file an empty list is the same. Nobody but the node itself can then use the method there; name nodes to switch it on
again.

` + "`steward -help`" + ` prints the same list.

**Changes** of the file take effect at the next start. With a SIGHUP to the node some do at once:
[operating.md](operating.md#a-node) says which.
`

func configurationDocument(t *testing.T, registry *methods.Registry) string {
	settings, err := config.Describe(configMethods(registry))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(generated + configurationHead)
	group := ""
	for _, s := range settings {
		if s.Group != group {
			group = s.Group
			fmt.Fprintf(&b, "\n## %s\n\n| flag, and in the file | environment | value | default | meaning |\n|---|---|---|---|---|\n", group)
		}
		value, def := s.Unit, "empty"
		if s.Limits != "" {
			value += ", " + s.Limits
		}
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", s.Name, s.Env, value, def, cell(s.Help))
	}
	return b.String()
}
