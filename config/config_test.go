package config_test

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"steward/config"
	"steward/message"
)

var methods = []config.Method{
	{Name: "REQCliCommand"},
	{Name: "REQnCliCommandCont", Default: []string{config.Central}},
	{Name: "REQErrorLog", Default: []string{"*"}},
	{Name: "REQPing", Default: []string{"*"}},
}

// folder returns a config folder with a file of the text given, or an empty one for "".
func folder(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	if text != "" {
		write(t, dir, text)
	}
	return dir
}

func write(t testing.TB, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// load loads from dir with flags and environment.
func load(t testing.TB, dir string, args []string, env ...string) *config.Config {
	t.Helper()
	c, err := config.Load(args, append(env, "CONFIGFOLDER="+dir), methods)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start loads and saves, as a node does.
func start(t testing.TB, dir string, args []string, env ...string) *config.Config {
	t.Helper()
	c := load(t, dir, args, env...)
	if w := c.Save(); w != nil {
		t.Fatal(w)
	}
	return c
}

func value(t testing.TB, c *config.Config, name string) config.Value {
	t.Helper()
	values := c.Values()
	i := slices.IndexFunc(values, func(v config.Value) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no value %s", name)
	}
	return values[i]
}

func TestLaterSourcesWin(t *testing.T) {
	const file = "nodeName = \"file\"\n"
	env := "STEWARD_NODE_NAME=env"
	for _, tt := range []struct {
		name, file string
		args       []string
		env        []string
		want       message.Node
		origin     config.Origin
		where      string
	}{
		{"default", "", nil, nil, "central", config.FromDefault, "default"},
		{"file", file, nil, nil, "file", config.FromFile, "config.toml:1:12"},
		{"environment over file", file, nil, []string{env}, "env", config.FromEnvironment, "STEWARD_NODE_NAME"},
		{"environment without file", "", nil, []string{env}, "env", config.FromEnvironment, "STEWARD_NODE_NAME"},
		{"flag over all", file, []string{"-nodeName", "flag"}, []string{env}, "flag", config.FromFlag, "-nodeName"},
		{"two dashes", file, []string{"--nodeName=flag"}, nil, "flag", config.FromFlag, "-nodeName"},
		{"alias", file, []string{"-node=flag"}, nil, "flag", config.FromFlag, "-nodeName"},
		{"last flag", file, []string{"-node=a", "-nodeName=b"}, nil, "b", config.FromFlag, "-nodeName"},
		{"last variable", "", nil, []string{env, "STEWARD_NODE_NAME=two"}, "two", config.FromEnvironment, "STEWARD_NODE_NAME"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := load(t, folder(t, tt.file), tt.args, tt.env...)
			v := value(t, c, "nodeName")
			if c.NodeName != tt.want || v.Value != string(tt.want) || v.Origin != tt.origin || !strings.HasSuffix(v.Where, tt.where) {
				t.Errorf("got %q, %+v", c.NodeName, v)
			}
		})
	}
}

func TestConfigFolderIsFoundBeforeTheFile(t *testing.T) {
	a, b := folder(t, "nodeName = \"a\"\n"), folder(t, "nodeName = \"b\"\n")
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		want message.Node
	}{
		{"flag", []string{"-configFolder", a}, []string{"CONFIGFOLDER=" + b}, "a"},
		{"CONFIGFOLDER", nil, []string{"CONFIG_FOLDER=" + b, "CONFIGFOLDER=" + a}, "a"},
		{"CONFIG_FOLDER", nil, []string{"CONFIGFOLDER=", "CONFIG_FOLDER=" + b}, "b"},
		{"STEWARD_CONFIG_FOLDER", nil, []string{"CONFIGFOLDER=" + b, "STEWARD_CONFIG_FOLDER=" + a}, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Load(tt.args, tt.env, methods)
			if err != nil {
				t.Fatal(err)
			}
			if c.NodeName != tt.want {
				t.Errorf("got %q", c.NodeName)
			}
		})
	}
}

