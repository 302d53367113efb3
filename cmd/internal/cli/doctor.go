package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"steward/client"
	"steward/cmd/internal/node"
	"steward/config"
	"steward/kvstore"
	"steward/message"
	"steward/methods"
	"steward/security"
)

// finding is what doctor says about one thing, and prints with -json.
type finding struct {
	Check string `json:"check" doc:"what was looked at: config, rules, files, keys, folders, disk, door, broker, permissions, node, ports, socket, queue, link, central or clock"`
	State string `json:"state" doc:"ok, warn or fail"`
	Text  string `json:"text" doc:"how it is"`
	Hint  string `json:"hint,omitempty" doc:"what to do about it"`
}

// The states of a finding.
const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
)

const (
	// leastRoom is so little that a message of the largest size soon finds none.
	leastRoom = 16 << 20
	// clockSlack is how far two clocks may be apart before it is worth a word.
	clockSlack = 5 * time.Second
	// queueLines is for how many nodes doctor says one by one what waits for them.
	queueLines = 10
)

func doctorOperation() operation {
	return operation{
		name: "doctor", local: true, result: finding{}, lines: true,
		short: "what is wrong with the node here, and what to do about it",
		about: `doctor looks at all that a node needs and says how it is, a line for each: settings, rules, files, keys, folders,
room on the disk, who else is let in, its brokers and what they allow, the node itself and its ports, what waits there
for long, or for a node without a key that counts or to which the broker lets nothing through, and a message to central and back, which also shows whether the clocks
agree. It changes nothing, and connects to the brokers beside the node, which keeps its name.
What cannot be looked at, because of something above it, has no line.`,
		example: "steward doctor\nsteward doctor -json -timeout 30s -configFolder /etc/steward",
		exits:   "1 also when a line says fail",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			timeout := duration(flags, "timeout", 10*time.Second, "how long to wait for the brokers, and then for central, as a `TIME` such as 30s")
			older := duration(flags, "older", 10*time.Minute, "warn of messages that wait for longer than this `TIME`, such as 90s or 24h")
			return func(ctx context.Context, c *call) error {
				if *timeout <= 0 {
					return usageError{errors.New("-timeout has to be above 0")}
				}
				return doctor(ctx, c, *timeout, *older)
			}
		},
	}
}

// examination collects findings while it prints them.
type examination struct {
	c      *call
	cfg    *config.Config
	failed bool
	unfit  map[string]bool // the settings of which the file cannot be used, which is said
	err    error           // of printing
}

func doctor(ctx context.Context, c *call, timeout, older time.Duration) error {
	x := &examination{c: c, unfit: map[string]bool{}}
	if x.config() {
		x.rules()
		x.files()
		x.keys()
		x.folders()
		x.disk()
		x.doors()
		reached := x.brokers(ctx, timeout)
		if info, ok := x.node(ctx); ok {
			x.queue(ctx, older)
			if x.link(info, reached) {
				x.central(ctx, info, timeout)
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case x.err != nil:
		return x.err
	case x.failed:
		return exitStatus(exitFailed)
	}
	return nil
}

func (x *examination) say(check, state, hint, format string, args ...any) {
	f := finding{Check: check, State: state, Text: strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "), Hint: hint}
	x.failed = x.failed || state == stateFail
	var err error
	if x.c.json {
		err = x.c.printJSON(f)
	} else {
		text := f.Text
		if hint != "" {
			text += "; " + hint
		}
		_, err = fmt.Fprintf(x.c.out, "%-4s  %-11s  %s\n", f.State, f.Check, text)
	}
	x.err = errors.Join(x.err, err)
}

func (x *examination) config() bool {
	cfg, err := x.c.config()
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			x.say("config", stateFail, cmp.Or(denied(err), "mend it: a node does not start with it"), "%s", line)
		}
		return false
	}
	x.cfg = cfg
	for _, w := range cfg.Warnings {
		x.say("config", stateWarn, "", "%s", w)
	}
	path := filepath.Join(cfg.ConfigFolder, "config.toml")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		x.say("config", stateWarn, "the first start makes it; -configFolder names another folder", "there is no %s; with the defaults, the node is called %s", path, cfg.NodeName)
	} else {
		x.say("config", stateOK, "", "%s is good; the node is called %s", path, cfg.NodeName)
	}
	return true
}

