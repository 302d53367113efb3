package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"time"

	"steward/message"
)

// Config is every setting of a node, checked.
type Config struct {
	NodeName        message.Node
	CentralNodeName message.Node

	// Brokers are the addresses to connect to, at least one, as host:port with or without
	// nats://, tls://, ws:// or wss://. They may hold a password and are not for printing;
	// [Config.Values] masks it.
	Brokers []string
	// EmbeddedBroker is the host:port to run a broker on, empty for none. The files are for
	// TLS, CAFile for certificates of its clients; empty for none.
	EmbeddedBroker string
	// EmbeddedBrokerNames are names and addresses at which others reach it, besides those that are known.
	EmbeddedBrokerNames          []string
	EmbeddedBrokerTLS            string // auto, yes or no
	EmbeddedBrokerCertFile       string
	EmbeddedBrokerKeyFile        string
	EmbeddedBrokerCAFile         string
	EmbeddedBrokerLogin          string // auto, yes or no
	EmbeddedBrokerReach          string // events, commands or all
	EmbeddedBrokerMaxConnections int
	EmbeddedBrokerInsecure       string // yes or no

	BrokerConnectTimeout time.Duration
	ReconnectWait        time.Duration
	ReconnectJitter      time.Duration
	Compression          string // zstd or off
	WindowMessages       int
	WindowBytes          int
	NkeySeedFile         string
	CredsFile            string
	RootCAPath           string
	ClientCertFile       string // given with ClientKeyFile, or both empty
	ClientKeyFile        string

	Signatures       string // off, sign or require
	NodeKeyFile      string // never empty after Load, nor is TrustedNodesFile
	TrustedNodesFile string

	ConfigFolder          string
	ACLFile               string // empty: acl.toml in ConfigFolder, if there is one
	SocketFolder          string
	DatabaseFolder        string
	SubscribersDataFolder string

	// SocketOwner and SocketGroup are names or numbers, empty for those of the node.
	SocketOwner string
	SocketGroup string
	SocketMode  fs.FileMode

	RunAsUser string // empty: the user of the node
	// CommandEnvironment names variables of the node that commands get, too.
	CommandEnvironment []string

	// The ways in besides the socket; empty: off. TCPListener is host:port, the others are paths.
	TCPListener   string
	ReadFolder    string
	InFile        string
	StartupFolder string // empty: startup in ConfigFolder

	// DefaultMessageTimeout is the wait for an ACK, DefaultMessageRetries the number of
	// attempts, 0 for no end; both for messages that do not say.
	DefaultMessageTimeout time.Duration
	DefaultMessageRetries int
	DefaultMethodTimeout  time.Duration
	// ErrorMessageTimeout and ErrorMessageRetries are the same for errors to central.
	ErrorMessageTimeout time.Duration
	ErrorMessageRetries int

	RingBufferSize  int   // messages
	RingBufferBytes int64 // at least MaxMessageSize
	MaxMessageSize  int   // bytes
	// What is taken of each other node in a second; 0: no limit.
	SenderMessagesPerSecond, SenderBytesPerSecond int64
	MaxParallel                                   int // calls of one unordered method at a time

	AuditLogSize  int // MiB, 0 for none
	AuditLogFiles int

	SocketIdleTimeout time.Duration // 0: never

	// StartPubREQHello is the time between hellos to central, 0 for none.
	StartPubREQHello time.Duration
	// Subscribers says for each method handed to [Load] which nodes may use it here: node
	// names, or "*" for all. An empty list is a subscriber that is switched off.
	Subscribers map[message.Method][]string

	PromHostAndPort string // empty: off
	ProfilingPort   string // a number, empty: off
	LogLevel        string // debug, info, warn or error
	LogFormat       string // text or json

	// Warnings are what Load has to say that is no reason to stop, one sentence each.
	Warnings []string

	settings []setting // in the order of the table
	file     *document
}

