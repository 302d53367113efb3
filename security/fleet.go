package security

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"steward/internal/atomicfile"
	"steward/message"
)

// Fleet is what central tells all nodes about keys: a text that it has signed, with a version that goes
// up.
type Fleet struct {
	Version int64
	Central message.Node
	Trusted []Trusted // nodes may talk to each other
	Revoked []Trusted // count for nothing any more
}

const (
	forFleet   = "steward fleet 1"
	signedLine = "signed "
)

// Same reports whether two say the same, whatever their versions.
func (f *Fleet) Same(g *Fleet) bool {
	return f.Central == g.Central && slices.Equal(f.Trusted, g.Trusted) && slices.Equal(f.Revoked, g.Revoked)
}

// Sign returns the text, signed by central.
func (f *Fleet) Sign(central *Key) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %d\ncentral %s\n", f.Version, f.Central)
	for _, t := range f.Trusted {
		fmt.Fprintf(&b, "trusted %s %s\n", t.Node, t.Key)
	}
	for _, t := range f.Revoked {
		fmt.Fprintf(&b, "revoked %s %s\n", t.Node, t.Key)
	}
	text := b.String()
	return text + signedLine + central.Public().String() + " " + base64.RawStdEncoding.EncodeToString(central.Sign(forFleet, []byte(text))) + "\n"
}

// ParseFleet reads what [Fleet.Sign] wrote, and returns whose signature is on it.
func ParseFleet(text string) (f *Fleet, by PublicKey, err error) {
	bad := func(why string) (*Fleet, PublicKey, error) {
		return nil, by, fmt.Errorf("%w list of the fleet's keys: %s", message.ErrInvalid, why)
	}
	i := strings.LastIndex(text, "\n"+signedLine)
	if i < 0 || len(text) > maxTrustFile {
		return bad("it is not signed, or too long")
	}
	body, last := text[:i+1], strings.Fields(text[i+1:])
	if len(last) != 3 {
		return bad("its last line is not a signature")
	}
	if by, err = ParsePublicKey(last[1]); err != nil {
		return nil, by, err
	}
	sig, err := base64.RawStdEncoding.Strict().DecodeString(last[2])
	if err != nil {
		return bad("its last line is not a signature")
	}
	if err := by.Verify(forFleet, []byte(body), sig); err != nil {
		return nil, by, fmt.Errorf("list of the fleet's keys: %w", err)
	}
	f = new(Fleet)
	for line := range bytes.Lines([]byte(body)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		switch word {
		case "version":
			f.Version, err = strconv.ParseInt(rest, 10, 64)
		case "central":
			f.Central = message.Node(rest)
			err = f.Central.Check()
		case "trusted", "revoked":
			t, ok, lineErr := parseTrustLine([]byte(rest))
			if err = lineErr; !ok {
				err = errors.Join(err, errors.New("a line without a key"))
			}
			t.Comment = "" // it says nothing about keys
			if word == "trusted" {
				f.Trusted = append(f.Trusted, t)
			} else {
				f.Revoked = append(f.Revoked, t)
			}
		default:
			err = fmt.Errorf("unknown word %s", message.Quote(word))
		}
		if err != nil {
			return bad(err.Error())
		}
	}
	if f.Version <= 0 || f.Central == "" {
		return bad("no version, or no central node")
	}
	return f, by, nil
}

// FleetFile keeps the last [Fleet] that central has sent, and is what a node trusts besides its own
// list: a [Source] of the keys in both, of which none is revoked. The key of central is in the list of
// the node alone: whom central may be is for who runs the node, and without it what central trusts
// counts for nothing here, while what it has revoked stays so.
type FleetFile struct {
	path    string
	central message.Node
	local   *TrustFile

	mu      sync.Mutex // guards what follows
	text    string
	fleet   *Fleet    // nil for none
	by      PublicKey // who has signed it
	nodes   map[PublicKey][]message.Node
	known   map[message.Node]bool
	revoked map[PublicKey]message.Node
}

