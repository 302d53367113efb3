package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/message"
	"steward/process/transport/broker"
	"steward/security"
)

func brokerConfigOperation() operation {
	return operation{
		name: "broker-config", configured: true,
		short: "print a nats-server configuration with the permissions that the nodes need",
		about: `broker-config prints a configuration for a nats-server on which each node that is known
here logs in with its key, and may do what its name needs and no more. Print it again, and reload the
server, when nodes or keys come or go. A broker inside of a node (embeddedBroker) needs none.`,
		example: "steward broker-config -configFolder central/etc > nats-server.conf\nsteward broker-config -central central -node central=UDXU4RCS... -node ship1=UC7NNXB2...",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			var b brokerConfig
			flags.Func("node", "a node and its public key, as `NAME=KEY`; give it again for each (default: the nodes of trustedNodesFile, this node with the key in nodeKeyFile, and its open tokens)", func(text string) error {
				u, err := parseUser(text)
				b.problem = cmp.Or(b.problem, err) // the flag package would quote what was given
				b.users = append(b.users, u)
				return nil
			})
			flags.StringVar(&b.central, "central", "", "`NAME` of the node that sends to all others (default: centralNodeName)")
			flags.StringVar(&b.reach, "reach", "", "what the others may send, as `REACH`: events (to central), commands (also to central), all (to every node) (default: embeddedBrokerReach)")
			flags.StringVar(&b.listen, "listen", "0.0.0.0:4222", "`HOST:PORT` of the server")
			flags.StringVar(&b.cert, "certFile", "", "`FILE` with its certificate (default: embeddedBrokerCertFile)")
			flags.StringVar(&b.key, "keyFile", "", "`FILE` with the key of that (default: embeddedBrokerKeyFile)")
			flags.StringVar(&b.ca, "caFile", "", "`FILE` with the authorities for certificates of the nodes (default: embeddedBrokerCAFile)")
			return func(_ context.Context, c *call) error { return b.print(c) }
		},
	}
}

// brokerConfig is what was given.
type brokerConfig struct {
	users                                 []broker.User
	problem                               error
	central, reach, listen, cert, key, ca string
}

func (b *brokerConfig) print(c *call) error {
	if b.problem != nil {
		return usageError{hinted{b.problem, "steward keys show, on that node, prints its key"}}
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	users := b.users
	if users == nil {
		if users, err = knownUsers(cfg); err != nil {
			return err
		}
	}
	text, err := broker.Configuration(broker.Options{
		Addr: b.listen, CertFile: cmp.Or(b.cert, cfg.EmbeddedBrokerCertFile), KeyFile: cmp.Or(b.key, cfg.EmbeddedBrokerKeyFile),
		CAFile: cmp.Or(b.ca, cfg.EmbeddedBrokerCAFile), MaxConnections: cfg.EmbeddedBrokerMaxConnections,
		MaxPayload: broker.PayloadFor(cfg.MaxMessageSize),
		Access: &broker.Access{
			Central: message.Node(cmp.Or(b.central, string(cfg.CentralNodeName))),
			Reach:   broker.Reach(cmp.Or(b.reach, cfg.EmbeddedBrokerReach)), Users: users,
		},
	})
	if err != nil {
		return usageError{hinted{err, "steward broker-config -h"}}
	}
	_, err = io.WriteString(c.out, text)
	return err
}

// parseUser reads NAME=KEY. A private key is not repeated in its error.
func parseUser(text string) (broker.User, error) {
	name, key, ok := strings.Cut(text, "=")
	if !ok {
		return broker.User{}, errors.New("-node: want NAME=KEY")
	}
	public, err := security.ParsePublicKey(key)
	if err != nil {
		return broker.User{}, fmt.Errorf("-node %s: %w", message.Quote(name), err)
	}
	return broker.User{Node: message.Node(name), Keys: []string{public.String()}}, nil
}

// knownUsers are this node and those that it trusts.
func knownUsers(cfg *config.Config) ([]broker.User, error) {
	trusted, err := security.ReadTrust(cfg.TrustedNodesFile)
	if err != nil {
		return nil, err
	}
	var users []broker.User
	for _, t := range trusted {
		users = append(users, broker.User{Node: t.Node, Keys: []string{t.Key.String()}})
	}
	own, err := security.LoadKey(cfg.NodeKeyFile)
	switch {
	case err == nil:
		users = append(users, broker.User{Node: cfg.NodeName, Keys: []string{own.Public().String()}})
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	tokens, err := node.Tokens(cfg).List()
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if t.Used == nil && time.Now().Before(t.Expires) {
			users = append(users, broker.User{Node: t.Node, Keys: []string{t.Key.String()}, Newcomer: true})
		}
	}
	if users == nil {
		return nil, hinted{fmt.Errorf("no node is known: neither %s nor %s is there", cfg.TrustedNodesFile, cfg.NodeKeyFile),
			"steward keys new makes the key of this node, steward keys trust NODE KEY adds that of another; or give -node NAME=KEY"}
	}
	return users, nil
}