func TestConfigFolderIsEtcByDefault(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := config.Load(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Save(); w != nil {
		t.Fatal(w)
	}
	for path, want := range map[string]os.FileMode{"etc": 0o700, "etc/config.toml": 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
}

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	dir := folder(t, "")
	for _, when := range []string{"without a file", "from the file of the first start"} {
		c := start(t, dir, nil)
		want := config.Config{
			NodeName: "central", CentralNodeName: "central",
			Brokers:              []string{"127.0.0.1:4222"},
			BrokerConnectTimeout: 5 * time.Second, ReconnectWait: 2 * time.Second, ReconnectJitter: time.Second,
			EmbeddedBrokerTLS: "auto", EmbeddedBrokerLogin: "auto", EmbeddedBrokerReach: "events", EmbeddedBrokerMaxConnections: 10_000, EmbeddedBrokerInsecure: "no",
			Signatures: "off", NodeKeyFile: filepath.Join(dir, "node.key"), TrustedNodesFile: filepath.Join(dir, "trusted_nodes"),
			Compression: "zstd", WindowMessages: 4096, WindowBytes: 4 << 20, AuditLogSize: 64, AuditLogFiles: 10,
			ConfigFolder: dir, SocketFolder: "./tmp", DatabaseFolder: "./lib", SubscribersDataFolder: "./var", SocketMode: 0o600,
			DefaultMessageTimeout: 5 * time.Second, DefaultMessageRetries: 3, DefaultMethodTimeout: 10 * time.Second,
			ErrorMessageTimeout: time.Minute, ErrorMessageRetries: 0,
			RingBufferSize: 1_000_000, RingBufferBytes: 4 << 30, MaxMessageSize: 524288, MaxParallel: 64,
			SocketIdleTimeout: 2 * time.Second, PromHostAndPort: ":2112", LogLevel: "info", LogFormat: "text",
			Subscribers: map[message.Method][]string{
				"REQCliCommand": {"central"}, "REQnCliCommandCont": {"central"}, "REQErrorLog": {"*"}, "REQPing": {"*"},
			},
		}
		if diff := different(&want, c); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
		if len(c.Warnings) != 0 {
			t.Errorf("%s: warnings %q", when, c.Warnings)
		}
	}
}

func TestSeedCommandsAreUnderstood(t *testing.T) {
	c := load(t, folder(t, ""), []string{"--nodeName=central", "--defaultMessageRetries=3", "--defaultMessageTimeout=5",
		"-subscribersDataFolder=./data", "--centralNodeName=central", "-startSubREQErrorLog=*", "-subscribersDataFolder=./var",
		"-brokerAddress=127.0.0.1:4222"})
	if c.SubscribersDataFolder != "./var" || !slices.Equal(c.Subscribers["REQErrorLog"], []string{"*"}) {
		t.Errorf("got %+v", c)
	}
	c = load(t, folder(t, ""), []string{"--nodeName=ship1", "-startPubREQHello=200", "--centralNodeName=central",
		"-promHostAndPort=:12112", "-brokerAddress=127.0.0.1:4222"})
	if c.NodeName != "ship1" || c.StartPubREQHello != 200*time.Second || c.PromHostAndPort != ":12112" {
		t.Errorf("got %+v", c)
	}
	t.Chdir(t.TempDir())
	c, err := config.Load([]string{"--node=central"}, []string{"CONFIGFOLDER=./etc/"}, methods)
	if err != nil || c.NodeName != "central" || c.ConfigFolder != "./etc/" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestHelpIsAskedFor(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help"} {
		if _, err := config.Load([]string{arg}, nil, methods); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: got %v", arg, err)
		}
	}
}

