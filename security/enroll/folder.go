package enroll

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"steward/internal/atomicfile"
	"steward/message"
	"steward/security"
)

// Folder is where central keeps its tokens: a file for each, and another one, made by who comes first,
// when it is used. So no two can use one, whatever else is done at the same time.
type Folder string

// Pending is a token as central knows it.
type Pending struct {
	Key     security.PublicKey // of the token
	Node    message.Node
	Expires time.Time
	// Used is the key of the node that was enrolled with it; nil: nobody was.
	Used *security.PublicKey
	// Through: that key was trusted after it. When it is no longer, somebody has taken it back.
	Through bool
}

// Kept is how long a token that serves no more is known, so that who comes with it learns why.
const Kept = 24 * time.Hour

const usedSuffix = ".used"

type tokenFile struct {
	Node    message.Node `json:"node"`
	Expires time.Time    `json:"expires"`
}

type usedFile struct {
	Key     string `json:"key"`
	Through bool   `json:"through,omitempty"`
}

func (f Folder) path(k security.PublicKey) string { return filepath.Join(string(f), k.String()) }

// Add takes note of a token.
func (f Folder) Add(k security.PublicKey, n message.Node, expires time.Time) error {
	text, err := json.Marshal(tokenFile{n, expires.UTC().Truncate(time.Second)})
	if err == nil {
		err = os.MkdirAll(string(f), 0o700)
	}
	if err == nil {
		err = atomicfile.Create(f.path(k), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

// Remove forgets a token. Without one, the error wraps fs.ErrNotExist.
func (f Folder) Remove(k security.PublicKey) error {
	if err := os.Remove(f.path(k)); err != nil { // first, so that it is never one that nobody has used
		return fmt.Errorf("token: %w", err)
	}
	if err := os.Remove(f.path(k) + usedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

// Use notes on disk that a token was used by who has the key k, or returns which other key has used it.
func (f Folder) Use(token, k security.PublicKey) (by security.PublicKey, err error) {
	text, err := json.Marshal(usedFile{Key: k.String()})
	if err != nil {
		return by, err
	}
	err = atomicfile.Create(f.path(token)+usedSuffix, append(text, '\n'))
	if err == nil {
		return k, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return by, fmt.Errorf("token: %w", err)
	}
	used, _, err := f.used(token)
	if err != nil {
		return by, err
	}
	if used == nil {
		return by, errors.New("token: it was removed in this moment")
	}
	return *used, nil
}

// Through notes on disk that the key k, by which a token was used, is trusted.
func (f Folder) Through(token, k security.PublicKey) error {
	text, err := json.Marshal(usedFile{Key: k.String(), Through: true})
	if err == nil {
		err = atomicfile.Replace(f.path(token)+usedSuffix, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

// Lookup returns a token, or an error that wraps fs.ErrNotExist.
func (f Folder) Lookup(k security.PublicKey) (*Pending, error) {
	var t tokenFile
	if err := readJSON(f.path(k), &t); err != nil {
		return nil, err
	}
	used, through, err := f.used(k)
	if err != nil {
		return nil, err
	}
	if err := t.Node.Check(); err != nil {
		return nil, fmt.Errorf("token %s: %w", k, err)
	}
	return &Pending{Key: k, Node: t.Node, Expires: t.Expires, Used: used, Through: through}, nil
}

func (f Folder) used(k security.PublicKey) (by *security.PublicKey, through bool, err error) {
	var u usedFile
	err = readJSON(f.path(k)+usedSuffix, &u)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	key, err := security.ParsePublicKey(u.Key)
	if err != nil {
		return nil, false, fmt.Errorf("token %s: %w", k, err)
	}
	return &key, u.Through, nil
}

func readJSON(path string, v any) error {
	if err := security.CheckPrivate(path); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("token: %s: %w", path, err)
	}
	return nil
}

// List returns all tokens, by node. What cannot be read is an error besides.
func (f Folder) List() ([]Pending, error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	var all []Pending
	var errs []error
	for _, e := range entries {
		k, err := security.ParsePublicKey(e.Name())
		if err != nil {
			continue // the mark of a use, or a file on its way here
		}
		p, err := f.Lookup(k)
		switch {
		case err == nil:
			all = append(all, *p)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	slices.SortFunc(all, func(a, b Pending) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all, errors.Join(errs...)
}
