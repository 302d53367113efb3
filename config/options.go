package config

import (
	"fmt"
	"math"
	"strings"
	"time"

	"steward/message"
)

const nameConfigFolder = "configFolder"

// options returns the table of all settings, in the order of help text and file.
func options(methods []Method) ([]option, error) {
	const count = math.MaxInt32 // fits an int everywhere
	var opts []option
	group := func(name string, some ...option) {
		for _, o := range some {
			o.group = name
			opts = append(opts, o)
		}
	}

	group("Node",
		text("nodeName", "central", "unique name of this node; dots allowed", func(c *Config) *message.Node { return &c.NodeName }, checkNode),
		text("centralNodeName", "central", "name of the central node, where errors and hellos go", func(c *Config) *message.Node { return &c.CentralNodeName }, checkNode),
		seconds("startPubREQHello", 0, 0, "time between hellos to central; 0 = none", func(c *Config) *time.Duration { return &c.StartPubREQHello }),
	)
	group("Broker",
		brokers("brokerAddress", "127.0.0.1:4222", "host:port of one or more brokers, comma separated; nats://, tls://, ws:// and wss:// accepted"),
		text("embeddedBroker", "", "host:port to run a broker on inside this process; empty = off", func(c *Config) *string { return &c.EmbeddedBroker }, listenAddress),
		hosts("embeddedBrokerNames", "", "names and addresses, comma separated, at which nodes reach that broker; they are in its certificate and in tokens. Empty = the host that it listens on, or those of this machine"),
		text("embeddedBrokerTLS", "auto", "whether a certificate for it is made in the config folder, and renewed, when embeddedBrokerCertFile gives none: yes, no, or auto, which is no on loopback or with embeddedBrokerInsecure", func(c *Config) *string { return &c.EmbeddedBrokerTLS }, oneOf("auto", "yes", "no")),
		text("embeddedBrokerCertFile", "", "file with the certificate of that broker, for TLS; empty = as embeddedBrokerTLS says", func(c *Config) *string { return &c.EmbeddedBrokerCertFile }, anything),
		text("embeddedBrokerKeyFile", "", "file with the key of embeddedBrokerCertFile", func(c *Config) *string { return &c.EmbeddedBrokerKeyFile }, anything),
		text("embeddedBrokerCAFile", "", "file with the authorities one of which has to have signed the certificate of each client; empty = clients need none", func(c *Config) *string { return &c.EmbeddedBrokerCAFile }, anything),
		text("embeddedBrokerLogin", "auto", "whether only the nodes of trustedNodesFile get in, with their keys: yes, no, or auto, which is no on loopback without signatures=require", func(c *Config) *string { return &c.EmbeddedBrokerLogin }, oneOf("auto", "yes", "no")),
		text("embeddedBrokerReach", "events", "what a node that logs in there and is not central may send: events (to central), commands (also to central), all (to every node)", func(c *Config) *string { return &c.EmbeddedBrokerReach }, oneOf("events", "commands", "all")),
		number("embeddedBrokerMaxConnections", 10_000, 1, count, "connections that it takes at the same time", func(c *Config) *int { return &c.EmbeddedBrokerMaxConnections }),
		text("embeddedBrokerInsecure", "no", "yes: let other machines reach it without TLS or logins", func(c *Config) *string { return &c.EmbeddedBrokerInsecure }, oneOf("no", "yes")),
		seconds("brokerConnectTimeout", 5, 1, "how long one attempt to connect may take", func(c *Config) *time.Duration { return &c.BrokerConnectTimeout }),
		seconds("reconnectWait", 2, 1, "time between attempts to connect", func(c *Config) *time.Duration { return &c.ReconnectWait }),
		seconds("reconnectJitter", 1, 0, "up to this much is added to reconnectWait by chance", func(c *Config) *time.Duration { return &c.ReconnectJitter }),
		text("compression", "zstd", "how frames to other nodes are compressed: zstd, or off on a link that costs less than the work", func(c *Config) *string { return &c.Compression }, oneOf("zstd", "off")),
		number("windowMessages", 4096, 1, 1<<16, "messages for one method of one node that may be under way without an ACK", func(c *Config) *int { return &c.WindowMessages }),
		number("windowBytes", 4<<20, 64<<10, 256<<20, "bytes for one method of one node that may be under way without an ACK", func(c *Config) *int { return &c.WindowBytes }),
		text("nkeySeedFile", "", "file with the nkey seed to log in with", func(c *Config) *string { return &c.NkeySeedFile }, anything),
		text("credsFile", "", "file with NATS credentials to log in with", func(c *Config) *string { return &c.CredsFile }, anything),
		text("rootCAPath", "", "file with the certificates that the broker's is checked against", func(c *Config) *string { return &c.RootCAPath }, anything),
		text("clientCertFile", "", "file with the certificate to log in with", func(c *Config) *string { return &c.ClientCertFile }, anything),
		text("clientKeyFile", "", "file with the key of clientCertFile", func(c *Config) *string { return &c.ClientKeyFile }, anything),
	)
	group("Signatures",
		text("signatures", "off", "proof of who sends: off; sign = what is sent is signed, and what comes without a signature is taken, to change a fleet over; require = nothing is taken but what is signed with a key that is trusted for its sender", func(c *Config) *string { return &c.Signatures }, oneOf("off", "sign", "require")),
		text("nodeKeyFile", "", "file with the private key of this node: an nkeys seed or an Ed25519 key of ssh-keygen; empty = node.key in the config folder, made when there are signatures and no file", func(c *Config) *string { return &c.NodeKeyFile }, anything),
		text("trustedNodesFile", "", "file with the keys of other nodes, a line NODE KEY for each; empty = trusted_nodes in the config folder", func(c *Config) *string { return &c.TrustedNodesFile }, anything),
	)
	group("Folders",
		text(nameConfigFolder, "./etc", "folder of config.toml; also by CONFIGFOLDER in the environment", func(c *Config) *string { return &c.ConfigFolder }, notEmpty),
		text("aclFile", "", "file with the rules of who may do what, without which the node does not start; empty = acl.toml in the config folder, if there is one", func(c *Config) *string { return &c.ACLFile }, anything),
		text("socketFolder", "./tmp", "folder of steward.sock", func(c *Config) *string { return &c.SocketFolder }, notEmpty),
		text("databaseFolder", "./lib", "folder of the message store", func(c *Config) *string { return &c.DatabaseFolder }, notEmpty),
		text("subscribersDataFolder", "./var", "folder below which methods write files; no other folder or file of these settings may be in it", func(c *Config) *string { return &c.SubscribersDataFolder }, notEmpty),
	)
	group("Ways in",
		text("socketOwner", "", "user, by name or number, to whom steward.sock belongs; empty = that of the node. Another one takes root", func(c *Config) *string { return &c.SocketOwner }, anything),
		text("socketGroup", "", "group, by name or number, of steward.sock; empty = that of the node. Let it into socketFolder, too", func(c *Config) *string { return &c.SocketGroup }, anything),
		socketMode("socketMode", "0600", "mode of steward.sock; 0660 lets all users of its group send messages as this node"),
		text("tcpListener", "", "host:port on which messages are taken as on steward.sock, from everybody who reaches it; without a host it is loopback; empty = off", func(c *Config) *string { return &c.TCPListener }, listenAddress),
		text("readFolder", "", "folder of which every file that is moved in is read and then put into done or failed; empty = off", func(c *Config) *string { return &c.ReadFolder }, anything),
		text("inFile", "", "file to which messages can be appended, such as ./inmsg.txt; what was read is erased; empty = off", func(c *Config) *string { return &c.InFile }, anything),
		text("startupFolder", "", "folder of messages for this node itself that are run at each start; empty = startup in the config folder", func(c *Config) *string { return &c.StartupFolder }, anything),
	)
	group("Commands",
		text("runAsUser", "", "user as whom commands are run; empty = that of the node. Another one takes root, or CAP_SETUID, CAP_SETGID and CAP_KILL", func(c *Config) *string { return &c.RunAsUser }, anything),
		variables("commandEnvironment", "", "variables of the node's environment, comma separated, that commands get besides PATH, HOME, LANG, LC_*, TZ, USER, LOGNAME, SHELL and TMPDIR"),
	)
	group("Messages",
		seconds("defaultMessageTimeout", 5, 1, "wait for an ACK, for messages that do not say", func(c *Config) *time.Duration { return &c.DefaultMessageTimeout }),
		number("defaultMessageRetries", 3, 0, count, "attempts before a message is given up, for messages that do not say; 0 = never", func(c *Config) *int { return &c.DefaultMessageRetries }),
		seconds("defaultMethodTimeout", 10, 1, "how long a method may run, for messages that do not say", func(c *Config) *time.Duration { return &c.DefaultMethodTimeout }),
		seconds("errorMessageTimeout", 60, 1, "wait for an ACK of an error message to central", func(c *Config) *time.Duration { return &c.ErrorMessageTimeout }),
		number("errorMessageRetries", 0, 0, count, "attempts before an error message to central is given up; 0 = never", func(c *Config) *int { return &c.ErrorMessageRetries }),
	)
	group("Limits",
		number("ringBufferSize", 1_000_000, 1, count, "messages that may wait on this node", func(c *Config) *int { return &c.RingBufferSize }),
		number("ringBufferBytes", 4<<30, 1, math.MaxInt64, "bytes that waiting messages may take on disk", func(c *Config) *int64 { return &c.RingBufferBytes }),
		number("maxMessageSize", 512<<10, 1<<10, 4<<20, "bytes of one message at most", func(c *Config) *int { return &c.MaxMessageSize }),
		number("senderMessagesPerSecond", 0, 0, count, "messages of each other node that are taken in a second, in the mean of ten; what is more waits there; 0 = no limit", func(c *Config) *int64 { return &c.SenderMessagesPerSecond }),
		number("senderBytesPerSecond", 0, 0, count, "bytes of the messages of each other node that are taken in a second, in the mean of ten; what is more waits there; 0 = no limit", func(c *Config) *int64 { return &c.SenderBytesPerSecond }),
		number("maxParallel", 64, 1, 1<<16, "calls of one unordered method (REQn...) that run at once", func(c *Config) *int { return &c.MaxParallel }),
		seconds("socketIdleTimeout", 2, 0, "silence after an answer until steward.sock closes a connection; 0 = never", func(c *Config) *time.Duration { return &c.SocketIdleTimeout }),
	)
	group("Watching",
		text("promHostAndPort", ":2112", "host:port of /metrics, /healthz and /readyz; empty = off", func(c *Config) *string { return &c.PromHostAndPort }, listenAddress),
		text("profilingPort", "", "port of pprof on loopback; empty = off", func(c *Config) *string { return &c.ProfilingPort }, portOrNothing),
		number("auditLogSize", 64, 0, 1<<20, "MiB of one file of the audit log, which names every message that was sent or given up; 0 = no such log", func(c *Config) *int { return &c.AuditLogSize }),
		number("auditLogFiles", 10, 1, 1000, "files of the audit log that are kept", func(c *Config) *int { return &c.AuditLogFiles }),
		text("logLevel", "info", "what is logged: debug, info, warn or error", func(c *Config) *string { return &c.LogLevel }, oneOf("debug", "info", "warn", "error")),
		text("logFormat", "text", "how it is logged: text or json", func(c *Config) *string { return &c.LogFormat }, oneOf("text", "json")),
	)
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	for _, m := range methods {
		if strings.Trim(string(m.Name), plain) != "" || m.Name == "" {
			return nil, fmt.Errorf("method %s: want letters and digits only", message.Quote(string(m.Name)))
		}
		o := senders(m)
		if err := o.store(&Config{Subscribers: make(map[message.Method][]string)}, o.def); err != nil {
			return nil, fmt.Errorf("default of %s: %w", o.name, err)
		}
		group("Subscribers", o)
	}

	seen := make(map[string]string)
	for _, o := range opts {
		env := EnvName(o.name)
		if other, ok := seen[env]; ok {
			return nil, fmt.Errorf("%s and %s cannot be told apart in the environment, both are %s", other, o.name, env)
		}
		seen[env] = o.name
	}
	return opts, nil
}

func names(opts []option) []string {
	list := make([]string, 0, len(opts))
	for _, o := range opts {
		list = append(list, o.name)
	}
	return list
}
