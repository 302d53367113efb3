package security_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"steward/message"
	"steward/security"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func trust(t *testing.T, path string, n message.Node, k security.PublicKey) {
	t.Helper()
	if added, err := security.Trust(path, n, k); err != nil || !added {
		t.Fatal(added, err)
	}
}

func untrust(t *testing.T, path string, n message.Node, k *security.PublicKey, want int) {
	t.Helper()
	if removed, err := security.Untrust(path, n, k); err != nil || len(removed) != want {
		t.Fatal(removed, err)
	}
}

func TestListKeepsWhatPeopleWroteThroughEdits(t *testing.T) {
	a, b, c := newKey(t).Public(), newKey(t).Public(), newKey(t).Public()
	text := fmt.Sprintf("# the fleet\n\n  ship2\t%s   # old ship  \nship1 %s\n# the end", b, a)
	path := write(t, "trusted_nodes", []byte(text))
	trust(t, path, "ship1", c)
	if want := text + fmt.Sprintf("\nship1 %s\n", c); read(t, path) != want {
		t.Errorf("have %s\nwant %s", read(t, path), want)
	}
	if added, err := security.Trust(path, "ship1", c); err != nil || added {
		t.Errorf("added again: %v, %v", added, err)
	}
	list, err := security.ReadTrust(path)
	if want := []security.Trusted{{"ship2", b, "old ship"}, {"ship1", a, ""}, {"ship1", c, ""}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("%v\nhave %v\nwant %v", err, list, want)
	}
	untrust(t, path, "ship1", &c, 1)
	untrust(t, path, "ship1", &c, 0)
	untrust(t, path, "ship3", nil, 0)
	if want := text + "\n"; read(t, path) != want {
		t.Errorf("have %s\nwant %s", read(t, path), want)
	}
	trust(t, path, "ship2", c)
	untrust(t, path, "ship2", nil, 2)
	if want := fmt.Sprintf("# the fleet\n\nship1 %s\n# the end\n", a); read(t, path) != want {
		t.Errorf("have %s\nwant %s", read(t, path), want)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestListIsMadeWithTheFirstKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "trusted_nodes")
	if list, err := security.ReadTrust(path); err != nil || len(list) > 0 {
		t.Fatal(list, err)
	}
	untrust(t, path, "ship1", nil, 0)
	k := newKey(t).Public()
	trust(t, path, "ship1", k)
	if list, err := security.ReadTrust(path); err != nil || !slices.Equal(list, []security.Trusted{{"ship1", k, ""}}) {
		t.Error(list, err)
	}
}

func TestLineThatIsWrongIsNamed(t *testing.T) {
	k := newKey(t).Public()
	for _, tt := range []struct{ line, want string }{
		{"ship1", "want a node and its key"},
		{k.String(), "want a node and its key"},
		{"ship1 " + k.String() + " ship2", "want a node and its key"},
		{k.String() + " ship1", "want the public key"},
		{"ship1 UXYZ", "want the public key"},
		{"ship* " + k.String(), "node name"},
	} {
		path := write(t, "trusted_nodes", []byte("# one\nship0 "+k.String()+"\n"+tt.line+"\n"))
		_, err := security.ReadTrust(path)
		if err == nil || !strings.Contains(err.Error(), path+":3: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.line, err)
		}
		if _, err := security.OpenTrustFile(path, nil); err == nil {
			t.Errorf("%s: opened", tt.line)
		}
		before := read(t, path)
		if _, err := security.Trust(path, "ship2", k); err == nil {
			t.Errorf("%s: edited", tt.line)
		}
		if _, err := security.Untrust(path, "ship0", nil); err == nil || read(t, path) != before {
			t.Errorf("%s: edited", tt.line)
		}
	}
	for _, n := range []message.Node{"", "a b", "a#b"} {
		if _, err := security.Trust(filepath.Join(t.TempDir(), "x"), n, k); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%q: %v", n, err)
		}
	}
}

func TestListThatOthersCanWriteIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes there")
	}
	path := write(t, "trusted_nodes", nil)
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o664: false, 0o646: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := security.ReadTrust(path); ok != (err == nil) || !ok && !strings.Contains(err.Error(), "run: chmod go-w "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// verify is what a keyring says about a signature by k.
func verify(r *security.Keyring, k *security.Key) ([]message.Node, error) {
	return r.Verify("test", []byte("text"), k.Public(), k.Sign("test", []byte("text")))
}

func TestChangedListCountsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trusted_nodes")
	var said []error
	file, err := security.OpenTrustFile(path, func(err error) { said = append(said, err) })
	if err != nil {
		t.Fatal(err)
	}
	self, ship := newKey(t), newKey(t)
	ring := security.NewKeyring("central", self.Public(), file)
	check := func(step string, want ...message.Node) {
		t.Helper()
		nodes, err := verify(ring, ship)
		if slices.Sort(nodes); !slices.Equal(nodes, want) || (len(want) == 0) != errors.Is(err, security.ErrUnknownKey) {
			t.Errorf("%s: %v, %v, want %v", step, nodes, err, want)
		}
		for _, n := range []message.Node{"ship1", "ship2"} {
			if ring.Known(n) != slices.Contains(want, n) {
				t.Errorf("%s: %s known: %v", step, n, ring.Known(n))
			}
		}
	}
	check("no file")
	trust(t, path, "ship1", ship.Public())
	check("trusted", "ship1")
	trust(t, path, "ship2", ship.Public())
	check("twice", "ship1", "ship2")
	untrust(t, path, "ship1", nil, 1)
	check("one taken back", "ship2")
	if len(said) > 0 {
		t.Errorf("said: %v", said)
	}

	good := read(t, path)
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// A file system may keep times no finer than this.
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Duration(len(said)+1)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	put("nonsense\n")
	check("nonsense", "ship2")
	check("nonsense still", "ship2")
	if len(said) != 1 || said[0] == nil || !strings.Contains(said[0].Error(), path+":1: ") {
		t.Fatalf("said: %v", said)
	}
	put(good + "# fine\n")
	check("mended", "ship2")
	if len(said) != 2 || said[1] != nil {
		t.Fatalf("said: %v", said)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("removed")
}

func TestKeyringKnowsItsOwnNodeAndAllSources(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	var sources []security.Source
	for _, path := range []string{one, two} {
		f, err := security.OpenTrustFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, f)
	}
	self, a, b := newKey(t), newKey(t), newKey(t)
	ring := security.NewKeyring("central", self.Public(), sources...)
	trust(t, one, "a", a.Public())
	trust(t, two, "b", b.Public())
	trust(t, one, "also", b.Public())
	for _, tt := range []struct {
		key  *security.Key
		want string
	}{{self, "[central]"}, {a, "[a]"}, {b, "[also b]"}} {
		for range 2 { // the answer to one is not changed by the next
			if nodes, err := verify(ring, tt.key); err != nil || fmt.Sprint(nodes) != tt.want {
				t.Errorf("%v, %v, want %s", nodes, err, tt.want)
			}
		}
	}
	if !ring.Known("central") || !ring.Known("a") || !ring.Known("b") || ring.Known("c") {
		t.Error("known")
	}
	sig := a.Sign("test", []byte("text"))
	if _, err := ring.Verify("test", []byte("text"), b.Public(), sig); !errors.Is(err, security.ErrBadSignature) {
		t.Errorf("by another trusted key: %v", err)
	}
}

func FuzzTrustFile(f *testing.F) {
	k := newKey(f).Public()
	for _, s := range []string{"", "# x\n", "ship1 " + k.String(), "ship1 " + k.String() + "#c\n\n", "a b c\n", "\x00\r\n", "ship1\u2028" + k.String() + "\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "trusted_nodes")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := security.ReadTrust(path)
		if err != nil {
			return
		}
		n := message.Node("fuzz")
		if added, err := security.Trust(path, n, k); err != nil || added == slices.ContainsFunc(before, func(x security.Trusted) bool { return x.Node == n && x.Key == k }) {
			t.Fatal(added, err)
		}
		if _, err := security.Untrust(path, n, nil); err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(slices.Clone(before), func(x security.Trusted) bool { return x.Node == n })
		if after, err := security.ReadTrust(path); err != nil || !slices.Equal(after, want) {
			t.Fatalf("%v\nhave %v\nwant %v", err, after, want)
		}
	})
}

// A list is changed by a node that enrols others and by who runs it, at the same time.
func TestNoChangeOfAListTakesBackAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trusted_nodes")
	const each = 20
	keys := make([]security.PublicKey, 2*each)
	for i := range keys {
		k, err := security.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.Public()
	}
	for _, k := range keys[:each] {
		if _, err := security.Trust(path, "revoked", k); err != nil {
			t.Fatal(err)
		}
	}
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() {
			if i < each {
				_, errs[i] = security.Untrust(path, "revoked", &k)
			} else {
				_, errs[i] = security.Trust(path, "enrolled", k)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	list, err := security.ReadTrust(path)
	if err != nil || len(list) != each {
		t.Fatalf("%d lines, %v", len(list), err)
	}
	for _, l := range list {
		if l.Node != "enrolled" {
			t.Errorf("%s %s is trusted again", l.Node, l.Key)
		}
	}
}
