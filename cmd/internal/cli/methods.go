package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"steward/message"
	"steward/message/wire"
	"steward/methods"
	"steward/process"
)

// methodShown is what methods prints with -json.
type methodShown struct {
	Name    message.Method `json:"name"`
	Summary string         `json:"summary" doc:"what it does"`
	Details string         `json:"details,omitempty" doc:"what has to be known besides"`
	Args    string         `json:"args,omitempty" doc:"what data holds"`
	Kind    string         `json:"kind" doc:"the last part of its subject"`
	Ordered bool           `json:"ordered" doc:"whether messages of one sender run one at a time, in order"`
	Access  string         `json:"access" doc:"who may use it when nobody says: central or all"`
	Reply   message.Method `json:"reply" doc:"the reply method when a message names none"`
}

func methodsOperation() operation {
	return operation{
		name: "methods", args: "[NAME]", most: 1, result: methodShown{}, lines: true, values: "methods",
		short:   "what a node can be asked to do",
		about:   "methods shows what a node can be asked to do, and of one method all there is to know, with a message to begin with.",
		example: "steward methods\nsteward methods REQCliCommand",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(_ context.Context, c *call) error { return showMethods(c) }
		},
	}
}

func showMethods(c *call) error {
	registry, err := methods.Builtin()
	if err != nil {
		return err
	}
	all := registry.All()
	if len(c.args) == 1 {
		spec, ok := registry.Lookup(message.Method(c.args[0]))
		if !ok {
			return hinted{fmt.Errorf("there is no method %s%s", message.Quote(c.args[0]), wire.DidYouMean(c.args[0], registry.Names())), "steward methods lists them"}
		}
		if !c.json {
			return showMethod(c, spec)
		}
		all = []process.Spec{spec}
	}
	t := c.table("METHOD", "DATA", "DOES")
	for _, s := range all {
		if !c.json {
			t.row(s.Name, s.Args, s.Summary)
			continue
		}
		if err := c.printJSON(methodShown{s.Name, s.Summary, s.Details, s.Args, s.Kind.String(), s.Ordered, accessName(s.Access), s.Reply}); err != nil {
			return err
		}
	}
	return t.flush()
}

func accessName(a process.Access) string {
	if a == process.AccessAll {
		return "all"
	}
	return "central"
}

func showMethod(c *call, s process.Spec) error {
	m := message.Message{To: "ship1", Method: s.Name, ReplyMethod: s.Reply}
	example := `{"toNode":"ship1","method":"` + string(m.Method) + `"`
	var data []string
	for _, word := range strings.Fields(s.Args)[:min(s.MinArgs, len(strings.Fields(s.Args)))] {
		data = append(data, `"`+word+`"`)
	}
	if len(data) > 0 {
		example += `,"data":[` + strings.Join(data, ",") + `]`
	}
	if s.Name == message.MethodOpCommand {
		example += `,"operation":{"opCmd":"ps"}`
	}
	example += "}"
	access := "every node"
	if s.Access == process.AccessCentral {
		access = "the central node"
	}
	order := "many at once, in no order"
	if s.Ordered {
		order = "one at a time for each sender, in order"
	}
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(c.out, format+"\n", args...)
		errs = append(errs, err)
	}
	line("%s: %s", s.Name, s.Summary)
	if s.Details != "" {
		line("%s", s.Details)
	}
	line("")
	if s.Args != "" {
		line("data         %s", s.Args)
	}
	line("runs         %s", order)
	line("reply        %s, when the message names none", s.Reply)
	line("who may      %s, unless startSub%s says so", access, s.Name)
	line("example      %s", example)
	return errors.Join(errs...)
}
