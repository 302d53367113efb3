package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"steward/message"
	"steward/security"
	"steward/security/authority"
)

// TestStolenKeyDoesNoMoreThanTheRulesAllow: in this closed fleet nodes may send to each other, ship1 lists ship3 for all that
// runs something, and its rules allow it a little of that. Then the key of ship3 is stolen, and in the end revoked.
func TestStolenKeyDoesNoMoreThanTheRulesAllow(t *testing.T) {
	t.Parallel()
	var flags []string
	for _, m := range []string{"REQCliCommand", "REQnCliCommand", "REQnCliCommandCont", "REQOpCommand", "REQHttpGet", "REQTailFile", "REQTrustUpdate"} {
		flags = append(flags, "-startSub"+m+"=central,ship3")
	}
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(web.Close)
	first := versioned(3, little(web.URL))
	a := closed(t, "all", first, flags, "ship3", "ship1")
	a.nc = a.connect(nats.RootCAs(filepath.Join(a.dir, "central", "etc", authority.CAFile)), nats.Nkey(a.stolen.Public().String(), a.stolen.Login().Sign))
	a.overhear("ship3.*.CommandACK")
	l := &lawful{attacked: a, first: first, web: web.URL, asked: &asked}
	for _, attack := range []struct {
		name string
		run  func(*lawful)
	}{
		{"commands", (*lawful).run},
		{"other methods", (*lawful).others},
		{"the names of others", (*lawful).pose},
		{"replies", (*lawful).reply},
		{"lists of keys", (*lawful).retrust},
		{"rules", (*lawful).outdate},
		{"links that come and go", (*lawful).swapFolders},
		{"a key that is revoked", (*lawful).goOn},
	} {
		t.Run(attack.name, func(t *testing.T) {
			began := time.Now()
			a.t = t
			attack.run(l)
			a.unharmed()
			t.Log(time.Since(began))
		})
		a.t = t
	}
}

// lawful is a fleet in which rules are in force.
type lawful struct {
	*attacked
	first string // the rules that ship1 has begun with
	web   string
	asked *atomic.Int32 // how often the web server was
}