// OpenFleetFile reads the file at path; there need be none. local is the list of the node itself.
func OpenFleetFile(path string, central message.Node, local *TrustFile) (*FleetFile, error) {
	f := &FleetFile{path: path, central: central, local: local}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keys of the fleet: %w", err)
	}
	fleet, by, err := ParseFleet(string(text))
	if err != nil {
		return nil, fmt.Errorf("keys of the fleet: %s: %w", path, err)
	}
	f.set(string(text), fleet, by)
	return f, nil
}

// set is called with mu held, or by who alone knows f.
func (f *FleetFile) set(text string, fleet *Fleet, by PublicKey) {
	f.text, f.fleet, f.by = text, fleet, by
	f.nodes, f.known, f.revoked = map[PublicKey][]message.Node{}, map[message.Node]bool{}, map[PublicKey]message.Node{}
	for _, t := range fleet.Trusted {
		if t.Node == f.central {
			continue
		}
		f.nodes[t.Key] = append(f.nodes[t.Key], t.Node)
		f.known[t.Node] = true
	}
	for _, t := range fleet.Revoked {
		f.revoked[t.Key] = t.Node
	}
}

// Nodes returns the nodes for which a key speaks. A revocation counts for more than the list of this
// node, but for a key of central there: without it the node could not be told anything any more.
func (f *FleetFile) Nodes(k PublicKey) []message.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodes := f.local.Nodes(k)
	if f.revoked[k] != "" && !slices.Contains(nodes, f.central) {
		return nil
	}
	if !f.counts() {
		return nodes
	}
	for _, n := range f.nodes[k] {
		if !slices.Contains(nodes, n) {
			nodes = append(slices.Clip(nodes), n)
		}
	}
	return nodes
}

// Revoked says of which node a key was, and who has revoked it.
func (f *FleetFile) Revoked(k PublicKey) (of, by message.Node, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	of, ok = f.revoked[k]
	return of, f.central, ok
}

// Known reports whether any key speaks for a node.
func (f *FleetFile) Known(n message.Node) bool {
	if f.local.Known(n) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known[n] && f.counts()
}

// counts reports whether who has signed the list still speaks for central. It is called with mu held.
func (f *FleetFile) counts() bool { return slices.Contains(f.local.Nodes(f.by), f.central) }

// Now returns the last list, or nil.
func (f *FleetFile) Now() *Fleet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fleet
}

// Text returns the text of the last list, or nothing.
func (f *FleetFile) Text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text
}

// Replace puts a list in the place of the last one, on disk and in force. It has to be signed with a
// key that speaks for central, and of a higher version; the same one again changes nothing.
func (f *FleetFile) Replace(text string) (next *Fleet, before int64, err error) {
	next, by, err := ParseFleet(text)
	if err != nil {
		return nil, 0, err
	}
	if next.Central != f.central || !slices.Contains(f.local.Nodes(by), f.central) {
		return nil, 0, fmt.Errorf("list of the fleet's keys: it is signed with %s, which is not trusted for %s: %w", by, f.central, ErrUnknownKey)
	}
	return f.put(text, next, by)
}

// Publish is Replace on central itself, for what it is about to send.
func (f *FleetFile) Publish(next *Fleet, central *Key) (text string, err error) {
	text = next.Sign(central)
	_, _, err = f.put(text, next, central.Public())
	return text, err
}

func (f *FleetFile) put(text string, next *Fleet, by PublicKey) (_ *Fleet, before int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fleet != nil {
		before = f.fleet.Version
	}
	switch {
	case next.Version < before:
		return nil, before, fmt.Errorf("version %d of the fleet's keys is older than version %d, which is in force", next.Version, before)
	case next.Version == before && text != f.text:
		return nil, before, fmt.Errorf("version %d of the fleet's keys is in force with another text", before)
	case next.Version == before:
		return next, before, nil
	}
	if err := atomicfile.Replace(f.path, []byte(text)); err != nil {
		return nil, before, fmt.Errorf("keys of the fleet: %w", err)
	}
	f.set(text, next, by)
	return next, before, nil
}