// Method is a method as the configuration sees it: it brings the setting startSub<Name>.
type Method struct {
	Name message.Method
	// Default is who may use it when nobody says: node names, "*", [Central]. Nil means the
	// central node, an empty list means that it is off.
	Default []string
}

// Central stands in a list of nodes for the central node, whatever centralNodeName says.
// It can never be the name of a node.
const Central = "<centralNodeName>"

// Off, given instead of a list of nodes, switches a subscriber off and empties its list.
const Off = "RST"

// Origin says where a value came from.
type Origin string

// The origins, from the weakest to the strongest.
const (
	FromDefault     Origin = "default"
	FromFile        Origin = "file"
	FromEnvironment Origin = "environment"
	FromFlag        Origin = "flag"
)

// setting is the value of one option and its way here.
type setting struct {
	option
	value  any // as option.def
	origin Origin
	where  string // for error texts: "-nodeName", "etc/config.toml:3:12"
}

// Load reads the configuration of a node from args (flags, without the program's name),
// env (as from os.Environ) and config.toml in the config folder, if there is one. It
// writes nothing. The error is flag.ErrHelp when help is asked for; else it is all that
// was found wrong, one line each, saying what and where.
func Load(args, env []string, methods []Method) (*Config, error) {
	opts, err := options(methods)
	if err != nil {
		return nil, err
	}
	flags, err := parseFlags(args, opts)
	if err != nil {
		return nil, err
	}
	vars, warnings := parseEnv(env, opts)
	folder := configFolder(opts, flags, vars)
	file, err := readDocument(fileIn(folder.value.(string)))
	if err != nil {
		return nil, err
	}

	c := &Config{Warnings: warnings, Subscribers: make(map[message.Method][]string), file: file}
	entries, more, err := file.known(opts)
	c.Warnings = append(c.Warnings, more...)
	problems := []error{err}
	for _, o := range opts {
		s := folder
		if o.name != nameConfigFolder {
			if s, err = choose(o, flags, vars, entries); err != nil {
				problems = append(problems, err)
				continue
			}
		}
		if err := o.store(c, s.value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", s.subject(), err))
			continue
		}
		c.settings = append(c.settings, s)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if err := c.checkTogether(); err != nil {
		return nil, err
	}
	c.Warnings = append(c.Warnings, c.exposed()...)
	for method, nodes := range c.Subscribers {
		c.Subscribers[method] = c.resolve(nodes)
	}
	c.NodeKeyFile = cmp.Or(c.NodeKeyFile, filepath.Join(c.ConfigFolder, "node.key"))
	c.TrustedNodesFile = cmp.Or(c.TrustedNodesFile, filepath.Join(c.ConfigFolder, "trusted_nodes"))
	return c, nil
}

// choose takes the value of o from the strongest source that has one.
func choose(o option, flags, vars map[string]string, entries map[string]entry) (setting, error) {
	s := setting{option: o, value: o.def, origin: FromDefault, where: "default"}
	var err error
	if text, ok := flags[o.name]; ok {
		s.origin, s.where = FromFlag, "-"+o.name
		s.value, err = o.kind.parse(text)
	} else if text, ok := vars[EnvName(o.name)]; ok {
		s.origin, s.where = FromEnvironment, EnvName(o.name)
		s.value, err = o.kind.parse(text)
	} else if e, ok := entries[o.name]; ok {
		s.origin, s.where = FromFile, e.where
		s.value, err = o.kind.decode(e.value)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", s.subject(), err)
	}
	return s, nil
}

// subject is what an error about the value starts with: where it is, and what, unless the
// place says so already.
func (s setting) subject() string {
	switch s.origin {
	case FromFile:
		return s.where + ": " + s.name
	case FromDefault:
		return s.name
	}
	return s.where
}

// configFolder finds the folder before anything can be read from it.
func configFolder(opts []option, flags, vars map[string]string) setting {
	o := opts[slices.IndexFunc(opts, func(o option) bool { return o.name == nameConfigFolder })]
	s := setting{option: o, value: o.def, origin: FromDefault, where: "default"}
	if text, ok := flags[o.name]; ok {
		s.value, s.origin, s.where = text, FromFlag, "-"+o.name
		return s
	}
	for _, name := range []string{EnvName(o.name), "CONFIGFOLDER", "CONFIG_FOLDER"} {
		if text := vars[name]; text != "" {
			s.value, s.origin, s.where = text, FromEnvironment, name
			return s
		}
	}
	return s
}

// checkTogether checks what no value can be blamed for alone.
func (c *Config) checkTogether() error {
	var problems []error
	if (c.ClientCertFile == "") != (c.ClientKeyFile == "") {
		problems = append(problems, fmt.Errorf("%s and %s: give both or none",
			c.from("clientCertFile"), c.from("clientKeyFile")))
	}
	if (c.EmbeddedBrokerCertFile == "") != (c.EmbeddedBrokerKeyFile == "") {
		problems = append(problems, fmt.Errorf("%s and %s: give both or none",
			c.from("embeddedBrokerCertFile"), c.from("embeddedBrokerKeyFile")))
	}
	if c.EmbeddedBrokerCAFile != "" && c.EmbeddedBrokerCertFile == "" {
		problems = append(problems, fmt.Errorf("%s: it is of no use without embeddedBrokerCertFile", c.from("embeddedBrokerCAFile")))
	}
	if c.NkeySeedFile != "" && c.CredsFile != "" {
		problems = append(problems, fmt.Errorf("%s and %s: a node has one identity, give one of them",
			c.from("nkeySeedFile"), c.from("credsFile")))
	}
	if c.RingBufferBytes < int64(c.MaxMessageSize) {
		problems = append(problems, fmt.Errorf("%s: %d bytes do not hold one message; maxMessageSize is %d",
			c.from("ringBufferBytes"), c.RingBufferBytes, c.MaxMessageSize))
	}
	return errors.Join(problems...)
}

// exposed says where others can read the password in an address of a broker.
func (c *Config) exposed() (warnings []string) {
	i := slices.IndexFunc(c.settings, func(s setting) bool { return s.name == "brokerAddress" })
	s := c.settings[i]
	if text := s.value.(string); s.mask(text) == text {
		return nil
	}
	if s.origin == FromFlag {
		warnings = append(warnings, fmt.Sprintf("%s holds a password, which ps shows to everybody on this machine; it is kept in %s from now on, so leave the flag out",
			s.where, c.file.path))
	}
	info, err := os.Stat(c.file.path)
	if err == nil && (s.origin == FromFlag || s.origin == FromFile) && info.Mode()&0o077 != 0 && runtime.GOOS != "windows" {
		warnings = append(warnings, fmt.Sprintf("%s can be read by others and holds the password for a broker; run: chmod 600 %s", c.file.path, c.file.path))
	}
	return warnings
}

// from names a setting and its place.
func (c *Config) from(name string) string {
	i := slices.IndexFunc(c.settings, func(s setting) bool { return s.name == name })
	return c.settings[i].subject()
}

// resolve returns a list of nodes with the central node's name in it.
func (c *Config) resolve(nodes []string) []string {
	list := make([]string, 0, len(nodes))
	for _, n := range nodes {
		if n == Central {
			n = string(c.CentralNodeName)
		}
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// Value is one setting, for people.
type Value struct {
	Name   string
	Value  string // as it would be given by flag; passwords are masked
	Origin Origin
	Where  string // the flag, the environment variable, or file:line:column
	// Default: it is the value that the setting has when nobody says anything. The first start writes all of them into the file.
	Default bool
	Help    string
}

// Values returns every setting in the order of the help text.
func (c *Config) Values() []Value {
	values := make([]Value, 0, len(c.settings))
	for _, s := range c.settings {
		values = append(values, Value{Name: s.name, Value: s.show(s.value), Origin: s.origin, Where: s.where, Default: reflect.DeepEqual(s.value, s.def), Help: s.help})
	}
	return values
}
