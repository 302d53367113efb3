package acl

import (
	"fmt"

	"steward/message"
)

// Rules are those of one file. They never change. Nil stands for no file, and denies nothing.
type Rules struct {
	// Version counts up from one text of the rules to the next.
	Version int64
	// Rules are in the order of the file, which means nothing.
	Rules []Rule
	text  string
}

// Rule is one rule, as it is written.
type Rule struct {
	Name string
	// Deny: what it fits is denied, whatever other rules say. Else it is allowed.
	Deny    bool
	From    []string // node names, beginnings of them with a star, or @ and the name of a group
	Methods []string // method names, or beginnings of them with a star
	// Args are patterns, one for each argument; with "..." at the end there may be more. Nil is any
	// arguments, an empty list is none.
	Args []string

	from, methods names
	args          *arguments
}

// Decision says whether something may be done.
type Decision struct {
	Allowed bool
	Rule    string // the rule that decided, empty when it was none
	Why     string // for people
}

// Decide says whether from may have self do what m says. An operation that names several nodes is
// allowed when it is for each of them.
func (r *Rules) Decide(from, self message.Node, m *message.Message) Decision {
	if r == nil {
		return Decision{Allowed: true, Why: "there are no rules"}
	}
	// How a message ended is told with a REQNone; nothing is done for one.
	if m.Method == message.MethodNone {
		return Decision{Allowed: true, Why: string(m.Method) + " does nothing and needs no rule"}
	}
	var d Decision
	for _, args := range argsOf(self, m) {
		if d = r.decide(from, m.Method, args); !d.Allowed {
			break
		}
	}
	return d
}

// Keeps says whether from may go on with what it does now, which is to use a method with one argument,
// when the next one may be any other: rules have to allow whatever that is, and not to deny this.
func (r *Rules) Keeps(from message.Node, method message.Method, arg string) Decision {
	return r.decideBoth(from, method, []Arg{{Text: arg}}, []Arg{{Open: true}})
}

func (r *Rules) decide(from message.Node, method message.Method, args []Arg) Decision {
	return r.decideBoth(from, method, args, args)
}

// decideBoth decides with arguments that must not be denied, and those that must be allowed.
func (r *Rules) decideBoth(from message.Node, method message.Method, undenied, allowed []Arg) Decision {
	var allows *Rule
	for i := range r.Rules {
		rule := &r.Rules[i]
		switch {
		case !rule.from.has(string(from)) || !rule.methods.has(string(method)):
		case rule.Deny && (rule.args == nil || rule.args.fit(undenied, argument.ever)):
			return Decision{Rule: rule.Name, Why: fmt.Sprintf("rule %q denies it", rule.Name)}
		case !rule.Deny && allows == nil && (rule.args == nil || rule.args.fit(allowed, argument.always)):
			allows = rule
		}
	}
	if allows == nil {
		return Decision{Why: "no rule allows it"}
	}
	return Decision{Allowed: true, Rule: allows.Name, Why: fmt.Sprintf("rule %q allows it", allows.Name)}
}
