package security

import (
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"steward/message"
)

// fleetNode is a node that trusts central and ship7, as its own list says.
type fleetNode struct {
	t                     *testing.T
	path, list            string
	central, ship7, ship8 *Key
	own                   *Key
}

func newFleetNode(t *testing.T) *fleetNode {
	dir := t.TempDir()
	n := &fleetNode{t: t, path: filepath.Join(dir, "fleet_trust"), list: filepath.Join(dir, "trusted_nodes")}
	for _, k := range []**Key{&n.central, &n.ship7, &n.ship8, &n.own} {
		var err error
		if *k, err = NewKey(); err != nil {
			t.Fatal(err)
		}
	}
	for name, k := range map[message.Node]*Key{"central": n.central, "ship7": n.ship7} {
		if _, err := Trust(n.list, name, k.Public()); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *fleetNode) open() *FleetFile {
	n.t.Helper()
	local, err := OpenTrustFile(n.list, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	f, err := OpenFleetFile(n.path, "central", local)
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

// speaks reports whether a frame that k has signed is taken as one from a node.
func (n *fleetNode) speaks(f *FleetFile, k *Key, from message.Node) bool {
	n.t.Helper()
	nodes, err := NewKeyring("ship1", n.own.Public(), f).Verify("test", []byte("frame"), k.Public(), k.Sign("test", []byte("frame")))
	if err != nil && !errors.Is(err, ErrUnknownKey) {
		n.t.Fatal(err)
	}
	for _, node := range nodes {
		if node == from {
			return true
		}
	}
	return false
}

func TestRevocationCountsForMoreThanTheOwnList(t *testing.T) {
	n := newFleetNode(t)
	f := n.open()
	if !n.speaks(f, n.ship7, "ship7") || n.speaks(f, n.ship8, "ship8") {
		t.Fatal("before: ship7 is to be trusted, ship8 not")
	}
	list := &Fleet{Version: 5, Central: "central", Trusted: []Trusted{{Node: "ship8", Key: n.ship8.Public()}},
		Revoked: []Trusted{{Node: "ship7", Key: n.ship7.Public()}, {Node: "central", Key: n.central.Public()}, {Node: "ship1", Key: n.own.Public()}}}
	if _, _, err := f.Replace(list.Sign(n.central)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*FleetFile{f, n.open()} { // as it is, and after a restart
		if n.speaks(f, n.ship7, "ship7") {
			t.Error("a revoked key speaks on, since it is in the node's own list")
		}
		var revoked *RevokedError
		_, err := NewKeyring("ship1", n.own.Public(), f).Verify("test", nil, n.ship7.Public(), n.ship7.Sign("test", nil))
		if !errors.As(err, &revoked) || revoked.Node != "ship7" || revoked.By != "central" {
			t.Errorf("who uses a revoked key is told: %v", err)
		}
		if !n.speaks(f, n.ship8, "ship8") || !f.Known("ship8") || n.speaks(f, n.ship8, "ship7") {
			t.Error("what central trusts counts for nothing, or for another node")
		}
		if !n.speaks(f, n.central, "central") || !n.speaks(f, n.own, "ship1") {
			t.Error("the key of central, or the own one, can be revoked: nobody could tell this node anything any more")
		}
	}
}

// Who takes central off the list of a node need not know what central has said before.
func TestListOfACentralThatIsNotTrustedAnyMoreOnlyRevokes(t *testing.T) {
	n := newFleetNode(t)
	f := n.open()
	list := &Fleet{Version: 5, Central: "central", Trusted: []Trusted{{Node: "ship8", Key: n.ship8.Public()}},
		Revoked: []Trusted{{Node: "ship7", Key: n.ship7.Public()}}}
	if _, _, err := f.Replace(list.Sign(n.central)); err != nil || !n.speaks(f, n.ship8, "ship8") {
		t.Fatal(err)
	}
	if _, err := Untrust(n.list, "central", nil); err != nil {
		t.Fatal(err)
	}
	for who, k := range map[message.Node]*Key{"central": n.central, "ship8": n.ship8, "ship7": n.ship7} {
		if n.speaks(f, k, who) {
			t.Errorf("%s is trusted", who)
		}
	}
}

func TestOnlyNewerListsOfCentralAreTaken(t *testing.T) {
	n := newFleetNode(t)
	f := n.open()
	list := func(version int64, central message.Node, revoked ...Trusted) *Fleet {
		return &Fleet{Version: version, Central: central, Revoked: revoked}
	}
	good := list(5, "central", Trusted{Node: "ship8", Key: n.ship8.Public()}).Sign(n.central)
	if _, before, err := f.Replace(good); err != nil || before != 0 {
		t.Fatalf("before %d, %v", before, err)
	}
	if next, before, err := f.Replace(good); err != nil || next.Version != before {
		t.Errorf("the same again: %v", err)
	}
	for what, text := range map[string]string{
		"an older one":              list(4, "central").Sign(n.central),
		"the same version, other":   list(5, "central").Sign(n.central),
		"signed by another node":    list(6, "central").Sign(n.ship7),
		"signed by nobody known":    list(6, "central").Sign(n.ship8),
		"of another central":        list(6, "other").Sign(n.central),
		"changed":                   strings.Replace(good, "version 5", "version 6", 1),
		"cut off":                   good[:len(good)-20],
		"not signed":                "version 6\ncentral central\n",
		"without a version":         list(0, "central").Sign(n.central),
		"nothing":                   "",
		"signed by a key it brings": (&Fleet{Version: 6, Central: "central", Trusted: []Trusted{{Node: "central", Key: n.ship8.Public()}}}).Sign(n.ship8),
	} {
		if _, _, err := f.Replace(text); err == nil {
			t.Errorf("%s: is taken", what)
		}
		if n.open().Now().Version != 5 || f.Text() != good {
			t.Fatalf("%s: has changed something", what)
		}
	}
	// No list makes a key one of central.
	if _, _, err := f.Replace((&Fleet{Version: 6, Central: "central", Trusted: []Trusted{{Node: "central", Key: n.ship8.Public()}}}).Sign(n.central)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Replace(list(7, "central").Sign(n.ship8)); !errors.Is(err, ErrUnknownKey) || n.speaks(f, n.ship8, "central") {
		t.Errorf("a list has named another central: %v", err)
	}
}

// FuzzParseFleet: what is taken comes back the same from what is written of it.
func FuzzParseFleet(f *testing.F) {
	central, err := KeyOfSeed([]byte(strings.Repeat("c", 32)))
	if err != nil {
		f.Fatal(err)
	}
	list := Fleet{Version: 7, Central: "central", Trusted: []Trusted{{Node: "ship1", Key: central.Public()}}, Revoked: []Trusted{{Node: "ww.ship2", Key: central.Public()}}}
	body, _, _ := strings.Cut(list.Sign(central), signedLine)
	commented := strings.Replace(body, "\nrevoked", " # a comment\nrevoked", 1)
	for _, text := range []string{body, commented, "version 1\ncentral c\n", "version -1\ncentral c\n", "trusted\n", "\n", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := ParseFleet(text); err == nil {
			t.Error("a list is taken whose signature was not known")
		}
		sum := base64.RawStdEncoding.EncodeToString(central.Sign(forFleet, []byte(text)))
		got, by, err := ParseFleet(text + signedLine + central.Public().String() + " " + sum + "\n")
		if err != nil {
			return
		}
		again, _, err := ParseFleet(got.Sign(central))
		if err != nil || by != central.Public() || again.Version != got.Version || !again.Same(got) {
			t.Errorf("%q: %+v, then %+v, %v", text, got, again, err)
		}
	})
}