func TestCentralInAListFollowsCentralNodeName(t *testing.T) {
	dir := folder(t, "")
	start(t, dir, nil)
	c := start(t, dir, []string{"-centralNodeName=ww.central", "-startSubREQPing=ship1, ship2,<centralNodeName>,ship1"})
	want := map[message.Method][]string{
		"REQCliCommand": {"ww.central"}, "REQnCliCommandCont": {"ww.central"}, "REQErrorLog": {"*"},
		"REQPing": {"ship1", "ship2", "ww.central"},
	}
	if !maps.EqualFunc(c.Subscribers, want, slices.Equal) {
		t.Errorf("got %v", c.Subscribers)
	}
}

func TestRSTTurnsOffAndStaysOff(t *testing.T) {
	dir := folder(t, "")
	start(t, dir, []string{"-startSubREQCliCommand=ship1,ship2"})
	off := func(c *config.Config) bool {
		nodes, ok := c.Subscribers["REQCliCommand"]
		return ok && len(nodes) == 0 && value(t, c, "startSubREQCliCommand").Value == "RST"
	}
	if c := load(t, dir, nil, "STEWARD_START_SUB_REQ_CLI_COMMAND=RST"); !off(c) {
		t.Errorf("environment: %v", c.Subscribers)
	}
	if c := start(t, dir, []string{"-startSubREQCliCommand=RST"}); !off(c) {
		t.Errorf("flag: %v", c.Subscribers)
	}
	if text := read(t, dir); !strings.Contains(text, "\nstartSubREQCliCommand = []\n") {
		t.Errorf("file:\n%s", text)
	}
	if c := start(t, dir, nil); !off(c) {
		t.Errorf("next start: %v", c.Subscribers)
	}
	c := start(t, dir, []string{"-startSubREQCliCommand=ship3"})
	if got := c.Subscribers["REQCliCommand"]; !slices.Equal(got, []string{"ship3"}) {
		t.Errorf("list given again: %v", got)
	}
	if c := load(t, folder(t, `startSubREQCliCommand = ["RST"]`), nil); !off(c) {
		t.Errorf("RST in the file: %v", c.Subscribers)
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	for given, shown := range map[string]string{
		"nats://joe:s3cret@a:4222, tls://b:4222":    "nats://joe:•••@a:4222, tls://b:4222",
		"joe:s3cret@a:4222":                         "joe:•••@a:4222",
		"wss://s3cret@a:443/way,wss://j:s3cret@b:1": "wss://•••@a:443/way,wss://j:•••@b:1",
		"a:4222,[::1]:4222":                         "a:4222,[::1]:4222",
	} {
		c := load(t, folder(t, ""), []string{"-brokerAddress", given})
		if got := value(t, c, "brokerAddress").Value; got != shown {
			t.Errorf("%s is shown as %s", given, got)
		}
	}
	for _, bad := range []string{"nats://joe:s3cret@a", "nats://joe:s3cret@a:x", "nats://joe:s3cret,x@a:1", "joe:s3cret@a b:1", "nats://joe:%zs3cret@a:1"} {
		_, err := config.Load([]string{"-brokerAddress", bad}, []string{"CONFIGFOLDER=" + folder(t, "")}, methods)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func TestPasswordsThatOthersCanReadAreWarnedOf(t *testing.T) {
	const secret = "nats://joe:s3cret@a:4222"
	in := "brokerAddress = \"" + secret + "\"\n"
	for _, tt := range []struct {
		name, file string
		mode       os.FileMode
		args, env  []string
		want       []string // in the warnings, one each
	}{
		{"flag", "", 0, []string{"-brokerAddress=" + secret}, nil, []string{"which ps shows"}},
		{"flag without one", "", 0, []string{"-brokerAddress=a:4222"}, nil, nil},
		{"environment", "", 0, nil, []string{"STEWARD_BROKER_ADDRESS=" + secret}, nil},
		{"file", in, 0o600, nil, nil, nil},
		{"file for all", in, 0o644, nil, nil, []string{"run: chmod 600 "}},
		{"file for all, without one", "nodeName = \"x\"", 0o644, nil, nil, nil},
		{"flag and file for all", in, 0o640, []string{"-brokerAddress=nats://s3cret@a:1"}, nil, []string{"which ps shows", "run: chmod 600 "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.file)
			if tt.file != "" {
				if err := os.Chmod(filepath.Join(dir, "config.toml"), tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			got := load(t, dir, tt.args, tt.env...).Warnings
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) || strings.Contains(got[i], "s3cret") {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
		})
	}
}

func TestUnknownVariablesAreWarnedOf(t *testing.T) {
	c := load(t, folder(t, ""), nil, "STEWARD_NODENAME=x", "STEWARD_NODE=set for commands", "NODE_NAME=y", "STEWARD_QQQQQQQQQQQQ=z")
	want := []string{
		`environment variable "STEWARD_NODENAME" is not a setting; did you mean STEWARD_NODE_NAME?`,
		`environment variable "STEWARD_QQQQQQQQQQQQ" is not a setting; it is not read`,
	}
	if !slices.Equal(c.Warnings, want) {
		t.Errorf("got %q", c.Warnings)
	}
}

func TestEnvNameSplitsWords(t *testing.T) {
	for name, want := range map[string]string{
		"nodeName":                   "STEWARD_NODE_NAME",
		"rootCAPath":                 "STEWARD_ROOT_CA_PATH",
		"promHostAndPort":            "STEWARD_PROM_HOST_AND_PORT",
		"startPubREQHello":           "STEWARD_START_PUB_REQ_HELLO",
		"startSubREQCliCommand":      "STEWARD_START_SUB_REQ_CLI_COMMAND",
		"startSubREQnCliCommandCont": "STEWARD_START_SUB_REQ_N_CLI_COMMAND_CONT",
		"startSubREQHttpGet":         "STEWARD_START_SUB_REQ_HTTP_GET",
		"tcpListener":                "STEWARD_TCP_LISTENER",
	} {
		if got := config.EnvName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestEverySettingHasFlagVariableFileAndHelp(t *testing.T) {
	var b strings.Builder
	if err := config.Usage(&b, methods); err != nil {
		t.Fatal(err)
	}
	help := b.String()
	dir := folder(t, "")
	text := ""
	for _, v := range start(t, dir, nil).Values() {
		text = read(t, dir)
		given := v.Value
		if given == "" {
			continue
		}
		if got := value(t, load(t, dir, []string{"--" + v.Name + "=" + given}), v.Name); got.Origin != config.FromFlag || got.Value != given {
			t.Errorf("%s by flag: %+v", v.Name, got)
		}
		if got := value(t, load(t, dir, nil, config.EnvName(v.Name)+"="+given), v.Name); got.Origin != config.FromEnvironment || got.Value != given {
			t.Errorf("%s by environment: %+v", v.Name, got)
		}
	}
	for _, v := range load(t, dir, nil).Values() {
		if want := v.Name != "configFolder"; strings.Contains(text, "\n"+v.Name+" = ") != want {
			t.Errorf("%s in the file: want %v", v.Name, want)
		}
		if v.Help == "" || strings.Contains(v.Help, "\n") || !strings.Contains(help, "\n  -"+v.Name+" ") {
			t.Errorf("no help of one line for %s", v.Name)
		}
	}
	columns := make(map[int]bool)
	for line := range strings.Lines(help) {
		if flag := regexp.MustCompile(`^  -\S+ \S+ +`).FindString(line); flag != "" {
			columns[len(flag)] = true
		}
	}
	if len(columns) != 1 {
		t.Errorf("the help texts start in columns %v", columns)
	}
}

func TestMethodsMustMakeSense(t *testing.T) {
	for name, bad := range map[string][]config.Method{
		"name":      {{Name: "REQ=x"}},
		"empty":     {{Name: ""}},
		"twice":     {{Name: "REQPing"}, {Name: "REQPing"}},
		"same word": {{Name: "REQPing"}, {Name: "REQping"}},
		"default":   {{Name: "REQPing", Default: []string{"a b"}}},
	} {
		if _, err := config.Load(nil, []string{"CONFIGFOLDER=" + folder(t, "")}, bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
