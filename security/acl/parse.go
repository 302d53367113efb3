package acl

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"steward/message"
	"steward/message/wire"
)

const (
	// MaxSize bounds the text of rules, in bytes.
	MaxSize = 256 << 10
	// maxVersion leaves room for a date and a time as one number, and for what comes after it.
	maxVersion = 1_000_000_000_000_000
	maxRules   = 1000
	// maxMembers bounds the names in all groups and rules once the groups are written out.
	maxMembers = 100_000
	maxName    = 64
)

// Error says what is wrong with rules, and where. It wraps [message.ErrInvalid].
type Error struct {
	File         string
	Line, Column int // from 1; 0 when it is the whole text
	What         string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.What
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.What)
}

// Unwrap makes it a [message.ErrInvalid].
func (e *Error) Unwrap() error { return message.ErrInvalid }

// Parse reads rules. name is that of the file, for errors; methods are those that there are, and a rule
// about another one is a mistake. The error is an [*Error].
func Parse(name, text string, methods []message.Method) (*Rules, error) {
	p := parser{name: name, text: []byte(text), known: methods, groups: map[string]*group{}, names: map[string]bool{}}
	if len(text) > MaxSize {
		return nil, &Error{File: name, What: fmt.Sprintf("it is longer than %d bytes", MaxSize)}
	}
	// The decoder decides what is TOML; the parser below it says what is where.
	var syntax map[string]any
	if err := toml.Unmarshal(p.text, &syntax); err != nil {
		e := &Error{File: name, What: strings.TrimPrefix(err.Error(), "toml: ")}
		if at := new(toml.DecodeError); errors.As(err, &at) {
			e.Line, e.Column = at.Position()
		}
		return nil, e
	}
	if err := p.document(); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.groups)) {
		if _, err := p.writeOut(p.groups[name]); err != nil {
			return nil, err
		}
	}
	rules := &Rules{Version: p.version, Rules: make([]Rule, 0, len(p.rules)), text: text}
	for _, d := range p.rules {
		r, err := p.rule(d)
		if err != nil {
			return nil, err
		}
		rules.Rules = append(rules.Rules, r)
	}
	return rules, nil
}

type parser struct {
	name  string
	text  []byte
	known []message.Method

	version int64
	groups  map[string]*group
	rules   []*draft
	names   map[string]bool // of the rules
	members int             // that were looked at so far
}

// word is a text in the file.
type word struct {
	text string
	at   int
}

// group is one group; its members are written out when it is first used.
type group struct {
	words []word
	all   []string
	state int // 0 new, 1 being written out, 2 written out
}

// draft is a rule before it is checked.
type draft struct {
	at   int
	keys map[string]bool
	name,
	effect word
	from, methods, args []word
}

func (p *parser) errorf(at int, format string, args ...any) error {
	line := bytes.Count(p.text[:at], []byte("\n")) + 1
	column := at - bytes.LastIndexByte(p.text[:at], '\n')
	return &Error{File: p.name, Line: line, Column: column, What: fmt.Sprintf(format, args...)}
}

// What may stand where.
var (
	topKeys   = []string{"version", "groups", "rules"}
	ruleKeys  = []string{"name", "effect", "from", "methods", "args"}
	tableHelp = map[string]string{"groups": "write [groups] and below it a line for each group", "rules": "write [[rules]] before each rule"}
)

