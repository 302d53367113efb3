package acl_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"steward/message"
	"steward/security/acl"
)

var methods = []message.Method{"REQAclUpdate", "REQCliCommand", "REQHttpGet", "REQNone", "REQOpCommand", "REQPing", "REQTailFile", "REQnCliCommand"}

func parse(t testing.TB, text string) *acl.Rules {
	t.Helper()
	r, err := acl.Parse("acl.toml", text, methods)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func request(method message.Method, args ...string) *message.Message {
	return &message.Message{Method: method, Data: args}
}

func operation(cmd string, arg message.OperationArg) *message.Message {
	return &message.Message{Method: message.MethodOpCommand, Operation: &message.Operation{Cmd: cmd, Arg: arg}}
}

const fleet = `
version = 7

[groups]
crew = ["ship1", "@masts"]
masts = ["mast*"]

[[rules]]
name = "services"
effect = "allow"
from = ["central", "@crew"]
methods = ["REQCliCommand", "REQn*"]
args = ["systemctl", "restart", "*"]

[[rules]]
name = "logs"
effect = "allow"
from = ["*"]
methods = ["REQTailFile"]
args = ["/var/log/*.log", "..."]

[[rules]]
name = "not-the-link"
effect = "deny"
from = ["*"]
methods = ["*"]
args = ["systemctl", "*", "vpn"]

[[rules]]
name = "star"
effect = "allow"
from = ["ww.*"]
methods = ["REQCliCommand"]
args = ['a\*b', 'c:\x', '\\*', "x*y*z"]

[[rules]]
name = "ends"
effect = "allow"
from = ["ship8"]
methods = ["REQPing"]
args = ["ab*ba"]

[[rules]]
name = "bare"
effect = "allow"
from = ["ship9"]
methods = ["REQPing"]
args = []

[[rules]]
name = "any"
effect = "allow"
from = ["admin"]
methods = ["REQ*"]
`

func TestDecisions(t *testing.T) {
	rules := parse(t, fleet)
	for _, c := range []struct {
		from message.Node
		m    *message.Message
		rule string // "" for none
		ok   bool
	}{
		{"central", request("REQCliCommand", "systemctl", "restart", "nginx"), "services", true},
		{"ship1", request("REQnCliCommand", "systemctl", "restart", "nginx"), "services", true},
		{"mast17", request("REQCliCommand", "systemctl", "restart", ""), "services", true},
		{"ship2", request("REQCliCommand", "systemctl", "restart", "nginx"), "", false},
		{"ship11", request("REQCliCommand", "systemctl", "restart", "nginx"), "", false},
		{"central", request("REQCliCommand", "systemctl", "stop", "nginx"), "", false},
		{"central", request("REQCliCommand", "systemctl", "restart"), "", false},
		{"central", request("REQCliCommand", "systemctl", "restart", "a", "b"), "", false},
		{"central", request("REQCliCommand", "systemctl restart nginx"), "", false},
		{"central", request("REQCliCommand", "systemctl restart", "nginx", ""), "", false},
		{"central", request("REQCliCommand", "systemctl", "restart", "vpn"), "not-the-link", false},
		{"admin", request("REQCliCommand", "systemctl", "stop", "vpn"), "not-the-link", false},
		{"admin", request("REQCliCommand", "rm", "-rf", "/"), "any", true},
		{"admin", request("REQPing"), "any", true},
		{"ship5", request("REQTailFile", "/var/log/a.log"), "logs", true},
		{"ship5", request("REQTailFile", "/var/log/a.log", "b", "c"), "logs", true},
		{"ship5", request("REQTailFile", "/var/log/a.txt"), "", false},
		{"ship5", request("REQTailFile"), "", false},
		{"ww.1", request("REQCliCommand", "a*b", `c:\x`, `\anything`, "x--y--z"), "star", true},
		{"ww.1", request("REQCliCommand", "a-b", `c:\x`, `\anything`, "x--y--z"), "", false},
		{"ww.1", request("REQCliCommand", "a*b", `c:\x`, "x", "x--y--z"), "", false},
		{"ww.1", request("REQCliCommand", "a*b", `c:\x`, `\`, "xz"), "", false},
		{"ww", request("REQCliCommand", "a*b", `c:\x`, `\`, "xyz"), "", false},
		{"ship8", request("REQPing", "abba"), "ends", true},
		{"ship8", request("REQPing", "aba"), "", false},
		{"ship9", request("REQPing"), "bare", true},
		{"ship9", request("REQPing", ""), "", false},
		{"anybody", request("REQNone", "x"), "", true},
	} {
		d := rules.Decide(c.from, "self", c.m)
		if d.Allowed != c.ok || d.Rule != c.rule {
			t.Errorf("%s %s %q: %+v, want %v by rule %q", c.from, c.m.Method, c.m.Data, d, c.ok, c.rule)
		}
	}
}

func TestWithoutRulesNothingIsDenied(t *testing.T) {
	var rules *acl.Rules
	if d := rules.Decide("anybody", "self", request("REQCliCommand", "x")); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

// What a command prints takes the place of the placeholder only when the arguments were allowed, so
// it counts as whatever it may become.
func TestPlaceholderMayBecomeAnything(t *testing.T) {
	for _, c := range []struct {
		rule, arg string
		allow     bool // a rule that allows fits
		deny      bool // one that denies does
	}{
		{"*", "{{STEWARD_DATA}}", true, true},
		{"stop", "{{STEWARD_DATA}}", false, true},
		{"stop", "st{{STEWARD_DATA}}p", false, true},
		{"stop", "x{{STEWARD_DATA}}", false, false},
		{"--x=*", "--x={{STEWARD_DATA}}", true, true},
		{"--x=*", "--{{STEWARD_DATA}}", false, true},
		{"--x=*", "--y={{STEWARD_DATA}}", false, false},
		{"--x=*.log", "--x=a.log{{STEWARD_DATA}}", false, true},
		{"a*b*", "ab{{STEWARD_DATA}}", true, true},
		{"a*b*", "a{{STEWARD_DATA}}", false, true},
		{"*x", "y{{STEWARD_DATA}}", false, true},
	} {
		for effect, fits := range map[string]bool{"allow": c.allow, "deny": c.deny} {
			rules := parse(t, fmt.Sprintf("version=1\n[[rules]]\nname='r'\neffect=%q\nfrom=['*']\nmethods=['*']\nargs=['run', %q]", effect, c.rule))
			d := rules.Decide("a", "self", request("REQCliCommand", "run", c.arg))
			if (d.Rule == "r") != fits {
				t.Errorf("%s %q with %q: %+v", effect, c.rule, c.arg, d)
			}
		}
	}
	rules := parse(t, "version=1\n[[rules]]\nname='r'\neffect='allow'\nfrom=['*']\nmethods=['*']\nargs=['run', '...']")
	if d := rules.Decide("a", "self", request("REQCliCommand", "run", "{{STEWARD_DATA}}")); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

func TestOperationsAreDecidedByWhatTheyDo(t *testing.T) {
	id, err := message.ParseID("06h0cc2c8w0000012d09p1y690")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  string
		m     *message.Message
		allow bool
		deny  bool
	}{
		{`'ps'`, operation("ps", message.OperationArg{}), true, true},
		{`'startProc','method=REQPing','kind=subscriber','receivingNode=self','allowedNodes=a'`,
			operation("startProc", message.OperationArg{Method: "REQPing", AllowedNodes: []message.Node{"a"}}), true, true},
		{`'startProc','method=REQPing','kind=subscriber','receivingNode=self','allowedNodes='`,
			operation("startProc", message.OperationArg{Method: "REQPing", ReceivingNode: "local"}), true, true},
		{`'startProc','*','*','*','allowedNodes=a'`, // one of the two is another
			operation("startProc", message.OperationArg{Method: "REQPing", AllowedNodes: []message.Node{"b", "a"}}), false, true},
		{`'startProc','...'`, operation("startProc", message.OperationArg{Method: "REQPing", AllowedNodes: []message.Node{"b", "a"}}), true, true},
		{`'startProc','method=REQPing','kind=publisher','receivingNode=ship1','allowedNodes='`,
			operation("startProc", message.OperationArg{Method: "REQPing", Kind: "publisher", ReceivingNode: "ship1"}), true, true},
		{`'stopProc','method=REQPing','kind=subscriber','receivingNode=self','id=0'`,
			operation("stopProc", message.OperationArg{Method: "REQPing", Kind: "subscriber"}), true, true},
		{`'stopProc','method=REQPing','...'`, operation("stopProc", message.OperationArg{ID: 12}), false, true}, // may be that one
		{`'stopProc','*','*','*','id=12'`, operation("stopProc", message.OperationArg{ID: 12}), true, true},
		{`'stopProc','method=*','kind=*','receivingNode=*','id=12'`, operation("stopProc", message.OperationArg{ID: 12}), true, true},
		{`'clearQueue','receivingNode=ship1','...'`, operation("clearQueue", message.OperationArg{Method: "REQPing"}), false, true}, // ship1's too
		{`'clearQueue','receivingNode=ship1','...'`, operation("clearQueue", message.OperationArg{ReceivingNode: "ship2"}), false, false},
		{`'clearQueue','receivingNode=ship1','...'`, operation("clearQueue", message.OperationArg{ReceivingNode: "ship1"}), true, true},
		{`'clearQueue','receivingNode=self','method=*','messageID=06h0cc2c8w0000012d09p1y690','olderThan=60'`,
			operation("clearQueue", message.OperationArg{ReceivingNode: "local", MessageID: id, OlderThan: time.Minute}), true, true},
	} {
		for effect, fits := range map[string]bool{"allow": c.allow, "deny": c.deny} {
			text := fmt.Sprintf("version=1\n[[rules]]\nname='r'\neffect=%q\nfrom=['*']\nmethods=['REQOpCommand']\nargs=[%s]\n", effect, c.args)
			if effect == "deny" {
				text += "[[rules]]\nname='all'\neffect='allow'\nfrom=['*']\nmethods=['*']"
			}
			rules := parse(t, text)
			if d := rules.Decide("a", "self", c.m); (d.Rule == "r") != fits {
				t.Errorf("%s %s with %+v: %+v", effect, c.args, *c.m.Operation, d)
			}
		}
	}
}

// An operation in a message for another method is not looked at by that, and so not here.
func TestOperationOfAnotherMethodDoesNotHideItsArguments(t *testing.T) {
	rules := parse(t, "version=1\n[[rules]]\nname='r'\neffect='allow'\nfrom=['*']\nmethods=['*']\nargs=['ps']")
	m := request("REQCliCommand", "rm")
	m.Operation = &message.Operation{Cmd: "ps"}
	if d := rules.Decide("a", "self", m); d.Allowed {
		t.Errorf("%+v", d)
	}
}

// Who sends rules keeps that when any rules are allowed, and these are not denied.
func TestRulesThatKeepTheirSender(t *testing.T) {
	for rule, want := range map[string]bool{
		"effect='allow'\nfrom=['central']\nmethods=['REQAclUpdate']":                           true,
		"effect='allow'\nfrom=['*']\nmethods=['*']\nargs=['*']":                                true,
		"effect='allow'\nfrom=['*']\nmethods=['*']\nargs=['...']":                              true,
		"effect='allow'\nfrom=['*']\nmethods=['*']\nargs=[]":                                   false,
		"effect='allow'\nfrom=['*']\nmethods=['*']\nargs=['version*']":                         false, // the next one may begin with a comment
		"effect='allow'\nfrom=['ship1']\nmethods=['*']":                                        false,
		"effect='allow'\nfrom=['*']\nmethods=['REQPing']":                                      false,
		"effect='deny'\nfrom=['*']\nmethods=['*']\nargs=['rm', '...']\n" + allowed:             true,
		"effect='deny'\nfrom=['*']\nmethods=['*']\nargs=['*name=*']\n" + allowed:               false,
		"effect='deny'\nfrom=['c*']\nmethods=['REQA*']\n" + allowed:                            false,
		"effect='deny'\nfrom=['ship*']\nmethods=['REQAclUpdate']\n" + allowed:                  true,
		"effect='deny'\nfrom=['*']\nmethods=['REQAclUpdate']\nargs=['*', 'force']\n" + allowed: true,
	} {
		text := "version=1\n[[rules]]\nname='r'\n" + rule
		if d := parse(t, text).Keeps("central", "REQAclUpdate", text); d.Allowed != want {
			t.Errorf("%s: %+v", rule, d)
		}
	}
}

const allowed = "[[rules]]\nname='all'\neffect='allow'\nfrom=['*']\nmethods=['*']"

func TestMistakesSayWhere(t *testing.T) {
	const rule = "version=1\n[[rules]]\nname='a'\neffect='allow'\nfrom=['x']\nmethods=['REQPing']\n"
	for text, want := range map[string]string{
		"":                                "acl.toml: version is missing",
		"version=0":                       "acl.toml:1:1: version is a whole number from 1",
		"version='1'":                     "acl.toml:1:1: version is a whole number",
		"version=9000000000000000":        "acl.toml:1:1: version is a whole number from 1 to 1000000000000000",
		"version=":                        "acl.toml:1:8: ",
		"version=1\nversion=2":            "acl.toml:2:1: ",
		"version=1\nvesion=2":             `acl.toml:2:1: unknown key "vesion", did you mean "version"?`,
		"version=1\n[group]":              `acl.toml:2:2: unknown table "group", did you mean "groups"?`,
		"version=1\n[rules]":              "acl.toml:2:2: write [[rules]] before each rule",
		"version=1\nrules=[]":             "acl.toml:2:1: write [[rules]] before each rule",
		"version=1\n[[groups]]":           "acl.toml:2:3: write [groups]",
		"version=1\n[groups]\n'a b'=[]":   `acl.toml:3:1: "a b" is no name for a group`,
		"version=1\n[groups]\na.b=[]":     `acl.toml:3:1: "a.b" is no name for a group`,
		"version=1\n[groups]\na='x'":      "acl.toml:3:1: a group is a list of texts",
		"version=1\n[groups]\na=['x', 3]": "acl.toml:3:1: a group is a list of texts",
		"version=1\n[groups]\ncrew=['a',\n  '@crwe']":       `acl.toml:4:3: there is no group "crwe", did you mean "crew"?`,
		"version=1\n[groups]\na=['@b']\nb=['@c']\nc=['@a']": `is a member of itself`,
		"version=1\n[groups]\na=['a*b']":                    `acl.toml:3:4: "a*b": a star stands at the end of a name only`,
		"version=1\n[groups]\na=['local']":                  "acl.toml:3:4: no rule is asked about what a node sends to itself",
		"version=1\n[[rules]]\nname='a'":                    "acl.toml:2:3: a rule without effect",
		rule + "nme='a'":                                    `acl.toml:7:1: unknown key "nme" in a rule, did you mean "name"?`,
		rule + "Args=['a']":                                 `acl.toml:7:1: unknown key "Args" in a rule, did you mean "args"?`,
		rule + "args='a'":                                   "acl.toml:7:1: args is a list",
		rule + "args=['...', 'a']":                          `acl.toml:7:7: "..." stands at the end of args only`,
		rule + "args=[\"a\", \"\\u0000\"]":                  "acl.toml:7:12: it holds a NUL byte",
		strings.Replace(rule, "'a'", "''", 1):               `acl.toml:3:6: "" is no name for a rule`,
		strings.Replace(rule, "'a'", "3", 1):                "acl.toml:3:1: name is a text in quotes",
		strings.Replace(rule, "allow", "alow", 1):           `acl.toml:4:8: effect is "allow" or "deny", found "alow"`,
		strings.Replace(rule, "['x']", "[]", 1):             `acl.toml:2:3: rule "a" is about no sender`,
		strings.Replace(rule, "['x']", "['a/b']", 1):        "acl.toml:5:7: invalid node name",
		strings.Replace(rule, "['x']", "['@x']", 1):         `acl.toml:5:7: there is no group "x"`,
		strings.Replace(rule, "['REQPing']", "[]", 1):       `acl.toml:2:3: rule "a" is about no method`,
		strings.Replace(rule, "REQPing", "reqping", 1):      `acl.toml:6:10: there is no method "reqping", did you mean "REQPing"?`,
		strings.Replace(rule, "REQPing", "shellCommand", 1): `acl.toml:6:10: there is no method "shellCommand"`,
		strings.Replace(rule, "REQPing", "REQX*", 1):        `acl.toml:6:10: there is no method "REQX*"`,
		rule + rule[len("version=1\n"):]:                    `acl.toml:8:6: there are two rules with the name "a"`,
		"version=1 #" + strings.Repeat("x", acl.MaxSize):    "acl.toml: it is longer than",
	} {
		_, err := acl.Parse("acl.toml", text, methods)
		var at *acl.Error
		if !errors.As(err, &at) || !errors.Is(err, message.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200q:\nhave %v\nwant %s", text, err, want)
		}
	}
}

// Groups that hold each other again and again are refused before they are large.
func TestGroupsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("version=1\n[groups]\ng0=['n']\n")
	for i := 1; i < 3000; i++ {
		fmt.Fprintf(&b, "g%d=['n%d', '@g%d']\n", i, i, i-1)
	}
	_, err := acl.Parse("acl.toml", b.String(), methods)
	if err == nil || !strings.Contains(err.Error(), "once all groups are written out") {
		t.Error(err)
	}
}

// A pattern takes no longer than the argument is long.
func TestPatternWithManyStarsIsQuick(t *testing.T) {
	rules := parse(t, "version=1\n[[rules]]\nname='r'\neffect='allow'\nfrom=['*']\nmethods=['*']\nargs=['"+strings.Repeat("a*", 10_000)+"b']")
	if d := rules.Decide("a", "self", request("REQPing", strings.Repeat("a", 1<<20))); d.Allowed {
		t.Error("it fits")
	}
}

// ruleText draws a rule over few names, so that rules meet.
func ruleText(rt *rapid.T, i int) string {
	word := rapid.SampledFrom([]string{"a", "b", "ab", "*", "a*", "b*"})
	arg := rapid.SampledFrom([]string{"x", "y", "xy", "*", "x*", "*y", "x*y", ""})
	list := func(words []string) string {
		for i, w := range words {
			words[i] = "'" + w + "'"
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	text := fmt.Sprintf("[[rules]]\nname='r%d'\neffect=%q\nfrom=%s\nmethods=%s\n", i, rapid.SampledFrom([]string{"allow", "deny"}).Draw(rt, "effect"),
		list(rapid.SliceOfN(word, 1, 3).Draw(rt, "from")),
		list(rapid.SliceOfN(rapid.SampledFrom([]string{"REQPing", "REQCliCommand", "REQ*", "*", "REQn*"}), 1, 2).Draw(rt, "methods")))
	if rapid.Bool().Draw(rt, "has args") {
		args := rapid.SliceOfN(arg, 0, 3).Draw(rt, "args")
		if rapid.Bool().Draw(rt, "rest") {
			args = append(args, "...")
		}
		text += "args=" + list(args) + "\n"
	}
	return text
}

func drawRequest(rt *rapid.T) (message.Node, *message.Message) {
	arg := rapid.SampledFrom([]string{"x", "y", "xy", "", "xxyy", "{{STEWARD_DATA}}", "x{{STEWARD_DATA}}"})
	return rapid.SampledFrom([]message.Node{"a", "b", "ab", "c"}).Draw(rt, "sender"),
		request(rapid.SampledFrom([]message.Method{"REQPing", "REQCliCommand", "REQnCliCommand"}).Draw(rt, "method"),
			rapid.SliceOfN(arg, 0, 4).Draw(rt, "data")...)
}

// The order of the rules is no matter, and one that denies wins: what a rule denies alone, it denies
// among all others, and what is allowed is so by a rule that allows it alone.
func TestOrderIsNoMatterAndDenyWins(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		texts := make([]string, rapid.IntRange(0, 6).Draw(rt, "rules"))
		for i := range texts {
			texts[i] = ruleText(rt, i)
		}
		from, m := drawRequest(rt)
		decide := func(texts ...string) acl.Decision {
			return parse(t, "version=1\n"+strings.Join(texts, "")).Decide(from, "self", m)
		}
		all := decide(texts...)
		shuffled := slices.Clone(texts)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if other := decide(shuffled...); other.Allowed != all.Allowed {
			rt.Fatalf("%v by %q, in another order %v by %q", all.Allowed, all.Rule, other.Allowed, other.Rule)
		}
		denied, allowed := false, false
		for i, text := range texts {
			alone := decide(text)
			denied = denied || alone.Rule != "" && !alone.Allowed
			allowed = allowed || alone.Allowed
			if all.Rule == fmt.Sprintf("r%d", i) && (alone.Rule != all.Rule || alone.Allowed != all.Allowed) {
				rt.Fatalf("decided by %q: %+v; alone: %+v", all.Rule, all, alone)
			}
		}
		if want := allowed && !denied; all.Allowed != want || all.Allowed && all.Rule == "" {
			rt.Fatalf("%+v, want %v", all, want)
		}
	})
}

// What is allowed with the placeholder is allowed with whatever comes in its place, and what is denied
// by a rule with some text is denied with the placeholder.
func TestPlaceholderHidesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rules := parse(t, "version=1\n"+ruleText(rt, 0)+ruleText(rt, 1)+ruleText(rt, 2))
		from, m := drawRequest(rt)
		body := rapid.SampledFrom([]string{"", "x", "y", "xy", "yx", "xxyy"}).Draw(rt, "body")
		plain := *m
		plain.Data = slices.Clone(m.Data)
		for i := range plain.Data {
			plain.Data[i] = strings.ReplaceAll(plain.Data[i], message.DataPlaceholder, body)
		}
		before, after := rules.Decide(from, "self", m), rules.Decide(from, "self", &plain)
		if before.Allowed && !after.Allowed {
			rt.Fatalf("%q: %+v, but %q: %+v", m.Data, before, plain.Data, after)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(fleet)
	f.Add("version=1\n[groups]\na=['@b']\nb=['@a']")
	f.Add("version=0x1\n[[rules]]\nname='a' # x\neffect=\"\"\"deny\"\"\"\nfrom=[ # c\n'*',]\nmethods=['*']\nargs=['\\*', '...']\n")
	f.Add("version=1\nrules=[{name='a'}]")
	f.Add("\"a.b\".c=[[[]]]\n[x.y]\n[[x.z]]")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := acl.Parse("acl.toml", text, methods)
		if err != nil {
			var at *acl.Error
			if !errors.As(err, &at) || len(err.Error()) > 4096 || at.Line > strings.Count(text, "\n")+1 {
				t.Errorf("%v", err)
			}
			return
		}
		if rules.Version < 1 || len(text) > acl.MaxSize {
			t.Errorf("version %d of %d bytes", rules.Version, len(text))
		}
		seen := map[string]bool{}
		for _, r := range rules.Rules {
			if seen[r.Name] || r.Name == "" || len(r.From) == 0 || len(r.Methods) == 0 {
				t.Errorf("%+v", r)
			}
			seen[r.Name] = true
		}
		for _, m := range methods {
			d := rules.Decide("central", "self", request(m, "a"))
			if d.Rule != "" && !seen[d.Rule] || d.Why == "" {
				t.Errorf("%+v", d)
			}
			if again := rules.Decide("central", "self", request(m, "a")); again != d {
				t.Errorf("%+v, and then %+v", d, again)
			}
		}
	})
}
