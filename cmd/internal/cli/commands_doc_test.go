package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"steward/message"
)

const commandsHead = `# Commands

` + "`steward`" + ` without a command runs a node. The commands are for operators, on the machine of a node, as its user. Those that ask the
node do so through ` + "`<socketFolder>/control.sock`" + `, which is for whom ` + "`socketGroup`" + ` and ` + "`socketMode`" + ` let in, at first the node's user alone: who may open it may do all of
this. ` + "`-configFolder`" + ` or ` + "`-socketFolder`" + ` says which node is meant; without them it is the one that is started in the current folder.
Folders in a configuration that do not begin at the root are seen from the current folder: a node of another name that answers there is an error.

Flags have one dash or two, and stand before or behind the arguments. A TIME is 90s, 10m or 1h; a number alone is seconds. What was asked for goes to stdout, everything else to stderr: an error as
` + "`steward: what: why`" + `, with ` + "`hint:`" + ` where there is something to do about it.

**Exit codes** are 0 done, 1 failed, 2 usage, 3 some nodes did not answer, 4 denied, 5 timed out, 130 interrupted. Each command
says what they mean for it.

**` + "`-json`" + `** prints what its table says: one value on one line, or a line for each. Keys are not renamed and not taken away; there may
be more of them one day. A key without a value may be left out. Times are as in RFC 3339.

| command | does |
|---|---|
`

func commandsDocument() string {
	var b strings.Builder
	b.WriteString(generated + commandsHead)
	for _, c := range commands() {
		fmt.Fprintf(&b, "| [`steward %s`](#steward-%s) | %s |\n", c.name, c.name, cell(c.summary))
	}
	for _, c := range commands() {
		fmt.Fprintf(&b, "\n## steward %s\n\n", c.name)
		if len(c.operations) > 1 {
			fmt.Fprintf(&b, "%s. `steward %s` alone is `steward %s`.\n", capital(c.summary), c.name, c.operations[0].name)
		}
		for i := range c.operations {
			o := &c.operations[i]
			if len(c.operations) > 1 {
				fmt.Fprintf(&b, "\n### steward %s\n\n", o.name)
			}
			operationDocument(&b, o)
		}
	}
	return b.String()
}

func operationDocument(b *strings.Builder, o *operation) {
	about := strings.ReplaceAll(strings.TrimPrefix(o.about, o.name+" "), "<", `\<`)
	fmt.Fprintf(b, "    steward %s\n\n%s\n\n```sh\n%s\n```\n", o.usage(), capital(about), o.example)
	flags, _ := o.flags(&call{})
	if lines := flagLines(flags); len(lines) > 0 {
		b.WriteString("\n| flag | |\n|---|---|\n")
		for _, l := range lines {
			fmt.Fprintf(b, "| `%s` | %s |\n", l[0], cell(l[1]))
		}
	}
	fmt.Fprintf(b, "\nExit codes: %s.\n", o.exitCodes())
	if o.result == nil {
		return
	}
	each := "one value"
	if o.lines {
		each = "a line for each"
	}
	result := reflect.TypeOf(o.result)
	if result.Kind() == reflect.Slice {
		each, result = "an array of values", result.Elem()
	}
	fmt.Fprintf(b, "\n`-json` prints %s:\n\n| key | | |\n|---|---|---|\n", each)
	keys(b, result, "", nil)
}

// keys writes a row for each key of the JSON of a type.
func keys(b *strings.Builder, t reflect.Type, prefix string, above []reflect.Type) {
	above = append(above, t)
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner, kind := f.Type, "number"
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		many := ""
		if inner.Kind() == reflect.Slice && inner != reflect.TypeFor[json.RawMessage]() {
			inner, many = inner.Elem(), "[]"
		}
		switch inner {
		case reflect.TypeFor[time.Time]():
			kind = "time"
		case reflect.TypeFor[message.ID]():
			kind = "id"
		case reflect.TypeFor[json.RawMessage]():
			kind = "object"
		default:
			if k, ok := map[reflect.Kind]string{reflect.Struct: "object", reflect.Map: "object", reflect.String: "string", reflect.Bool: "bool"}[inner.Kind()]; ok {
				kind = k
			}
		}
		doc := f.Tag.Get("doc")
		if strings.Contains(options, "omitempty") {
			kind += ", may be absent"
		}
		fmt.Fprintf(b, "| `%s%s%s` | %s | %s |\n", prefix, name, many, kind, cell(doc))
		if strings.HasPrefix(kind, "object") && inner.Kind() == reflect.Struct && !slices.Contains(above, inner) {
			keys(b, inner, prefix+name+many+".", above)
		}
	}
}

// Each operation has what its help is made of, and each key of its JSON is said once.
func TestOperationsAreComplete(t *testing.T) {
	for _, c := range commands() {
		for _, o := range c.operations {
			if o.short == "" || o.about == "" || o.example == "" || o.define == nil || strings.Contains(o.short, "\n") {
				t.Errorf("%s lacks a text", o.name)
			}
			if !strings.HasPrefix(o.about, o.name+" ") || !strings.Contains(o.example, "steward "+strings.Fields(o.name)[0]) {
				t.Errorf("%s: its texts do not begin with its name", o.name)
			}
			if o.result == nil {
				continue
			}
			seen := map[string]bool{}
			result := reflect.TypeOf(o.result)
			if result.Kind() == reflect.Slice {
				result = result.Elem()
			}
			for f := range result.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name == "" || seen[name] {
					t.Errorf("%s: key %q of %s", o.name, name, f.Name)
				}
				seen[name] = true
			}
		}
	}
}

// What the help of run says of the time that a command has is what a node begins with.
func TestRunNamesTheDefaultTime(t *testing.T) {
	cfg, err := configFrom(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if about := strings.Join(strings.Fields(runOperation().about), " "); !strings.Contains(about, fmt.Sprintf("ended after %v (defaultMethodTimeout", cfg.DefaultMethodTimeout)) {
		t.Errorf("got %q, and a command has %v", about, cfg.DefaultMethodTimeout)
	}
}

// A flag that has a value when nobody gives one says which.
func TestFlagsNameTheirDefaults(t *testing.T) {
	for _, c := range commands() {
		for _, o := range c.operations {
			flags, _ := o.flags(&call{})
			said := map[string]string{}
			for _, line := range flagLines(flags) {
				name, _, _ := strings.Cut(line[0], " ")
				said[name] = line[1]
			}
			flags.VisitAll(func(f *flag.Flag) {
				if none := f.DefValue == "" || f.DefValue == "0" || f.DefValue == "false"; !none && !strings.Contains(said["-"+f.Name], "default "+f.DefValue) {
					t.Errorf("%s: -%s is %s, and its help says %q", o.name, f.Name, f.DefValue, said["-"+f.Name])
				}
			})
		}
	}
}