// document reads all of the text into p.
func (p *parser) document() error {
	var ast unstable.Parser
	ast.Reset(p.text)
	section, hasVersion := "", false
	for ast.NextExpression() {
		node := ast.Expression()
		key, at := keyOf(node)
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			array := node.Kind == unstable.ArrayTable
			switch {
			case array && key == "rules":
				if len(p.rules) == maxRules {
					return p.errorf(at, "more than %d rules", maxRules)
				}
				p.rules = append(p.rules, &draft{at: at, keys: map[string]bool{}})
			case !array && key == "groups":
			case tableHelp[key] != "":
				return p.errorf(at, "%s", tableHelp[key])
			default:
				return p.errorf(at, "unknown table %s%s", message.Quote(key), wire.DidYouMean(key, []string{"groups", "rules"}))
			}
			section = key
		case unstable.KeyValue:
			var err error
			switch {
			case section == "rules":
				err = p.ruleKey(p.rules[len(p.rules)-1], key, at, node.Value())
			case section == "groups":
				err = p.group(key, at, node.Value())
			case key == "version":
				hasVersion = true
				err = p.setVersion(at, node.Value())
			case tableHelp[key] != "":
				err = p.errorf(at, "%s", tableHelp[key])
			default:
				err = p.errorf(at, "unknown key %s%s", message.Quote(key), wire.DidYouMean(key, topKeys))
			}
			if err != nil {
				return err
			}
		}
	}
	if err := ast.Error(); err != nil {
		return &Error{File: p.name, What: err.Error()}
	}
	if !hasVersion {
		return &Error{File: p.name, What: "version is missing: a number that goes up with each change"}
	}
	return nil
}

// keyOf returns the parts of a key with dots between them, and where it is.
func keyOf(node *unstable.Node) (key string, at int) {
	var parts []string
	for it := node.Key(); it.Next(); {
		n := it.Node()
		if parts == nil {
			at = int(n.Raw.Offset)
		}
		part := string(n.Data)
		if strings.Contains(part, ".") {
			part = message.Quote(part) // no key has a dot, and this must not look like one that has two parts
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "."), at
}

func (p *parser) setVersion(at int, v *unstable.Node) error {
	var f struct{ Version int64 }
	if v.Kind != unstable.Integer || toml.Unmarshal([]byte("version="+string(v.Data)), &f) != nil || f.Version < 1 || f.Version > maxVersion {
		return p.errorf(at, "version is a whole number from 1 to %d", int64(maxVersion))
	}
	p.version = f.Version
	return nil
}

func (p *parser) ruleKey(d *draft, key string, at int, v *unstable.Node) error {
	if !slices.Contains(ruleKeys, key) {
		return p.errorf(at, "unknown key %s in a rule%s", message.Quote(key), wire.DidYouMean(key, ruleKeys))
	}
	d.keys[key] = true
	switch key {
	case "name", "effect":
		if v.Kind != unstable.String {
			return p.errorf(at, "%s is a text in quotes", key)
		}
		w := word{string(v.Data), int(v.Raw.Offset)}
		if key == "name" {
			d.name = w
		} else {
			d.effect = w
		}
		return nil
	}
	words, err := p.list(key, at, v)
	if err != nil {
		return err
	}
	switch key {
	case "from":
		d.from = words
	case "methods":
		d.methods = words
	case "args":
		d.args = words
	}
	return nil
}

func (p *parser) list(what string, at int, v *unstable.Node) ([]word, error) {
	if v.Kind != unstable.Array {
		return nil, p.errorf(at, `%s is a list of texts, such as ["a", "b"]`, what)
	}
	words := []word{}
	for it := v.Children(); it.Next(); {
		n := it.Node()
		if n.Kind == unstable.Comment {
			continue
		}
		if n.Kind != unstable.String {
			return nil, p.errorf(at, `%s is a list of texts, such as ["a", "b"]`, what)
		}
		words = append(words, word{string(n.Data), int(n.Raw.Offset)})
	}
	return words, nil
}

func (p *parser) group(name string, at int, v *unstable.Node) error {
	if err := message.Node(name).Check(); err != nil || strings.Contains(name, ".") {
		return p.errorf(at, "%s is no name for a group: want letters, digits, - and _", message.Quote(name))
	}
	words, err := p.list("a group", at, v)
	if err != nil {
		return err
	}
	p.groups[name] = &group{words: words}
	return nil
}
