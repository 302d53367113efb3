package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
	"pgregory.net/rapid"

	"steward/message"
)

// publicKey makes a key of a user.
func publicKey(t interface{ Fatal(...any) }) string {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestAccessIsChecked(t *testing.T) {
	key := publicKey(t)
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	accountKey, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	user := func(n message.Node, keys ...string) []User { return []User{{Node: n, Keys: keys}} }
	for name, tt := range map[string]struct {
		a    Access
		want string
	}{
		"no central":                {Access{}, "central node"},
		"bad central":               {Access{Central: "a b"}, "central node"},
		"unknown reach":             {Access{Central: "central", Reach: "some"}, "some"},
		"wildcard for a name":       {Access{Central: "central", Users: user("*", key)}, `"*"`},
		"everything for a name":     {Access{Central: "central", Users: user("ww.>", key)}, "ww.>"},
		"acks of another":           {Access{Central: "central", Users: user("ship1.ACK", key)}, "cannot have .ACK in it"},
		"answers of another":        {Access{Central: "central", Users: user("ship1.NAME", key)}, "cannot have .NAME in it"},
		"further down":              {Access{Central: "central", Users: user("ship1.NAME.north", key)}, "cannot have .NAME in it"},
		"central hears for another": {Access{Central: "ship1.ACK"}, "cannot have .ACK in it"},
		"no key":                    {Access{Central: "central", Users: user("ship1", "secret")}, "ship1"},
		"key of an account":         {Access{Central: "central", Users: user("ship1", accountKey)}, "begins with U"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.a.Grants()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEachKeyIsGrantedOnce(t *testing.T) {
	a, b, c := publicKey(t), publicKey(t), publicKey(t)
	grants, err := Access{Central: "central", Users: []User{
		{Node: "ship1", Keys: []string{a}}, {Node: "central", Keys: []string{b}}, {Node: "ship1", Keys: []string{c, a}}, {Node: "ship2"}, {Node: "ship3", Keys: []string{c}},
	}}.Grants()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Grant)
	for _, g := range grants {
		got[g.Key] = g
	}
	if len(grants) != 3 || !slices.Equal(got[b].Nodes, []message.Node{"central"}) || !slices.Equal(got[a].Nodes, []message.Node{"ship1"}) ||
		!slices.Equal(got[c].Nodes, []message.Node{"ship1", "ship3"}) {
		t.Fatalf("got %+v", grants)
	}
	for _, subject := range []string{"ship1.HERE", "ship3.HERE"} {
		if !slices.Contains(got[c].Publish, subject) {
			t.Errorf("the key of two nodes may not publish %s", subject)
		}
	}
	if slices.Contains(got[a].Publish, "ship3.HERE") {
		t.Error("a node may publish what is for who has its other key")
	}
}

// covers reports whether one of the patterns of NATS matches subject.
func covers(patterns []string, subject string) bool {
	s := strings.Split(subject, ".")
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		p := strings.Split(pattern, ".")
		return len(p) == len(s) && !slices.ContainsFunc(p, func(part string) bool { return part == ">" }) &&
			!slices.ContainsFunc(slices.Collect(indexes(len(p))), func(i int) bool { return p[i] != "*" && p[i] != s[i] })
	})
}

func indexes(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := 0; i < n && yield(i); i++ {
		}
	}
}

// Whatever the nodes are called, each can do what delivery needs of it, and none can hear
// what is for another one, speak of presence and name of another one, or send to whom its
// reach leaves out.
func TestGrantsAreWhatIsNeededAndNoMore(t *testing.T) {
	part := rapid.SampledFrom([]string{"ww", "a", "b", "central", "ACK", "NAME", "HERE", "REQPing", "EventACK", "CommandACK"})
	name := rapid.Custom(func(t *rapid.T) message.Node {
		return message.Node(strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "parts"), "."))
	}).Filter(func(n message.Node) bool { return checkName(n) == nil })
	var keys []string // not the point here, and slow to make
	for range 6 {
		keys = append(keys, publicKey(t))
	}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(name, 2, len(keys), func(n message.Node) message.Node { return n }).Draw(t, "names")
		a := Access{Central: names[0], Reach: rapid.SampledFrom([]Reach{"", ReachEvents, ReachCommands, ReachAll}).Draw(t, "reach")}
		for i, n := range names {
			a.Users = append(a.Users, User{Node: n, Keys: keys[i : i+1]})
		}
		grants, err := a.Grants()
		if err != nil {
			t.Fatal(err)
		}
		of := func(n message.Node, kind message.Kind) string {
			return message.Subject{Node: n, Method: "REQPing", Kind: kind}.String()
		}
		for _, grant := range grants {
			g := struct {
				Node message.Node
				Grant
			}{grant.Nodes[0], grant}
			check := func(what string, patterns []string, subject string, want bool) {
				t.Helper()
				if got := covers(patterns, subject); got != want {
					t.Fatalf("%s may %s %s: %v, want %v\n%q", g.Node, what, subject, got, want, patterns)
				}
			}
			for _, n := range names {
				own := n == g.Node
				central := n == a.Central
				talks := g.Node == a.Central || a.Reach == ReachAll || central
				for _, kind := range allKinds {
					check("hear", g.Subscribe, of(n, kind), own)
					sends := g.Node == a.Central || a.Reach == ReachAll || central && (a.Reach == ReachCommands || slices.Contains(events, kind))
					if !own {
						check("send", g.Publish, of(n, kind), sends)
					}
				}
				check("hear", g.Subscribe, string(n)+".ACK.abc", own)
				check("hear", g.Subscribe, string(n)+".NAME", own)
				check("hear", g.Subscribe, string(n)+".NAME.abc", own)
				if !own {
					check("hear", g.Subscribe, string(n)+".HERE", talks)
					check("send", g.Publish, string(n)+".ACK.abc", talks)
				}
				for _, last := range []string{".NAME", ".NAME.abc", ".HERE"} {
					check("send", g.Publish, string(n)+last, own)
				}
			}
		}
	})
}
