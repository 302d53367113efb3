package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"steward/config"
	"steward/methods"
)

func manOperation() operation {
	return operation{
		name:    "man",
		short:   "print the manual page, steward(1)",
		about:   "man prints the manual page steward(1), in the language of man: every command with its flags, and every setting of a node.",
		example: "steward man | man -l -\nsteward man > /usr/local/share/man/man1/steward.1",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(_ context.Context, c *call) error {
				text, err := manPage()
				if err == nil {
					_, err = io.WriteString(c.out, text)
				}
				return err
			}
		},
	}
}

// roff writes a manual page.
type roff struct{ strings.Builder }

// escape keeps text from being taken for requests.
func (r *roff) escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// text writes lines of a paragraph, and a new one for each empty line.
func (r *roff) text(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			r.WriteString(".PP\n")
			continue
		}
		r.WriteString(r.escape(line) + "\n")
	}
}

func (r *roff) section(name string)    { fmt.Fprintf(r, ".SH %s\n", r.escape(strings.ToUpper(name))) }
func (r *roff) subsection(name string) { fmt.Fprintf(r, ".SS %s\n", r.escape(name)) }

// item writes a term, and what it means below it.
func (r *roff) item(term, rest, meaning string) {
	r.WriteString(".TP\n\\fB" + r.escape(term) + "\\fR")
	if rest != "" {
		r.WriteString(" \\fI" + r.escape(rest) + "\\fR")
	}
	r.WriteString("\n")
	r.text(meaning)
}

// listing writes lines as they are.
func (r *roff) listing(text string) {
	r.WriteString(".PP\n.RS 4\n.nf\n")
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		r.WriteString(r.escape(strings.TrimSpace(line)) + "\n")
	}
	r.WriteString(".fi\n.RE\n")
}

// manPage is the manual page of steward. It is the same whatever the version, so that it can lie in the repository.
func manPage() (string, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return "", err
	}
	settings, err := config.Describe(configMethods(registry))
	if err != nil {
		return "", err
	}
	var r roff
	r.WriteString(".\\\" Made from the code by make generate. Change it there.\n.TH STEWARD 1\n.nh\n.ad l\n")
	r.section("Name")
	r.text("steward - control machines whose link comes and goes")
	r.section("Synopsis")
	r.WriteString("\\fBsteward\\fR [\\fIflags\\fR]\n.br\n\\fBsteward\\fR \\fIcommand\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n")
	r.section("Description")
	r.text(`Without a command, steward runs a node. A message that is handed to a node is kept on its disk until the node that it is for
takes it, is run there once, and its reply is brought back.

The commands are for operators, on the machine of a node, as its user. Flags have one dash or two, and stand before or behind the
arguments. A TIME is 90s, 10m or 1h; a number alone is seconds. What was asked for goes to stdout, everything else to stderr.`)
	r.section("Commands")
	for _, c := range commands() {
		for i := range c.operations {
			r.operation(&c.operations[i])
		}
	}
	r.section("Settings of a node")
	r.text(`Each is a flag of a node, a key of config.toml in its config folder, and a variable of the environment. A flag counts for more than
the environment, that for more than the file.`)
	group := ""
	for _, s := range settings {
		if s.Group != group {
			group = s.Group
			r.subsection(group)
		}
		meaning := s.Help
		if s.Default != "" {
			meaning += " (default " + s.Default + ")"
		}
		r.item("-"+s.Name, s.Unit, meaning+"\n")
	}
	r.section("Exit status")
	r.text("0 done, 1 failed, 2 usage, 3 some nodes did not answer, 4 denied, 5 timed out, 130 interrupted. Each command says what they mean for it.")
	r.section("Environment")
	r.item("CONFIGFOLDER", "", "The config folder of the node, when no flag names one.")
	r.item("STEWARD_...", "", "A setting of a node: STEWARD_NODE_NAME is nodeName.")
	r.section("Files")
	r.item("./etc/config.toml", "", "The settings of the node that is started in this folder. The first start writes it.")
	r.item("./tmp/steward.sock", "", "The socket through which a node takes messages.")
	r.item("./tmp/control.sock", "", "The socket through which it answers the commands.")
	return r.String(), nil
}

func (r *roff) operation(o *operation) {
	r.subsection("steward " + o.usage())
	about := strings.TrimPrefix(o.about, o.name+" ")
	r.text(strings.ToUpper(about[:1]) + about[1:])
	flags, _ := o.flags(&call{})
	for _, l := range flagLines(flags) {
		name, value, _ := strings.Cut(l[0], " ")
		r.item(name, value, l[1])
	}
	r.WriteString(".PP\nExit status: " + r.escape(o.exitCodes()) + ".\n")
	r.listing(o.example)
}
