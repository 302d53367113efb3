package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"steward/client"
	"steward/config"
	"steward/message"
	"steward/security"
)

func keyOperations() []operation {
	const files = " The settings nodeKeyFile and trustedNodesFile name the files; the list is text, and may be edited."
	// of is one of the commands about keys.
	of := func(name, args string, least, most int, result any, short, about, example string, run func(k *keyring, ctx context.Context, args []string) error) operation {
		return operation{name: name, args: args, least: least, most: most, configured: true, result: result, short: short, about: about, example: example,
			define: func(*flag.FlagSet) func(context.Context, *call) error {
				return func(ctx context.Context, c *call) error {
					cfg, err := c.config()
					if err != nil {
						return err
					}
					return run(&keyring{call: c, cfg: cfg}, ctx, c.args)
				}
			}}
	}
	ops := []operation{
		of("keys show", "", 0, 0, ownKey{}, "the public key of this node, for the others",
			"keys show prints the public key of this node, for the others."+files,
			"steward keys show -configFolder ship1/etc", (*keyring).show),
		of("keys new", "", 0, 0, ownKey{}, "make the key of this node",
			"keys new makes the key of this node; one that is there is not replaced. A node that runs takes it when it is started again."+files,
			"steward keys new -configFolder ship1/etc", (*keyring).create),
		of("keys trust", "NODE KEY", 2, 2, trustedKey{}, "trust a key of another node",
			"keys trust says that messages from NODE may be signed with the public key KEY; a node may have several. A node that runs takes note at once."+files,
			"steward keys trust ship1 UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4", (*keyring).trust),
		of("keys untrust", "NODE [KEY]", 1, 2, []trustedKey{}, "no longer trust a node, or one of its keys",
			"keys untrust takes the keys of NODE, or the one that is given, off the list, and prints them. A node that runs takes note at once. Where signatures\n"+
				"is require, messages that wait for a node without a key there end when their attempts are used up; that is said, with how to take them off.",
			"steward keys untrust ship1", (*keyring).untrust),
		of("keys list", "", 0, 0, []trustedKey{}, "all keys that are trusted", "keys list prints the keys of other nodes that this one trusts."+files,
			"steward keys list", (*keyring).list),
	}
	for i := range ops {
		if ops[i].most > 0 {
			ops[i].values = "nodes"
		}
	}
	return ops
}

// keyring is where the keys of a node are, and how they are printed.
type keyring struct {
	*call
	cfg *config.Config
}

// ownKey is what is said about the key of the node.
type ownKey struct {
	Node message.Node `json:"node"`
	Key  string       `json:"key" doc:"its public half"`
	File string       `json:"file" doc:"where it is"`
}

func (k *keyring) own(key *security.Key) error {
	public := key.Public().String()
	return k.call.show(ownKey{k.cfg.NodeName, public, k.cfg.NodeKeyFile}, public+"\n")
}

func (k *keyring) show(context.Context, []string) error {
	key, err := security.LoadKey(k.cfg.NodeKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return hinted{err, "steward keys new makes one"}
	}
	if err != nil {
		return err
	}
	return k.own(key)
}

func (k *keyring) create(context.Context, []string) error {
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

func (k *keyring) trust(_ context.Context, args []string) error {
	public, err := security.ParsePublicKey(args[1])
	if err != nil {
		return usageError{hinted{err, "steward keys show, on that node, prints its key"}}
	}
	if err := message.Node(args[0]).Check(); err != nil {
		return usageError{err}
	}
	_, err = security.Trust(k.cfg.TrustedNodesFile, message.Node(args[0]), public)
	if err != nil {
		return err
	}
	return k.call.show(trustedKey{Node: message.Node(args[0]), Key: args[1]}, "")
}

func (k *keyring) untrust(ctx context.Context, args []string) error {
	var public *security.PublicKey
	if len(args) > 1 {
		key, err := security.ParsePublicKey(args[1])
		if err != nil {
			return usageError{err}
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
	if err := k.printList(removed); err != nil {
		return err
	}
	return k.tellStranded(ctx, k.cfg, message.Node(args[0]))
}

// tellStranded says what becomes of messages for a node of which no key counts any more, and how to take them off. Without
// signatures none has to count.
func (s *streams) tellStranded(ctx context.Context, cfg *config.Config, n message.Node) error {
	trusted, err := security.ReadTrust(cfg.TrustedNodesFile)
	if err != nil || cfg.Signatures != "require" || slices.ContainsFunc(trusted, func(t security.Trusted) bool { return t.Node == n }) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	local := client.New(cfg.SocketFolder)
	defer local.Close()
	if info, err := local.Node(ctx); err == nil && info.Node == cfg.NodeName {
		for p, err := range local.Nodes(ctx) {
			if err != nil {
				return err
			}
			if p.Node == n && p.Waiting > 0 && p.Key != client.KeyTrusted {
				fmt.Fprintf(s.err, "hint: %s for %s, and no ACK of it counts any more: what is there ends when its attempts are used up; steward queue rm -to %s takes it off\n", wait(p.Waiting), n, n)
			}
		}
		return nil
	}
	fmt.Fprintf(s.err, "hint: no ACK of %s counts any more: what waits for it ends when its attempts are used up; steward queue rm -to %s takes it off, when the node runs\n", n, n)
	return nil
}

func (k *keyring) list(context.Context, []string) error {
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
	return k.call.show(list, text.String())
}