func (x *examination) rules() {
	registry, err := methods.Builtin()
	if err != nil {
		x.say("rules", stateFail, "", "%v", err)
		return
	}
	file, err := node.OpenRules(x.cfg, registry, func(error) {})
	switch {
	case err != nil:
		x.say("rules", stateFail, mendRules(x.cfg), "%v", err)
	case file.Now() != nil:
		x.say("rules", stateOK, "", "version %d of %s, with %s", file.Now().Version, file.Path(), count(len(file.Now().Rules), "rule"))
	}
}

// keys looks at the files that only the node may read, and the list of those that it trusts.
func (x *examination) keys() {
	cfg, seen, bad := x.cfg, 0, false
	look := func(setting, path string, err error) {
		switch {
		case err != nil:
			bad, x.unfit[setting] = true, true
			x.say("keys", stateFail, "", "%s: %v", setting, err)
		case path != "":
			seen++
		}
	}
	for _, f := range []struct{ setting, path string }{
		{"nkeySeedFile", cfg.NkeySeedFile}, {"credsFile", cfg.CredsFile}, {"clientKeyFile", cfg.ClientKeyFile}, {"embeddedBrokerKeyFile", cfg.EmbeddedBrokerKeyFile},
	} {
		if x.unfit[f.setting] {
			bad = true // and said
		} else if f.path != "" {
			look(f.setting, f.path, security.CheckPrivate(f.path))
		}
	}
	// Without signatures a key is used only if another setting names it, but is a secret all the same.
	if _, err := security.LoadKey(cfg.NodeKeyFile); err == nil || !errors.Is(err, fs.ErrNotExist) {
		look("nodeKeyFile", cfg.NodeKeyFile, err)
	}
	if _, err := security.ReadTrust(cfg.TrustedNodesFile); err == nil || !errors.Is(err, fs.ErrNotExist) {
		look("trustedNodesFile", "", err)
	}
	switch {
	case bad:
	case seen == 0:
		x.say("keys", stateOK, "", "there is no file with a key, and no setting that wants one")
	default:
		x.say("keys", stateOK, "", "%s, for the owner alone", count(seen, "private file"))
	}
}

// folders looks at who may get at what the node has, and whether the folders are there.
func (x *examination) folders() {
	cfg, bad, missing := x.cfg, false, 0
	for _, f := range []struct{ setting, path string }{
		{"configFolder", cfg.ConfigFolder}, {"socketFolder", cfg.SocketFolder},
		{"databaseFolder", cfg.DatabaseFolder}, {"subscribersDataFolder", cfg.SubscribersDataFolder},
	} {
		info, err := os.Stat(f.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++ // the next start makes it
		case err != nil:
			bad = true
			x.say("folders", stateFail, "run the command as the user of the node", "%s: %v", f.setting, err)
		case !info.IsDir():
			bad = true
			x.say("folders", stateFail, "", "%s: %s is no folder", f.setting, f.path)
		case info.Mode()&0o002 != 0 && runtime.GOOS != "windows":
			bad = true
			x.say("folders", stateFail, "run: chmod o-w "+f.path, "%s: everybody can write to %s", f.setting, f.path)
		}
	}
	if err := node.CheckFolders(cfg); err != nil {
		bad = true
		for line := range strings.Lines(err.Error()) {
			x.say("folders", stateFail, "", "%s", line)
		}
	}
	if bad {
		return
	}
	text := "they are there, and not for everybody to write to"
	if missing > 0 {
		text = fmt.Sprintf("%s of 4 yet to be made by the start of a node", count(missing, "folder"))
	}
	x.say("folders", stateOK, "", "%s", text)
}

