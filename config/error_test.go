package config_test

import (
	"strings"
	"testing"

	"steward/config"
)

func TestErrorsSayWhatIsWrongAndWhere(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		args, env  []string
		want       []string // lines; FILE is the path of the file
	}{
		{name: "syntax", file: "logLevel = \"info\"\nnodeName = \"x\n",
			want: []string{"FILE:2:14: basic strings cannot have new lines"}},
		{name: "key twice", file: "logLevel = \"info\"\nlogLevel = \"info\"\n",
			want: []string{"FILE:2:1: key logLevel is already defined"}},
		{name: "unknown key", file: "\nnodename = \"x\"\n",
			want: []string{`FILE:2:1: unknown setting "nodename"; did you mean nodeName?`}},
		{name: "unknown key far from all", file: "qqqqqqqqqqq = 1\n",
			want: []string{`FILE:1:1: unknown setting "qqqqqqqqqqq"; steward -help lists them all`}},
		{name: "dotted key", file: "nodeName.x = 1\n",
			want: []string{`FILE:1:1: unknown setting "nodeName.x"; did you mean nodeName?`}},
		{name: "setting as a table", file: "[nodeName]\nx = 1\n",
			want: []string{"FILE:1:1: nodeName is a setting and no table; write nodeName = and its value"}},
		{name: "setting in a table", file: "[mine]\n  nodeName = \"x\"\n",
			want: []string{"FILE:2:3: nodeName stands in table [mine], where it is not read; move it above the first table"}},
		{name: "folder in the file", file: `configFolder = "x"`,
			want: []string{"FILE:1:1: configFolder cannot stand in the file that it finds; give -configFolder or CONFIGFOLDER"}},
		{name: "text for number", file: `defaultMessageRetries = "3"`,
			want: []string{"FILE:1:25: defaultMessageRetries: want a whole number without quotes, such as 5, got text"}},
		{name: "fraction", file: `defaultMessageTimeout = 2.5`,
			want: []string{"FILE:1:25: defaultMessageTimeout: want a whole number without quotes, such as 5, got the number 2.5"}},
		{name: "number for text", file: "profilingPort = 6060",
			want: []string{`FILE:1:17: profilingPort: want text in quotes, such as "a", got the number 6060`}},
		{name: "text for list", file: `startSubREQPing = "*"`,
			want: []string{`FILE:1:19: startSubREQPing: want a list of texts, such as ["a", "b"], got text`}},
		{name: "number in list", file: `startSubREQPing = ["a", 1]`,
			want: []string{`FILE:1:19: startSubREQPing: want a list of texts, such as ["a", "b"], got the number 1`}},
		{name: "control character", file: `rootCAPath = "a\u0000"`,
			want: []string{`FILE:1:14: rootCAPath: it holds a control character or is not UTF-8`}},
		{name: "all at once", file: "logLevel = \"loud\"\nlogLevl = 1\nmaxParallel = 0\n",
			want: []string{
				`FILE:2:1: unknown setting "logLevl"; did you mean logLevel?`,
				"FILE:3:15: maxParallel: 0 is too small; give 1 or more",
				`FILE:1:12: logLevel: "loud" is none of debug, info, warn, error`,
			}},

		{name: "unknown flag", args: []string{"-nodename=x"}, want: []string{`unknown flag "-nodename"; did you mean nodeName?`}},
		{name: "unknown flag after others", args: []string{"-node=x", "--brokerAdress", "a:1", "-logLevel=info"},
			want: []string{`unknown flag "--brokerAdress"; did you mean brokerAddress?`}},
		{name: "flag that is none", args: []string{"-node", "-x", "---y", "-z"}, want: []string{`unknown flag "---y"; steward -help lists them all`}},
		{name: "flag without a name", args: []string{"-=y"}, want: []string{`unknown flag "-"; steward -help lists them all`}},
		{name: "flag without value", args: []string{"-nodeName"}, want: []string{"-nodeName: the value is missing"}},
		{name: "argument", args: []string{"-node", "a", "b", "c"},
			want: []string{`unexpected argument "b c"; the settings of a node are flags, steward -help lists them`}},
		{name: "argument before a password", args: []string{"x", "-brokerAddress=nats://joe:s3cret@a:1"},
			want: []string{`unexpected argument "x -brokerAddress=nats://joe:•••@a:1"; the settings of a node are flags, steward -help lists them`}},
		{name: "broker's certificate without key", args: []string{"-embeddedBrokerCertFile=a"},
			want: []string{"-embeddedBrokerCertFile and embeddedBrokerKeyFile: give both or none"}},
		{name: "broker's authorities without certificate", args: []string{"-embeddedBrokerCAFile=a"},
			want: []string{"-embeddedBrokerCAFile: it is of no use without embeddedBrokerCertFile"}},
		{name: "node name", args: []string{"-node=a b"},
			want: []string{`-nodeName: invalid node name "a b": blanks, control characters, "*", ">", "/" and "\" are not allowed`}},
		{name: "empty node name", env: []string{"STEWARD_NODE_NAME="}, want: []string{"STEWARD_NODE_NAME: invalid node name: it is empty"}},
		{name: "reserved node name", args: []string{"-node=local"},
			want: []string{`-nodeName: "local" has a meaning of its own and cannot be the name of a node`}},
		{name: "not a number", args: []string{"-defaultMessageTimeout=5s"},
			want: []string{`-defaultMessageTimeout: want a whole number of at most 9223372036854775807, without a unit, got "5s"`}},
		{name: "too many digits", args: []string{"-ringBufferBytes=9223372036854775808"},
			want: []string{`-ringBufferBytes: want a whole number of at most 9223372036854775807, without a unit, got "9223372036854775808"`}},
		{name: "negative", args: []string{"-socketIdleTimeout=-1"}, want: []string{"-socketIdleTimeout: -1 is negative; give 0 or more"}},
		{name: "longer than a duration", args: []string{"-startPubREQHello=9223372036854775807"},
			want: []string{"-startPubREQHello: 9223372036854775807 is too large; give 3153600000 or less"}},
		{name: "empty list", args: []string{"-startSubREQPing="},
			want: []string{"-startSubREQPing: it is empty; give node names separated by commas, * for all, or RST to turn it off"}},
		{name: "gap in list", args: []string{"-startSubREQPing=a,,b"}, want: []string{"-startSubREQPing: invalid node name: it is empty"}},
		{name: "RST among nodes", args: []string{"-startSubREQPing=a,RST"},
			want: []string{`-startSubREQPing: "RST" has a meaning of its own and cannot be the name of a node`}},
		{name: "no port", args: []string{"-brokerAddress=a:1,b"}, want: []string{`-brokerAddress: "b": the port is missing; a broker mostly has 4222`}},
		{name: "port 0", args: []string{"-brokerAddress=a:0"}, want: []string{`-brokerAddress: "a:0": "0" is not a port number from 1 to 65535`}},
		{name: "no host", args: []string{"-brokerAddress=nats://:4222"},
			want: []string{`-brokerAddress: "nats://:4222": the host is missing; give host:port, such as 127.0.0.1:4222`}},
		{name: "no broker", args: []string{"-brokerAddress="}, want: []string{`-brokerAddress: "": it is empty; give host:port, such as 127.0.0.1:4222`}},
		{name: "scheme", args: []string{"-brokerAddress=http://a:1"},
			want: []string{`-brokerAddress: "http://a:1": http:// is not known here; use nats://, tls://, ws:// or wss://`}},
		{name: "path", args: []string{"-brokerAddress=a:1/b"}, want: []string{`-brokerAddress: "a:1/b": nothing may follow the port`}},
		{name: "hidden address", args: []string{"-brokerAddress=u:p@a:1,b"}, want: []string{"-brokerAddress: address 2: the port is missing; a broker mostly has 4222"}},
		{name: "unreadable address", args: []string{"-brokerAddress=u:\xff@a:1"}, want: []string{"-brokerAddress: it holds a control character or is not UTF-8"}},
		{name: "mixed schemes", args: []string{"-brokerAddress=a:1,wss://b:1"},
			want: []string{"-brokerAddress: ws:// and wss:// cannot be mixed with other addresses; give one sort only"}},
		{name: "embedded broker", args: []string{"-embeddedBroker=4222"}, want: []string{`-embeddedBroker: "4222" is not host:port, such as localhost:2112 or :2112`}},
		{name: "metrics port", env: []string{"STEWARD_PROM_HOST_AND_PORT=:99999"},
			want: []string{`STEWARD_PROM_HOST_AND_PORT: "99999" is not a port number from 0 to 65535`}},
		{name: "profiling port", args: []string{"-profilingPort=localhost:1"},
			want: []string{`-profilingPort: "localhost:1" is not a port number from 0 to 65535`}},
		{name: "empty folder", args: []string{"-databaseFolder="}, want: []string{"-databaseFolder: it is empty"}},
		{name: "log format", args: []string{"-logFormat=xml"}, want: []string{`-logFormat: "xml" is none of text, json`}},
		{name: "certificate without key", file: `clientCertFile = "c.pem"`,
			want: []string{"FILE:1:18: clientCertFile and clientKeyFile: give both or none"}},
		{name: "two identities", args: []string{"-nkeySeedFile=a", "-credsFile=b"},
			want: []string{"-nkeySeedFile and -credsFile: a node has one identity, give one of them"}},
		{name: "ring too small for a message", args: []string{"-ringBufferBytes=1000"},
			want: []string{"-ringBufferBytes: 1000 bytes do not hold one message; maxMessageSize is 524288"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.file)
			_, err := config.Load(tt.args, append(tt.env, "CONFIGFOLDER="+dir), methods)
			if err == nil {
				t.Fatal("accepted")
			}
			want := strings.ReplaceAll(strings.Join(tt.want, "\n"), "FILE", dir+"/config.toml")
			if err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func TestABadValueThatIsOverruledDoesNotStopAStart(t *testing.T) {
	dir := folder(t, "logLevel = 5\n")
	if c := start(t, dir, []string{"-logLevel=warn"}); c.LogLevel != "warn" {
		t.Errorf("got %q", c.LogLevel)
	}
	if c := load(t, dir, nil); c.LogLevel != "warn" {
		t.Errorf("next start: got %q", c.LogLevel)
	}
}

func TestErrorsStayShort(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, args := range [][]string{{"-node=" + long + " "}, {"-" + long + "=1"}, {long}, {"-maxParallel=" + long}, {"-brokerAddress=" + long}} {
		_, err := config.Load(args, []string{"CONFIGFOLDER=" + folder(t, "")}, methods)
		if err == nil || len(err.Error()) > 400 {
			t.Errorf("%.30s: got %.500v", args[0], err)
		}
	}
	_, err := config.Load(nil, []string{"CONFIGFOLDER=" + folder(t, long+" = 1")}, methods)
	if err == nil || len(err.Error()) > 400 {
		t.Errorf("file: got %.500v", err)
	}
}
