package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"steward/config"
	"steward/message"
	"steward/security"
)

const keysHelp = `steward keys shows the key of this node, and says which keys of other nodes it trusts. A node that
runs takes note of a changed list at once; of a new key of its own when it is started again.

usage: steward keys COMMAND [flags] [ARG...]

  show                   the public key of this node, for the others
  new                    make the key of this node; one that is there is not replaced
  trust NODE KEY         messages from NODE may be signed with the public key KEY; a node may have several
  untrust NODE [KEY]     no longer, or no longer with this key
  list                   all that is trusted

  steward keys new -configFolder ship1/etc
  steward keys trust ship1 UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4

  -configFolder FOLDER   that of the node (default ./etc, or CONFIGFOLDER in the environment)
  -json                  print JSON

The settings nodeKeyFile and trustedNodesFile name the files; the list is text, and may be edited.

exit codes: 0 done, 1 failed, 2 usage
`

// keyCommand is one of the commands about keys.
type keyCommand struct {
	args        string
	least, most int // of args
	run         func(k *keyring, args []string) error
}

var keyCommands = map[string]keyCommand{
	"show":    {"", 0, 0, (*keyring).show},
	"new":     {"", 0, 0, (*keyring).create},
	"trust":   {"NODE KEY", 2, 2, (*keyring).trust},
	"untrust": {"NODE [KEY]", 1, 2, (*keyring).untrust},
	"list":    {"", 0, 0, (*keyring).list},
}

// keyring is where the keys of a node are, and how they are printed.
type keyring struct {
	cfg  *config.Config
	out  io.Writer
	json bool
}

func runKeys(_ context.Context, args []string, s streams) error {
	name := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("keys", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	configFolder := flags.String("configFolder", "", "")
	asJSON := flags.Bool("json", false, "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, keysHelp)
		return errors.Join(werr, flag.ErrHelp)
	} else if err != nil {
		return usageError{hinted{fmt.Errorf("keys: %w", err), "steward keys -h"}}
	}
	command, ok := keyCommands[name]
	switch n := flags.NArg(); {
	case name == "":
		return usageError{hinted{errors.New("keys: no command"), "steward keys -h lists them"}}
	case !ok:
		return usageError{hinted{fmt.Errorf("keys: %q is not a command", name), "steward keys -h lists them"}}
	case n < command.least || n > command.most:
		return usageError{hinted{fmt.Errorf("keys %s: %d arguments", name, n), strings.TrimSpace("steward keys " + name + " [flags] " + command.args)}}
	}
	cfg, err := configOf(s.env, "configFolder", *configFolder)
	if err != nil {
		return usageError{err}
	}
	err = command.run(&keyring{cfg: cfg, out: s.out, json: *asJSON}, flags.Args())
	if err != nil && !errors.As(err, new(usageError)) {
		return fmt.Errorf("keys %s: %w", name, err)
	}
	return err
}

// print writes v as JSON, or else the text.
func (k *keyring) print(v any, text string) error {
	if k.json {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		text = string(b) + "\n"
	}
	_, err := io.WriteString(k.out, text)
	return err
}

// ownKey is what is said about the key of the node.
type ownKey struct {
	Node message.Node `json:"node"`
	Key  string       `json:"key"`
	File string       `json:"file"`
}

func (k *keyring) own(key *security.Key) error {
	public := key.Public().String()
	return k.print(ownKey{k.cfg.NodeName, public, k.cfg.NodeKeyFile}, public+"\n")
}

func (k *keyring) show([]string) error {
	key, err := security.LoadKey(k.cfg.NodeKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return hinted{err, "steward keys new makes one"}
	}
	if err != nil {
		return err
	}
	return k.own(key)
}

func (k *keyring) create([]string) error {
	key, err := security.CreateKey(k.cfg.NodeKeyFile)
	if errors.Is(err, fs.ErrExist) {
		return hinted{err, "steward keys show prints it; for another one, move this file away, and tell the other nodes"}
	}
	if err != nil {
		return err
	}
	return k.own(key)
}

// trustedKey is one line of a list.
type trustedKey struct {
	Node    message.Node `json:"node"`
	Key     string       `json:"key"`
	Comment string       `json:"comment,omitempty"`
}

func (k *keyring) trust(args []string) error {
	public, err := security.ParsePublicKey(args[1])
	if err != nil {
		return usageError{hinted{fmt.Errorf("keys trust: %w", err), "steward keys show, on that node, prints its key"}}
	}
	if err := message.Node(args[0]).Check(); err != nil {
		return usageError{fmt.Errorf("keys trust: %w", err)}
	}
	_, err = security.Trust(k.cfg.TrustedNodesFile, message.Node(args[0]), public)
	if err != nil {
		return err
	}
	return k.print(trustedKey{Node: message.Node(args[0]), Key: args[1]}, "")
}

func (k *keyring) untrust(args []string) error {
	var public *security.PublicKey
	if len(args) > 1 {
		key, err := security.ParsePublicKey(args[1])
		if err != nil {
			return usageError{fmt.Errorf("keys untrust: %w", err)}
		}
		public = &key
	}
	removed, err := security.Untrust(k.cfg.TrustedNodesFile, message.Node(args[0]), public)
	if err != nil {
		return err
	}
	if len(removed) == 0 {
		return hinted{fmt.Errorf("no such key of %s is trusted", message.Quote(args[0])), "steward keys list"}
	}
	return k.printList(removed)
}

func (k *keyring) list([]string) error {
	all, err := security.ReadTrust(k.cfg.TrustedNodesFile)
	if err != nil {
		return err
	}
	return k.printList(all)
}

func (k *keyring) printList(all []security.Trusted) error {
	list := make([]trustedKey, 0, len(all))
	var text strings.Builder
	for _, t := range all {
		list = append(list, trustedKey{t.Node, t.Key.String(), t.Comment})
		fmt.Fprintf(&text, "%s %s", t.Node, t.Key)
		if t.Comment != "" {
			fmt.Fprintf(&text, " # %s", t.Comment)
		}
		text.WriteByte('\n')
	}
	return k.print(list, text.String())
}