func (x *examination) disk() {
	cfg := x.cfg
	for _, f := range []struct {
		setting, path string
		wanted        int64
	}{{"databaseFolder", cfg.DatabaseFolder, cfg.RingBufferBytes}, {"subscribersDataFolder", cfg.SubscribersDataFolder, 0}} {
		path := f.path
		room, known := kvstore.Room(path)
		for !known && path != filepath.Dir(path) { // not made yet
			path = filepath.Dir(path)
			room, known = kvstore.Room(path)
		}
		if info, err := os.Stat(filepath.Join(f.path, string(cfg.NodeName)+".db")); err == nil {
			f.wanted -= info.Size()
		}
		switch {
		case !known:
		case room < leastRoom:
			x.say("disk", stateFail, "make room there: on a full disk no message is accepted, and no reply written", "%s: %s left for %s", f.setting, size(uint64(room)), f.path)
		case room < f.wanted:
			x.say("disk", stateWarn, "make room, or lower ringBufferBytes", "%s: %s left for %s, and what waits may come to take %s more", f.setting, size(uint64(room)), f.path, size(uint64(f.wanted)))
		default:
			x.say("disk", stateOK, "", "%s: %s left", f.setting, size(uint64(room)))
		}
	}
}

// brokers tries each broker with the settings of the node; reached says whether one would have it.
func (x *examination) brokers(ctx context.Context, timeout time.Duration) (reached bool) {
	if x.cfg.EmbeddedBroker != "" {
		return true // it is in the node, and the link of that one says all
	}
	if slices.ContainsFunc(linkFiles, func(setting string) bool { return x.unfit[setting] }) {
		return false // no broker is the reason
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := node.ProbeBrokers(ctx, x.cfg)
	if err != nil {
		x.say("broker", stateFail, "", "%v", err)
		return false
	}
	for _, p := range all {
		reached = reached || p.Err == nil
	}
	state := stateFail
	if reached {
		state = stateWarn // another one serves
	}
	told := map[string]bool{}
	allowed := true
	for _, p := range all {
		if p.Err != nil {
			x.say("broker", state, "", "%s: %v", p.Server, p.Err)
			continue
		}
		x.say("broker", stateOK, "", "%s: in reach, and lets this node in; it took %s", p.Server, span(p.Took))
		x.outside(p)
		for _, err := range p.Denied {
			allowed = false
			if !told[err.Error()] {
				told[err.Error()] = true
				x.say("permissions", stateFail, "", "%s: %v", p.Server, err)
			}
		}
	}
	if reached && allowed {
		x.say("permissions", stateOK, "", "this node may hear what is for it, and send events to %s", x.cfg.CentralNodeName)
	}
	return reached
}

// node asks whether a node runs here, and whether it is the one of the settings.
func (x *examination) node(ctx context.Context) (client.NodeInfo, bool) {
	local := client.New(x.cfg.SocketFolder)
	defer local.Close()
	info, err := local.Node(ctx)
	if err != nil {
		var no *client.Error
		hint := ""
		if errors.As(err, &no) {
			hint = no.Hint
		}
		x.say("node", stateFail, hint, "%v", err)
		if errors.Is(err, client.ErrNoNode) {
			x.freePorts()
		}
		return info, false
	}
	switch {
	case info.Node != x.cfg.NodeName || info.Central != x.cfg.CentralNodeName:
		x.say("node", stateWarn, "start it again for the settings to take effect", "%s runs, with %s as central; the settings say %s, with %s", info.Node, info.Central, x.cfg.NodeName, x.cfg.CentralNodeName)
	case info.Version != version():
		x.say("node", stateWarn, "start it again", "%s runs, with version %s; this program is version %s", info.Node, info.Version, version())
	default:
		x.say("node", stateOK, "", "%s runs, version %s", info.Node, info.Version)
	}
	x.openPorts(ctx, local)
	path := filepath.Join(x.cfg.SocketFolder, client.MessageSocket)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		x.say("socket", stateFail, "start the node again, which makes it", "%v", err)
		return info, false
	}
	_ = conn.Close()
	x.say("socket", stateOK, "", "%s takes messages", path)
	return info, true
}

