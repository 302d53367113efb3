package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"steward/config"
	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/message"
	"steward/methods"
	"steward/process"
	"steward/security/acl"
)

// RulesFile is where the rules of a node are.
func RulesFile(cfg *config.Config) string {
	return cmp.Or(cfg.ACLFile, filepath.Join(cfg.ConfigFolder, "acl.toml"))
}

// FleetRules returns the rules that new nodes begin with, which a central node has in a file of its own, or nothing when there is none. Rules of no use
// are an error, and so are some that central could not replace.
func FleetRules(cfg *config.Config, registry *methods.Registry) (string, error) {
	path := filepath.Join(cfg.ConfigFolder, "fleet_acl.toml")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the rules for new nodes: %w", err)
	}
	rules, err := acl.Parse(path, string(text), registry.Names())
	if err != nil {
		return "", fmt.Errorf("the rules for new nodes: %w", err)
	}
	if d := rules.Keeps(cfg.CentralNodeName, message.MethodACLUpdate, string(text)); !d.Allowed {
		return "", fmt.Errorf("the rules for new nodes: with %s %s could send them no others, since %s", path, cfg.CentralNodeName, d.Why)
	}
	return string(text), nil
}

// OpenRules opens the file of the rules of who may do what. report is told when it cannot be used any
// more, and with nil when it can be again.
func OpenRules(cfg *config.Config, registry *methods.Registry, report func(error)) (*acl.File, error) {
	return acl.Open(acl.FileOptions{
		Path: RulesFile(cfg), Required: cfg.ACLFile != "",
		Methods: registry.Names(), Report: report,
	})
}

func (n *Node) openRules() error {
	file, err := OpenRules(n.cfg, n.opts.Registry, func(err error) {
		if err == nil {
			n.log.Info("rules are read again")
			return
		}
		n.kernel.Report(errorkernel.Event{Class: errorkernel.RulesFailed, Process: "rules", Err: err})
	})
	if err != nil {
		return err
	}
	n.rules = file
	if rules := file.Now(); rules != nil {
		n.log.Info("rules are in force", "file", file.Path(), "version", rules.Version, "rules", len(rules.Rules))
	}
	return nil
}

// Listed says whether the list of who may use a method names a node.
func Listed[S ~string](list []S, from message.Node) bool {
	return slices.Contains(list, "*") || slices.Contains(list, S(from))
}

// judge returns what decides about messages for a method as things stand: its list, and the rules.
func (o *operator) judge(method message.Method) process.Allowed {
	list, rules := o.list(method), o.n.rules.Now()
	return func(from message.Node, m *message.Message) error {
		if !Listed(list, from) {
			return fmt.Errorf("-startSub%s lists who may", method)
		}
		if d := rules.Decide(from, o.n.self, m); !d.Allowed {
			return errors.New(d.Why)
		}
		return nil
	}
}

// Replace is part of process.Rules.
func (o *operator) Replace(text string, by message.Node, force bool) (string, error) {
	file := o.n.rules
	next, before, err := file.Update(text, func(next *acl.Rules) error {
		if force {
			return nil
		}
		return o.keepsOpen(next, text, by)
	})
	switch {
	case err != nil:
		return "", err
	case next.Version == before:
		return fmt.Sprintf("version %d of the rules was in force already\n", before), nil
	}
	o.n.log.Info("rules are replaced", logattr.From(by), "file", file.Path(), "version", next.Version, "before", before, "rules", len(next.Rules), "forced", force)
	if before == 0 {
		return fmt.Sprintf("version %d of the rules is in force; there were none before\n", next.Version), nil
	}
	return fmt.Sprintf("version %d of the rules is in force; before it was version %d\n", next.Version, before), nil
}

// keepsOpen says whether those who send rules could send others after those of text. Who may not even be on
// the list for that loses nothing.
func (o *operator) keepsOpen(next *acl.Rules, text string, by message.Node) error {
	for _, who := range []message.Node{o.n.cfg.CentralNodeName, by} {
		if who == o.n.self || !Listed(o.list(message.MethodACLUpdate), who) {
			continue
		}
		if d := next.Keeps(who, message.MethodACLUpdate, text); !d.Allowed {
			return fmt.Errorf("with version %d %s could send no rules any more, since %s; let it use %s with any argument, or add the argument force",
				next.Version, who, d.Why, message.MethodACLUpdate)
		}
	}
	return nil
}
