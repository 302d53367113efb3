package acl

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"steward/message"
	"steward/message/wire"
)

// rule checks a draft and makes a rule of it.
func (p *parser) rule(d *draft) (Rule, error) {
	for _, key := range ruleKeys {
		if !d.keys[key] && key != "args" {
			return Rule{}, p.errorf(d.at, "a rule without %s", key)
		}
	}
	r := Rule{Name: d.name.text, Deny: d.effect.text == "deny", From: texts(d.from), Methods: texts(d.methods)}
	switch {
	case r.Name == "" || len(r.Name) > maxName || message.Method(r.Name).Check() != nil:
		return r, p.errorf(d.name.at, "%s is no name for a rule: want up to %d letters, digits, - and _", message.Quote(r.Name), maxName)
	case p.names[r.Name]:
		return r, p.errorf(d.name.at, "there are two rules with the name %s", message.Quote(r.Name))
	case !r.Deny && d.effect.text != "allow":
		return r, p.errorf(d.effect.at, `effect is "allow" or "deny", found %s`, message.Quote(d.effect.text))
	case len(d.from) == 0:
		return r, p.errorf(d.at, "rule %q is about no sender: from is empty", r.Name)
	case len(d.methods) == 0:
		return r, p.errorf(d.at, "rule %q is about no method: methods is empty", r.Name)
	}
	p.names[r.Name] = true
	senders, err := p.senders(d.from)
	if err != nil {
		return r, err
	}
	for _, s := range senders {
		r.from.add(s)
	}
	for _, w := range d.methods {
		if err := p.method(w); err != nil {
			return r, err
		}
		r.methods.add(w.text)
	}
	if d.keys["args"] {
		r.Args = texts(d.args)
		r.args, err = p.arguments(d.args)
	}
	return r, err
}

func texts(words []word) []string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = w.text
	}
	return list
}

// method checks a name in methods. A mistaken one would be a rule that never counts.
func (p *parser) method(w word) error {
	err := checkName(w.text, func(s string) error { return message.Method(s).Check() })
	if err != nil {
		return p.errorf(w.at, "%v", err)
	}
	var n names
	n.add(w.text)
	if !slices.ContainsFunc(p.known, func(m message.Method) bool { return n.has(string(m)) }) {
		return p.errorf(w.at, "there is no method %s%s", message.Quote(w.text), wire.DidYouMean(strings.TrimSuffix(w.text, "*"), p.known))
	}
	return nil
}

func (p *parser) arguments(words []word) (*arguments, error) {
	a := &arguments{}
	for i, w := range words {
		if w.text == "..." {
			if i < len(words)-1 {
				return nil, p.errorf(w.at, `"..." stands at the end of args only`)
			}
			a.rest = true
			break
		}
		one, err := parseArgument(w.text)
		if err != nil {
			return nil, p.errorf(w.at, "%v", err)
		}
		a.each = append(a.each, one)
	}
	return a, nil
}

// senders returns the names and patterns that words stand for, each once.
func (p *parser) senders(words []word) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	add := func(list ...string) {
		for _, s := range list {
			if !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
	}
	for _, w := range words {
		list := []string{w.text}
		if name, isGroup := strings.CutPrefix(w.text, "@"); isGroup {
			g := p.groups[name]
			switch {
			case g == nil:
				return nil, p.errorf(w.at, "there is no group %s%s", message.Quote(name), wire.DidYouMean(name, slices.Sorted(maps.Keys(p.groups))))
			case g.state == 1:
				return nil, p.errorf(w.at, "group %s is a member of itself", message.Quote(name))
			}
			var err error
			if list, err = p.writeOut(g); err != nil {
				return nil, err
			}
		} else if err := checkName(w.text, checkSender); err != nil {
			return nil, p.errorf(w.at, "%v", err)
		}
		if p.members += len(list); p.members > maxMembers {
			return nil, p.errorf(w.at, "more than %d names once all groups are written out", maxMembers)
		}
		add(list...)
	}
	return all, nil
}

func checkSender(s string) error {
	if s == string(message.Local) {
		return errors.New("no rule is asked about what a node sends to itself")
	}
	return message.Node(s).Check()
}

// writeOut returns the names in a group and in the groups that are in it.
func (p *parser) writeOut(g *group) (all []string, err error) {
	if g.state == 0 {
		g.state = 1
		if g.all, err = p.senders(g.words); err != nil {
			return nil, err
		}
		g.state = 2
	}
	return g.all, nil
}
