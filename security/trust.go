package security

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"steward/internal/atomicfile"
	"steward/message"
)

// Trusted is one line of a list: the key speaks for the node.
type Trusted struct {
	Node    message.Node
	Key     PublicKey
	Comment string // what stands behind the #
}

// maxTrustFile bounds what is read of a list, in bytes: some 40,000 nodes.
const maxTrustFile = 4 << 20

// TrustFile is a list of trusted keys in a file, with a line "NODE KEY # comment" for each. A
// node may have several keys, and several nodes the same one. The file is looked at each time that something
// is asked, and read again when it has changed. As long as it cannot be read or understood,
// what it said before counts; a file that is not there trusts nobody.
type TrustFile struct {
	path    string
	changed func(error)

	mu    sync.Mutex // guards what follows
	seen  fs.FileInfo
	bad   string // what was said last about a file that cannot be used; empty: it can
	nodes map[PublicKey][]message.Node
	known map[message.Node]bool
}

// OpenTrustFile returns the list in the file at path. The error is about a file that cannot be
// used; none is no error. changed, if not nil, is called when that becomes so later, and with nil
// when it is over. It must not block.
func OpenTrustFile(path string, changed func(error)) (*TrustFile, error) {
	f := &TrustFile{path: path}
	if err := f.look(); err != nil {
		return nil, err
	}
	f.changed = changed
	return f, nil
}

// Nodes returns the nodes for which a key speaks.
func (f *TrustFile) Nodes(k PublicKey) []message.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.look() // who has to know is told
	return f.nodes[k]
}

// Known reports whether any key speaks for a node.
func (f *TrustFile) Known(n message.Node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.look()
	return f.known[n]
}

// look reads the file when it has changed. It is called with mu held.
func (f *TrustFile) look() error {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.seen, f.nodes, f.known = nil, nil, nil
		return f.tell(nil)
	case err != nil:
		return f.tell(fmt.Errorf("trusted nodes: %w", err))
	}
	if f.seen != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() && info.Mode() == f.seen.Mode() {
		return nil
	}
	list, info, err := readTrust(f.path)
	if err != nil {
		f.seen = info // nil, or the one that cannot be used: it is not read again before it changes
		return f.tell(err)
	}
	nodes, known := map[PublicKey][]message.Node{}, map[message.Node]bool{}
	for _, t := range list {
		if known[t.Node] = true; !slices.Contains(nodes[t.Key], t.Node) {
			nodes[t.Key] = append(nodes[t.Key], t.Node)
		}
	}
	f.seen, f.nodes, f.known = info, nodes, known
	return f.tell(nil)
}

// tell passes on what is news about the file, and returns err.
func (f *TrustFile) tell(err error) error {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != f.bad && f.changed != nil {
		f.changed(err)
	}
	f.bad = text
	return err
}

// ReadTrust returns the lines of the list in the file at path, in order. Without a file there are
// none.
func ReadTrust(path string) ([]Trusted, error) {
	list, _, err := readTrust(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// Trust adds a line to the list in the file at path, which is made if it is not there. It
// reports whether there was none like it.
func Trust(path string, n message.Node, k PublicKey) (added bool, err error) {
	if err := n.Check(); err != nil {
		return false, fmt.Errorf("trust: %w", err)
	}
	if strings.Contains(string(n), "#") {
		return false, fmt.Errorf("trust: %w node name %s: a # begins a comment in the list", message.ErrInvalid, message.Quote(string(n)))
	}
	err = editTrust(path, func(text []byte) []byte {
		if list, err := parseTrust(text); err == nil && slices.ContainsFunc(list, func(t Trusted) bool { return t.Node == n && t.Key == k }) {
			return text
		}
		added = true
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		return fmt.Appendf(text, "%s %s\n", n, k)
	})
	return added && err == nil, err
}

// Untrust takes the lines of a node off the list in the file at path, or with a key only those of
// that key, and returns them.
func Untrust(path string, n message.Node, k *PublicKey) (removed []Trusted, err error) {
	err = editTrust(path, func(text []byte) []byte {
		var keep []byte
		for line := range bytes.Lines(text) {
			t, ok, err := parseTrustLine(line)
			if err == nil && ok && t.Node == n && (k == nil || t.Key == *k) {
				removed = append(removed, t)
				continue
			}
			keep = append(keep, line...)
		}
		return keep
	})
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// editTrust replaces the text of a list that can be read. Those who use it wait for each other, so that
// none takes back what another one has done.
func editTrust(path string, edit func([]byte) []byte) error {
	target, err := atomicfile.Target(path)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(target), 0o700)
	}
	if err != nil {
		return fmt.Errorf("trusted nodes: %w", err)
	}
	unlock, err := atomicfile.Lock(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("trusted nodes: %w", err)
	}
	defer unlock()
	old, _, err := readTrustText(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	if _, err := parseTrust(old); err != nil {
		return fmt.Errorf("trusted nodes: %s:%w", path, err)
	}
	text := edit(slices.Clone(old))
	if bytes.Equal(text, old) {
		return nil
	}
	if missing {
		if err := atomicfile.Create(target, text); err != nil {
			return fmt.Errorf("trusted nodes: %w", err)
		}
		return nil
	}
	if now, _, err := readTrustText(path); err != nil || !bytes.Equal(now, old) {
		return fmt.Errorf("trusted nodes: %s was changed by somebody else in this moment; try again", path)
	}
	if err := atomicfile.Replace(target, text); err != nil {
		return fmt.Errorf("trusted nodes: %w", err)
	}
	return nil
}

func readTrust(path string) ([]Trusted, fs.FileInfo, error) {
	text, info, err := readTrustText(path)
	if err != nil {
		return nil, info, err
	}
	list, err := parseTrust(text)
	if err != nil {
		return nil, info, fmt.Errorf("trusted nodes: %s:%w", path, err)
	}
	return list, info, nil
}

func readTrustText(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("trusted nodes: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("trusted nodes: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, info, fmt.Errorf("trusted nodes: %s is not a file", path)
	case runtime.GOOS != "windows" && info.Mode()&0o022 != 0:
		return nil, info, fmt.Errorf("trusted nodes: %s can be written by others than its owner, who could make themselves trusted; run: chmod go-w %s", path, path)
	case info.Size() > maxTrustFile:
		return nil, info, fmt.Errorf("trusted nodes: %s has %d bytes, at most %d are read", path, info.Size(), maxTrustFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTrustFile))
	if err != nil {
		return nil, info, fmt.Errorf("trusted nodes: %w", err)
	}
	return text, info, nil
}

// parseTrust reads a list. Its error begins with the number of a line.
func parseTrust(text []byte) ([]Trusted, error) {
	var list []Trusted
	n := 0
	for line := range bytes.Lines(text) {
		n++
		t, ok, err := parseTrustLine(line)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		if ok {
			list = append(list, t)
		}
	}
	return list, nil
}

// parseTrustLine reads one line; ok is false when there is nothing but a comment.
func parseTrustLine(line []byte) (t Trusted, ok bool, err error) {
	text, comment, _ := strings.Cut(string(line), "#")
	fields := strings.Fields(text)
	switch len(fields) {
	case 0:
		return t, false, nil
	case 2:
	default:
		return t, false, fmt.Errorf("%w line: want a node and its key, NODE U…, with a comment after # if you like", message.ErrInvalid)
	}
	t = Trusted{Node: message.Node(fields[0]), Comment: strings.TrimSpace(comment)}
	if err := t.Node.Check(); err != nil {
		return t, false, err
	}
	if t.Key, err = ParsePublicKey(fields[1]); err != nil {
		return t, false, err
	}
	return t, true, nil
}