// queue looks for messages that wait for longer than that, and for those that wait for a node of which no key counts, or
// to which the broker lets nothing through.
func (x *examination) queue(ctx context.Context, older time.Duration) {
	local := client.New(x.cfg.SocketFolder)
	defer local.Close()
	waiting, stuck := uint64(0), 0
	denied := map[message.Node]bool{}
	for s, err := range local.Queue(ctx, client.Filter{}) {
		if err != nil {
			x.say("queue", stateFail, "", "%v", err)
			return
		}
		denied[s.To] = denied[s.To] || s.Delivery != nil && s.Delivery.Denied
	}
	for p, err := range local.Nodes(ctx) {
		if err != nil {
			x.say("queue", stateFail, "", "%v", err)
			return
		}
		if p.Waiting == 0 || p.Oldest == nil {
			continue
		}
		waiting += p.Waiting
		why, hint := ofKey(p.Key), ""
		switch since := time.Since(*p.Oldest); {
		case p.Key == client.KeyRevoked:
			hint = fmt.Sprintf("steward queue rm -to %s takes them off, steward enroll with a new token lets it in again", p.Node)
		case denied[p.Node]:
			why += ", the broker does not let this node send there"
			hint = hintReach
		case p.Key == "" && x.cfg.Signatures == "require" && p.Node != x.cfg.NodeName:
			why += ", none of its keys is trusted here"
			hint = fmt.Sprintf("steward keys trust %s KEY if it may have them, steward queue rm -to %s takes them off", p.Node, p.Node)
		case since > older:
			hint = fmt.Sprintf("steward queue ls -to %s says why, steward queue rm -to %s takes them off", p.Node, p.Node)
		default:
			continue
		}
		if stuck++; stuck <= queueLines {
			x.say("queue", stateWarn, hint, "%s: %s for it, the oldest for %s%s", p.Node, wait(p.Waiting), span(time.Since(*p.Oldest)), why)
		}
	}
	switch {
	case stuck > queueLines:
		x.say("queue", stateWarn, "steward nodes shows them all", "so it is with %s", count(stuck-queueLines, "more node"))
	case stuck > 0:
	case waiting == 0:
		x.say("queue", stateOK, "", "nothing waits")
	default:
		x.say("queue", stateOK, "", "%s, not for long yet", wait(waiting))
	}
}

// wait is how many messages do.
func wait(n uint64) string {
	if n == 1 {
		return "1 message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}

func (x *examination) link(info client.NodeInfo, reached bool) bool {
	switch {
	case info.Linked:
		x.say("link", stateOK, "", "the node has a link to its broker, and its name there to itself")
	case reached:
		x.say("link", stateFail, "its log says why: another node has its name, or it runs with other settings; steward errors may know, too", "the node has no link, though a broker is in reach")
	default:
		x.say("link", stateFail, "what is accepted waits until there is one", "the node has no link to a broker")
	}
	return info.Linked
}

// central sends a message there, and waits for its reply.
func (x *examination) central(ctx context.Context, info client.NodeInfo, timeout time.Duration) {
	st, took, err := x.ping(ctx, info.Central, timeout)
	if err != nil {
		x.say("central", stateFail, "steward nodes and steward queue say more", "%s: %v", info.Central, err)
		return
	}
	x.say("central", stateOK, "", "%s answers; it took %s", info.Central, span(took))
	if st.Sent == nil || st.Sent.Started == nil || st.Sent.Ended == nil || info.Central == info.Node {
		return
	}
	ahead := max(0, st.Sent.Started.Sub(*st.Sent.Ended))
	behind := max(0, st.Accepted.Sub(*st.Sent.Started))
	switch {
	case ahead > clockSlack:
		x.say("clock", stateWarn, "set the clock: times to live and certificates go by it", "the clock of %s is at least %s ahead of this one", info.Central, span(ahead))
	case behind > clockSlack:
		x.say("clock", stateWarn, "set the clock: times to live and certificates go by it", "the clock of %s is at least %s behind this one", info.Central, span(behind))
	default:
		x.say("clock", stateOK, "", "it agrees with that of %s", info.Central)
	}
}

func (x *examination) ping(ctx context.Context, to message.Node, timeout time.Duration) (_ client.Status, took time.Duration, err error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	// Not the time to live, which goes by the clock: that is what is looked at.
	e, err := x.c.ask(bounded, client.Message{To: []message.Node{to}, Method: "REQPing", Retries: 1, ACKTimeout: timeout, MethodTimeout: timeout})
	if err != nil {
		return client.Status{}, 0, err
	}
	defer func() { err = errors.Join(err, e.drop(ctx)) }()
	err = e.wait(bounded, func(*errand, []byte) error { return nil }, nil)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return client.Status{}, 0, err
	}
	if why, code := e.all[0].failed("is taken back"); code != exitDone {
		return client.Status{}, 0, errors.New(why)
	}
	return e.all[0].status, time.Since(began), nil
}
