package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"steward/internal/atomicfile"
)

// Save writes config.toml: all of it when there is none, else the values given by flag and
// the settings that the file lacks, with everything else as it was. A file with nothing to
// change is not written; a symbolic link stays one. The file is replaced in one step: it is
// the old or the new one at any moment. A node goes on when its settings cannot be kept,
// so what went wrong comes back as warnings.
func (c *Config) Save() []string {
	if err := c.save(); err != nil {
		return []string{fmt.Sprintf("settings are not kept for the next start: %v", err)}
	}
	return nil
}

func (c *Config) save() error {
	text := c.newFile()
	if c.file.exists && bytes.Equal(text, c.file.text) {
		return nil
	}
	// A text that cannot be read back would stop the next start.
	next, err := parseDocument(c.file.path, text)
	if err != nil {
		return fmt.Errorf("edit: %w", err)
	}
	next.exists = true
	path, err := atomicfile.Target(c.file.path)
	if err != nil {
		return err
	}
	now, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.file.exists:
	case err != nil:
		return err
	case !c.file.exists || !bytes.Equal(now, c.file.text):
		return fmt.Errorf("%s was changed since it was read", c.file.path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := atomicfile.Replace(path, text); err != nil {
		return err
	}
	c.file = next
	return nil
}

// newFile returns the text that the file should have.
func (c *Config) newFile() []byte {
	in := make(map[string]entry)
	for _, e := range c.file.entries {
		in[e.key] = e
	}
	var changes []change
	for _, s := range c.settings {
		if !s.inFile() {
			continue
		}
		ch := change{option: s.option, value: s.def}
		if s.origin == FromFlag {
			ch.value = s.value
		}
		if e, ok := in[s.name]; ok {
			old, err := s.kind.decode(e.value)
			if s.origin != FromFlag || err == nil && encode(old, nil) == encode(s.value, nil) {
				continue
			}
		}
		changes = append(changes, ch)
	}
	if !c.file.exists {
		return newText(changes)
	}
	return c.file.edit(changes)
}

// DefaultFile returns the config.toml that is written when there is none: every setting with its default.
func DefaultFile(methods []Method) (string, error) {
	opts, err := options(methods)
	if err != nil {
		return "", err
	}
	var values []change
	for _, o := range opts {
		if o.inFile() {
			values = append(values, change{option: o, value: o.def})
		}
	}
	return string(newText(values)), nil
}