// rule is one of a file of rules.
func rule(name, from string, methods, args []string) string {
	quoted := func(list []string) string {
		for i := range list {
			list[i] = "'" + list[i] + "'"
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	text := fmt.Sprintf("[[rules]]\nname = %q\neffect = \"allow\"\nfrom = [%q]\nmethods = %s\n", name, from, quoted(methods))
	if args != nil {
		text += "args = " + quoted(args) + "\n"
	}
	return text
}

var commandMethods = []message.Method{"REQCliCommand", "REQnCliCommand", "REQnCliCommandCont"}

const tailed = "/var/log/steward.tailed" // nobody needs it

// little is what ship3 may do.
func little(web string) string {
	return rule("central", "central", []string{"*"}, nil) +
		rule("echo", "ship3", []string{"REQCliCommand", "REQnCliCommand*"}, []string{"echo", "*"}) +
		rule("page", "ship3", []string{"REQHttpGet"}, []string{web + "/page"}) +
		rule("log", "ship3", []string{"REQTailFile"}, []string{tailed}) +
		rule("ps", "ship3", []string{"REQOpCommand"}, []string{"ps"}) +
		rule("keys", "ship3", []string{"REQTrustUpdate"}, nil)
}

func versioned(version int, rules string) string {
	return fmt.Sprintf("version = %d\n%s", version, rules)
}

// push has central send rules to ship1, and waits until they are in force.
func (l *lawful) push(version int, rules string) {
	l.t.Helper()
	l.hand(versioned(version, rules))
	l.until(fmt.Sprintf("version %d of the rules is in force", version), func() bool {
		return slices.ContainsFunc(l.lines("central", "var/ship1/REQAclUpdate.log"), func(line string) bool {
			return strings.HasPrefix(line, fmt.Sprintf("version %d of the rules is in force", version))
		})
	})
}

// hand has central send rules to ship1.
func (l *lawful) hand(rules string) {
	l.t.Helper()
	file := filepath.Join(l.dir, "rules.toml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.does("acl", "push", l.etc("central"), "-socketFolder="+filepath.Join(l.dir, "central", "tmp"), file, "ship1")
}

// deny wants that ship1 takes a message of ship3 off the stream without doing what it says.
func (l *lawful) deny(to string, method message.Method, kind message.Kind, m message.Message) {
	l.t.Helper()
	if ack := l.asShip3(to, method, kind, m); len(ack.Refused) != 1 || ack.Refused[0].Code != message.CodeDenied {
		l.t.Errorf("%s %.200q to %s: the answer is %+v", method, m.Data, to, ack)
	}
}

func (l *lawful) run() {
	path, m := l.canary()
	m.Headers = map[string]string{message.HeaderFrom: "central"}
	tries := [][]string{
		{"touch", path}, {"echo", "x", path}, {"echo", "x", ""}, {"echo"}, {}, {""}, {"", "echo", "x"}, {"echo x"}, {"echo x", ""}, {" echo", "x"}, {"echo ", "x"}, {"\techo", "x"},
		{"echo;touch " + path}, {"echo\n", "x"}, {"echo\ntouch", path}, {"touch\necho", path}, {"echo\r", "x"},
		{"echo\x00", "x"}, {"echo\x00touch", path}, {"\x00echo", "x"}, {"touch\x00echo", path},
		{"ECHO", "x"}, {"Echo", "x"}, {"еcho", "x"}, {"ｅｃｈｏ", "x"}, {"echo\u200b", "x"}, {"\ufeffecho", "x"}, {"e\u0301cho", "x"}, {"echo\u202e", "x"},
		{"/bin/echo", "x"}, {"./echo", "x"}, {"../echo", "x"}, {"*", "*"}, {"echo", "*", "..."}, {"@central", "x"}, {"sh", "-c", "touch " + path}, {"env", "echo"},
		{"{{STEWARD_DATA}}", "x"}, {"{{STEWARD_DATA}}", path}, {strings.Repeat("e", 1<<16), "x"}, {"echo" + strings.Repeat(" ", 1<<16), "x"},
	}
	for _, data := range tries {
		m.Data = data
		for _, method := range commandMethods {
			l.deny("ship1", method, message.CommandACK, m)
		}
		later := m
		later.Schedule = &message.Schedule{Every: time.Second, For: message.Forever}
		l.deny("ship1", "REQCliCommand", message.CommandACK, later)
		l.deny("ship1", "REQnCliCommand", message.CommandACK, l.answering(m, message.NewID(time.Now(), 1, 1)))
	}
	for _, method := range commandMethods {
		l.told("ship1", "refused", fmt.Sprintf("ship3 may not use %s here: no rule allows it", method))
	}

	// What a star lets in is one argument, whatever it holds, and no shell sees it.
	for i, arg := range []string{"; touch " + path, "$(touch " + path + ")", "`touch " + path + "`", "x\ntouch " + path, "{{STEWARD_DATA}}", strings.Repeat("x", 1<<15)} {
		m.Data, m.ReplyMethod, m.ReplyMethodArgs, m.ReplyACKTimeout = []string{"echo", arg}, "REQCliCommand", []string{"touch", path}, time.Second
		if ack := l.asShip3("ship1", commandMethods[i%len(commandMethods)], message.CommandACK, m); ack.Code != "" || len(ack.Refused) > 0 {
			l.t.Errorf("echo %.50q: the answer is %+v", arg, ack)
		}
	}
	// The reply, and the command in it, goes to who has asked and to nobody else.
	l.until("ship1 answers ship3", func() bool { return l.last("ship3.REQCliCommand.CommandACK") != nil })
}

// answering is m as a reply to id, with what it says as the output.
func (l *lawful) answering(m message.Message, id message.ID) message.Message {
	m.InReplyTo, m.RequestMethod, m.Result, m.Body = id, "REQCliCommand", &message.Result{}, []byte(strings.Join(m.Data, " "))
	return m
}

// others is for all else that runs, reads or changes something.
func (l *lawful) others() {
	path, m := l.canary()
	for _, arg := range []string{"/etc/passwd", tailed + "\x00", tailed + "\n", tailed + "/", "./" + tailed, "/var/log/../log/steward.tailed", "/var//log/steward.tailed", tailed + "2", ""} {
		m.Data = []string{arg}
		l.deny("ship1", "REQTailFile", message.EventACK, m)
	}
	m.Data = []string{tailed, path}
	l.deny("ship1", "REQTailFile", message.EventACK, m)
	for _, arg := range []string{"", "/secret", "/page?x", "/page#x", "/page/", "/Page", "/page/../secret", "/page\n", "/page ", "/%70age"} {
		m.Data = []string{l.web + arg}
		l.deny("ship1", "REQHttpGet", message.EventACK, m)
	}
	for _, arg := range []string{strings.Replace(l.web, "http", "HTTP", 1) + "/page", strings.Replace(l.web, "//", "//x@", 1) + "/page", "file:///etc/passwd"} {
		m.Data = []string{arg}
		l.deny("ship1", "REQHttpGet", message.EventACK, m)
	}
	m.Data = nil
	for _, op := range []message.Operation{
		{Cmd: "startProc", Arg: message.OperationArg{Method: "REQCliCommand", AllowedNodes: []message.Node{"ship3"}}},
		{Cmd: "startProc", Arg: message.OperationArg{Method: "REQAclUpdate", AllowedNodes: []message.Node{"*"}}},
		{Cmd: "stopProc", Arg: message.OperationArg{Method: "REQErrorLog"}},
		{Cmd: "clearQueue"},
		{Cmd: "PS"}, {Cmd: "ps "}, {Cmd: "ps\x00"}, {Cmd: ""},
	} {
		m.Operation = &op
		l.deny("ship1", "REQOpCommand", message.CommandACK, m)
	}
	m.Operation = nil
	m.Data = []string{"version = 99\n" + rule("all", "*", []string{"*"}, nil), "force"}
	l.deny("ship1", "REQAclUpdate", message.CommandACK, m)
	l.deny("ship1", "REQAclUpdate", message.CommandACK, l.answering(m, message.NewID(time.Now(), 1, 2)))
	m.Data = []string{"a lie"}
	for _, method := range []message.Method{"REQErrorLog", "REQToFile", "REQToFileAppend", "REQToConsole", "REQPing", "REQPong"} {
		l.deny("ship1", method, message.EventACK, m)
	}
	for _, method := range []string{"REQTailFile", "REQHttpGet", "REQOpCommand"} {
		l.told("ship1", "refused", fmt.Sprintf("ship3 may not use %s here: no rule allows it", method))
	}
	l.told("ship1", "refused", "ship3 may not use REQAclUpdate here: -startSubREQAclUpdate lists who may")
	if n := l.asked.Load(); n > 0 {
		l.t.Errorf("the web server was asked %d times", n)
	}
	// The one page that it may have it gets.
	m.Data = []string{l.web + "/page"}
	if ack := l.asShip3("ship1", "REQHttpGet", message.EventACK, m); ack.Code != "" || len(ack.Refused) > 0 {
		l.t.Errorf("the page that is allowed: the answer is %+v", ack)
	}
	l.until("the web server is asked", func() bool { return l.asked.Load() == 1 })
}

// pose says to be central, ship1 itself, or local.
func (l *lawful) pose() {
	_, m := l.canary()
	const subject = "ship1.REQCliCommand.CommandACK"
	for _, from := range []string{"central", "ship1", "local"} {
		reply := l.ackOf("ship3") // where it would hear an answer; there is none, since that is not where those for the other one go to
		l.publish(subject, reply, seal(l.stolen, forFrame, subject, reply, l.starts["ship1"], l.frame(from, "ship1", "REQCliCommand", 1, m)))
		l.told("ship1", "unproven", "it says to be from "+from+", and is signed with the key "+l.stolen.Public().String())
	}
	for _, to := range []string{"local", "central", "ship3"} {
		reply := l.ackOf("ship3")
		ack := l.ask(subject, reply, seal(l.stolen, forFrame, subject, reply, l.starts["ship1"], l.frame("ship3", to, "REQCliCommand", 1, m)))
		if ack.Code != message.CodeInvalid {
			l.t.Errorf("to %s: the answer is %+v", to, ack)
		}
		l.told("ship1", "refused", "it is for REQCliCommand on "+to)
	}
}

// reply answers a request of central with what central has not asked for.
func (l *lawful) reply() {
	path, m := l.canary()
	const subject = "ship3.REQCliCommand.CommandACK"
	before := l.last(subject)
	text := l.send([]map[string]any{{"toNode": "ship3", "method": "REQCliCommand", "data": []string{"id"}, "ACKTimeout": 1, "retries": 0}})[0]
	l.until("ship3 gets the request", func() bool { return l.last(subject) != before })
	id, err := message.ParseID(text)
	if err != nil {
		l.t.Fatal(err)
	}
	for method, data := range map[message.Method][]string{
		"REQCliCommand": {"touch", path}, "REQnCliCommand": {"touch", path}, "REQnCliCommandCont": {"touch", path}, "REQHttpGet": {l.web}, "REQTailFile": {"/etc/passwd"},
		"REQAclUpdate": {"version = 1"}, "REQTrustUpdate": {"x"}, "REQOpCommand": nil,
	} {
		kind := message.CommandACK
		if method == "REQHttpGet" || method == "REQTailFile" {
			kind = message.EventACK
		}
		m.Data = data
		l.deny("central", method, kind, l.answering(m, id))
		l.told("central", "refused", fmt.Sprintf("ship3 may not use %s here: -startSub%s lists who may", method, method))
	}
	if s := l.state(text); s == "done" {
		l.t.Errorf("the request is %s", s)
	}
}

// retrust sends lists of keys that central has not made, and the one from before.
func (l *lawful) retrust() {
	file := filepath.Join(l.dir, "ship1", "etc", "fleet_trust")
	now, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(l.dir, "ship3", "etc", "fleet_trust"))
	if err != nil {
		l.t.Fatal(err)
	}
	mine := []security.Trusted{{Node: "ship1", Key: l.stolen.Public()}, {Node: "central", Key: l.stolen.Public()}}
	for _, try := range []struct{ text, told string }{
		{(&security.Fleet{Version: 1 << 40, Central: "central", Trusted: mine}).Sign(l.stolen), "which is not trusted for central"},
		{(&security.Fleet{Version: 1 << 40, Central: "ship3", Trusted: mine}).Sign(l.stolen), "which is not trusted for central"},
		{(&security.Fleet{Version: 1 << 40, Central: "central", Trusted: mine}).Sign(l.strange), l.strange.Public().String()},
		{strings.Replace(string(now), "version ", "version 9", 1), "the signature does not fit"},
		{string(old), "is older than version"},
	} {
		m := message.Message{Data: []string{try.text}, ReplyMethod: message.MethodNone, ACKTimeout: time.Second, MethodTimeout: time.Minute}
		if ack := l.asShip3("ship1", "REQTrustUpdate", message.CommandACK, m); ack.Code != "" || len(ack.Refused) > 0 { // its list and rules let it in
			l.t.Errorf("the answer is %+v", ack)
		}
		l.told("ship1", "method-failed", try.told)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(now) {
		l.t.Errorf("the list is %s, %v; before it was %s", after, err, now)
	}
}

// outdate is about rules that change: what waits is decided anew, and an older version does not come back.
func (l *lawful) outdate() {
	_, m := l.canary()
	m.Data, m.Schedule = []string{"echo", "again"}, &message.Schedule{Every: time.Second, For: message.Forever}
	if ack := l.asShip3("ship1", "REQnCliCommand", message.CommandACK, m); ack.Code != "" || len(ack.Refused) > 0 {
		l.t.Errorf("the answer is %+v", ack)
	}
	l.push(4, rule("central", "central", []string{"*"}, nil))
	l.told("ship1", "method-failed", "ship3 may not use REQnCliCommand on ship1: no rule allows it; it was allowed when it arrived")
	l.hand(l.first)
	l.told("ship1", "method-failed", "version 3 of the rules is older than version 4, which is in force")
	m.Schedule = nil
	l.deny("ship1", "REQnCliCommand", message.CommandACK, m)
}

// swapper makes a folder a link to elsewhere, and a folder again, until it is told to stop.
func swapper(folder, elsewhere string, stop <-chan struct{}) error {
	aside, link := folder+".aside", folder+".link"
	if err := errors.Join(os.MkdirAll(folder, 0o700), os.Symlink(elsewhere, link)); err != nil {
		return err
	}
	move := func(from, to string) error {
		var err error
		for range 10_000 {
			if err = os.Rename(from, to); err == nil {
				return nil
			}
			_ = os.RemoveAll(to) // the node has made it anew meanwhile, and may do so again
		}
		return err
	}
	for {
		if err := errors.Join(move(folder, aside), move(link, folder), move(folder, link), move(aside, folder)); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// swapFolders is who may write into the data folders of central and ship1, while files and replies are written there.
func (l *lawful) swapFolders() {
	outside := filepath.Join(l.dir, "elsewhere")
	victims := []string{"e/central/file", "e/ship1/file"}
	for _, v := range victims {
		path := filepath.Join(outside, v)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
			l.t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	for _, node := range []string{"central", "ship1"} {
		swapping.Go(func() {
			if err := swapper(filepath.Join(l.dir, node, "var", "d"), outside, stop); err != nil {
				l.t.Errorf("%s: %v", node, err)
			}
		})
	}
	over := sync.OnceFunc(func() { close(stop); swapping.Wait() })
	defer over()
	caught := func(node string) bool {
		return slices.ContainsFunc(l.lines("central", "var/errorLog/"+node+"/error.log"), func(line string) bool {
			return strings.Contains(line, "method-failed") && strings.Contains(line, "d/e") && (strings.Contains(line, "path escapes from parent") || strings.Contains(line, "leaves the data folder"))
		})
	}
	for round := 0; round < 3 || !caught("ship1") || !caught("central"); round++ {
		var batch []map[string]any
		add := func(directory, name, text string) {
			for _, m := range []map[string]any{
				{"method": "REQToFile", "data": []string{text}}, {"method": "REQToFileAppend", "data": []string{text}},
				{"method": "REQCliCommand", "data": []string{"echo", text}, "replyMethod": "REQToFile"}, {"method": "REQnCliCommand", "data": []string{"echo", text}},
			} {
				m["toNode"], m["directory"], m["fileName"], m["ACKTimeout"], m["retries"], m["replyACKTimeout"], m["replyRetries"] = "ship1", directory, name, 1, 0, 1, 0
				if directory == "calm" {
					m["fileName"] = m["method"].(string)
				}
				batch = append(batch, m)
			}
		}
		for i := range 20 {
			add("d/e", []string{"file", "new"}[i%2], "evil")
		}
		text := fmt.Sprint(round)
		add("calm", "", text) // behind all the others in each stream
		l.send(batch)
		for path, node := range map[string]string{"central/REQToFile": "ship1", "central/REQToFileAppend": "ship1", "ship1/REQCliCommand": "central", "ship1/REQnCliCommand": "central"} {
			l.until("the batch is through "+path, func() bool { return slices.Contains(l.lines(node, "var/calm/"+path), text) })
		}
	}
	over()
	if found := l.tree("elsewhere"); !slices.Equal(found, victims) {
		l.t.Errorf("outside of the data folders is %q", found)
	}
	for _, v := range victims {
		if text, err := os.ReadFile(filepath.Join(outside, v)); err != nil || string(text) != "mine" {
			l.t.Errorf("%s holds %q, %v", v, text, err)
		}
	}
}

// goOn is the key when it is revoked: connected, with messages that wait on ship1, and after that.
func (l *lawful) goOn() {
	path, m := l.canary()
	gate := filepath.Join(l.dir, "gate")
	wait := "echo > " + gate + ".runs; while ! test -e " + gate + "; do sleep 0.05; done"
	l.push(5, little(l.web)+rule("wait", "ship3", []string{"REQCliCommand"}, []string{"sh", "-c", wait})+rule("touch", "ship3", []string{"REQCliCommand"}, []string{"touch", path}))
	take := func(method message.Method, data ...string) {
		l.t.Helper()
		m.Data = data
		if ack := l.asShip3("ship1", method, message.CommandACK, m); ack.Code != "" || len(ack.Refused) > 0 {
			l.t.Errorf("%q: the answer is %+v", data, ack)
		}
	}
	take("REQCliCommand", "sh", "-c", wait)
	l.until("its command runs", func() bool { _, err := os.Stat(gate + ".runs"); return err == nil })
	take("REQCliCommand", "touch", path) // is on the disk of ship1, behind that
	m.Schedule = &message.Schedule{Every: time.Second, For: message.Forever}
	take("REQnCliCommandCont", "echo", "again")
	evil := l.as(l.stolen)

	l.does("revoke", l.etc("central"), "-yes", "ship3")
	l.until("it is cut off", func() bool { _, err := evil.say(""); return err != nil })
	l.until("it is cut off with all its connections", l.nc.IsClosed)
	if c, err := l.talk(l.roots()); err != nil {
		l.t.Error(err)
	} else if err := c.login(l.stolen.Public().String(), l.stolen); err == nil || !strings.Contains(err.Error(), "Authorization Violation") {
		l.t.Errorf("it logs in again: %v", err)
	}
	l.told("central", "refused", l.stolen.Public().String())
	l.until("ship1 is told", func() bool {
		return slices.Contains(l.lines("ship1", "etc/fleet_trust"), "revoked ship3 "+l.stolen.Public().String())
	})
	l.told("ship1", "method-failed", "ship3 may not use REQnCliCommandCont on ship1: no key of ship3 is trusted")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.told("ship1", "method-failed", "ship3 may not use REQCliCommand on ship1: no key of ship3 is trusted")
	l.fails("the key was revoked", "enroll", l.etc("ship3"), l.token("ship3"))
	l.told("central", "refused", "enrolment refused: ship3")
}
