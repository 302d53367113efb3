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

const brokerConfigHelp = `steward broker-config prints a configuration for a nats-server on which each node that is known
here logs in with its key, and may do what its name needs and no more. Print it again, and reload the
server, when nodes or keys come or go. A broker inside of a node (embeddedBroker) needs none.

usage: steward broker-config [flags] > nats-server.conf

  steward broker-config -configFolder central/etc
  steward broker-config -central central -node central=UDXU4RCS... -node ship1=UC7NNXB2...

  -node NAME=KEY         a node and its public key; give it again for each. Default: the nodes of
                         trustedNodesFile, this node with the key in nodeKeyFile, and its open tokens
  -central NAME          the node that sends to all others (default: centralNodeName)
  -reach REACH           what the others may send: events (to central), commands (also to central),
                         all (to every node) (default: embeddedBrokerReach)
  -listen HOST:PORT      of the server (default 0.0.0.0:4222)
  -certFile, -keyFile    its certificate and key (default: embeddedBrokerCertFile and ...KeyFile)
  -caFile FILE           the authorities for certificates of the nodes (default: embeddedBrokerCAFile)
  -configFolder FOLDER   that of the node (default ./etc, or CONFIGFOLDER in the environment)

exit codes: 0 done, 1 failed, 2 usage
`

func runBrokerConfig(_ context.Context, args []string, s streams) error {
	var users []broker.User
	var problem error // the flag package would quote what was given
	flags := flag.NewFlagSet("broker-config", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("node", "", func(text string) error {
		u, err := parseUser(text)
		problem = cmp.Or(problem, err)
		users = append(users, u)
		return nil
	})
	central := flags.String("central", "", "")
	reach := flags.String("reach", "", "")
	listen := flags.String("listen", "0.0.0.0:4222", "")
	cert := flags.String("certFile", "", "")
	key := flags.String("keyFile", "", "")
	ca := flags.String("caFile", "", "")
	folder := flags.String("configFolder", "", "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, brokerConfigHelp)
		return errors.Join(werr, flag.ErrHelp)
	}
	if err = cmp.Or(err, problem); err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is one argument too many", flags.Arg(0))
	}
	if err != nil {
		return usageError{hinted{fmt.Errorf("broker-config: %w", err), "steward broker-config -h"}}
	}
	cfg, err := configOf(s.env, "configFolder", *folder)
	if err != nil {
		return usageError{err}
	}
	if users == nil {
		if users, err = knownUsers(cfg); err != nil {
			return fmt.Errorf("broker-config: %w", err)
		}
	}
	text, err := broker.Configuration(broker.Options{
		Addr: *listen, CertFile: cmp.Or(*cert, cfg.EmbeddedBrokerCertFile), KeyFile: cmp.Or(*key, cfg.EmbeddedBrokerKeyFile),
		CAFile: cmp.Or(*ca, cfg.EmbeddedBrokerCAFile), MaxConnections: cfg.EmbeddedBrokerMaxConnections,
		MaxPayload: broker.PayloadFor(cfg.MaxMessageSize),
		Access: &broker.Access{
			Central: message.Node(cmp.Or(*central, string(cfg.CentralNodeName))),
			Reach:   broker.Reach(cmp.Or(*reach, cfg.EmbeddedBrokerReach)), Users: users,
		},
	})
	if err != nil {
		return usageError{hinted{fmt.Errorf("broker-config: %w", err), "steward broker-config -h"}}
	}
	_, err = io.WriteString(s.out, text)
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
