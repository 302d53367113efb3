package node

import (
	"context"

	"steward/config"
	"steward/message"
	"steward/process"
	"steward/process/transport/natstransport"
	"steward/security"
)

// linkOptions are what the settings say about the link to a broker outside. key is that of the node, nil for none.
func linkOptions(cfg *config.Config, key *security.Key) natstransport.Options {
	opts := natstransport.Options{
		Servers: cfg.Brokers, Name: string(cfg.NodeName),
		ConnectTimeout: cfg.BrokerConnectTimeout, ReconnectWait: cfg.ReconnectWait, ReconnectJitter: cfg.ReconnectJitter,
		RootCA: cfg.RootCAPath, ClientCert: cfg.ClientCertFile, ClientKey: cfg.ClientKeyFile,
		NkeySeedFile: cfg.NkeySeedFile, CredsFile: cfg.CredsFile,
	}
	if key != nil && sameFile(opts.NkeySeedFile, cfg.NodeKeyFile) { // which need not be a seed
		opts.NkeySeedFile, opts.Key = "", key.Login()
	}
	return opts
}

// probeWord is in the subjects of a probe where those of delivery have a method or a token. Nobody listens
// there, or takes it for anything, so that neither a node that runs with these settings nor another one notices.
const probeWord = process.ProbeToken

// ProbeBrokers tries each broker outside with the settings of a node, and asks it for what the node needs to
// talk with central. It takes the name of no node that runs.
func ProbeBrokers(ctx context.Context, cfg *config.Config) ([]natstransport.Probed, error) {
	subject := func(n message.Node, k message.Kind) string {
		return message.Subject{Node: n, Method: probeWord, Kind: k}.String()
	}
	ack := func(n message.Node) string { return string(n) + ".ACK." + probeWord }
	listen := []string{ack(cfg.NodeName)}
	for _, k := range []message.Kind{message.CommandACK, message.CommandNACK, message.EventACK, message.EventNACK} {
		listen = append(listen, subject(cfg.NodeName, k))
	}
	central := cfg.CentralNodeName
	publish := []string{ack(central), subject(central, message.EventACK), subject(central, message.EventNACK)}
	var key *security.Key
	if cfg.Signatures != "off" && sameFile(cfg.NkeySeedFile, cfg.NodeKeyFile) {
		var err error
		if key, err = security.LoadKey(cfg.NodeKeyFile); err != nil {
			return nil, err
		}
	}
	return natstransport.Probe(ctx, linkOptions(cfg, key), listen, publish)
}
