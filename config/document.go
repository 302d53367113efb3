package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is config.toml as a text in which single values can be replaced.
type document struct {
	path   string
	exists bool
	text   []byte

	entries []entry // key = value at the top level, in the order of the file
	tables  []table
	inside  []entry // key = value inside tables, without values
}

// entry is one key and its value.
type entry struct {
	key        string // dotted, if it is
	value      any    // as the decoder returns it; nil for a dotted key
	start, end int    // the bytes of the value
	comments   []string
	lineEnd    int    // behind the line on which the value ends
	where      string // of the value, for error texts
	keyWhere   string
	table      string
}

// table is the header of a [table] or [[table]].
type table struct {
	name  string
	root  string // the first part of name
	start int    // of its line
	where string
}

// maxFile bounds the size of config.toml in bytes. A longer file is not one.
const maxFile = 1 << 20

func fileIn(folder string) string { return filepath.Join(folder, "config.toml") }

// readDocument reads the file at path. A file that does not exist is an empty document.
func readDocument(path string) (*document, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &document{path: path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	d, err := parseDocument(path, text)
	if err != nil {
		return nil, err
	}
	d.exists = true
	return d, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would keep the node waiting
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return text, err
}

// parseDocument reads text. What the decoder accepts decides what is valid; the parser
// below it only says where things are.
func parseDocument(path string, text []byte) (*document, error) {
	d := &document{path: path, text: text}
	var values map[string]any
	if err := toml.Unmarshal(text, &values); err != nil {
		what := strings.TrimPrefix(err.Error(), "toml: ")
		if at := new(toml.DecodeError); errors.As(err, &at) {
			line, column := at.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", path, line, column, what)
		}
		return nil, fmt.Errorf("%s: %s", path, what)
	}

	p := unstable.Parser{KeepComments: true}
	p.Reset(text)
	for p.NextExpression() {
		node := p.Expression()
		switch node.Kind {
		case unstable.KeyValue:
			e := d.entry(&p, node)
			if len(d.tables) > 0 {
				e.table = d.tables[len(d.tables)-1].name
				d.inside = append(d.inside, e)
				continue
			}
			if !dotted(node) {
				e.value = values[e.key]
			}
			d.entries = append(d.entries, e)
		case unstable.Table, unstable.ArrayTable:
			parts := key(node)
			start := int(node.Child().Raw.Offset)
			start = bytes.LastIndexByte(text[:start], '\n') + 1
			d.tables = append(d.tables, table{name: strings.Join(parts, "."), root: parts[0], start: start, where: d.where(start)})
		}
	}
	if err := p.Error(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// entry reads a key = value expression. The node does not know where its value starts:
// that is found behind the key.
func (d *document) entry(p *unstable.Parser, node *unstable.Node) entry {
	var first, last *unstable.Node
	for it := node.Key(); it.Next(); {
		last = it.Node()
		if first == nil {
			first = last
		}
	}
	start := int(last.Raw.Offset + last.Raw.Length)
	start += bytes.IndexByte(d.text[start:], '=') + 1
	start += len(d.text[start:]) - len(bytes.TrimLeft(d.text[start:], " \t"))
	e := entry{
		key:      strings.Join(key(node), "."),
		start:    start,
		end:      int(node.Raw.Offset + node.Raw.Length),
		where:    d.where(start),
		keyWhere: d.where(int(first.Raw.Offset)),
		comments: comments(p, node.Value()),
	}
	e.lineEnd = len(d.text)
	if i := bytes.IndexByte(d.text[e.end:], '\n'); i >= 0 {
		e.lineEnd = e.end + i + 1
	}
	return e
}

// comments returns the comments between the items of a list.
func comments(p *unstable.Parser, value *unstable.Node) []string {
	if value.Kind != unstable.Array {
		return nil
	}
	var list []string
	var walk func(n *unstable.Node)
	walk = func(n *unstable.Node) {
		for it := n.Children(); it.Next(); {
			switch c := it.Node(); c.Kind {
			case unstable.Comment:
				list = append(list, strings.TrimRight(string(p.Raw(c.Raw)), "\r"))
				walk(c)
			case unstable.Array:
				walk(c)
			}
		}
	}
	walk(value)
	return list
}

func key(node *unstable.Node) []string {
	var parts []string
	for it := node.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
	}
	return parts
}

func dotted(node *unstable.Node) bool {
	it := node.Key()
	return it.Next() && !it.IsLast()
}

// where names a place in the file.
func (d *document) where(offset int) string {
	before := d.text[:offset]
	line := bytes.Count(before, []byte("\n")) + 1
	column := offset - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%s:%d:%d", d.path, line, column)
}

// known returns the entries that are settings, by name. Anything else at the top level
// is an error, for it would be a setting that is not read; so is a setting inside a
// table. Other tables are left alone, with a warning.
func (d *document) known(opts []option) (entries map[string]entry, warnings []string, err error) {
	entries = make(map[string]entry)
	var inFile []string
	for _, o := range opts {
		if o.inFile() {
			inFile = append(inFile, o.name)
		}
	}
	var problems []error
	for _, e := range d.entries {
		switch {
		case slices.Contains(inFile, e.key):
			entries[e.key] = e
		case e.key == nameConfigFolder:
			problems = append(problems, fmt.Errorf("%s: %s cannot stand in the file that it finds; give -%s or CONFIGFOLDER", e.keyWhere, e.key, e.key))
		default:
			problems = append(problems, fmt.Errorf("%s: unknown setting %q; %s", e.keyWhere, clip(e.key), DidYouMean(e.key, inFile, "steward -help lists them all")))
		}
	}
	for _, t := range d.tables {
		if slices.Contains(inFile, t.root) {
			problems = append(problems, fmt.Errorf("%s: %s is a setting and no table; write %s = and its value", t.where, t.root, t.root))
			continue
		}
		warnings = append(warnings, fmt.Sprintf("%s: table [%s] is not read", t.where, clip(t.name)))
	}
	for _, e := range d.inside {
		i := slices.IndexFunc(inFile, func(name string) bool { return strings.EqualFold(name, e.key) })
		if i >= 0 {
			problems = append(problems, fmt.Errorf("%s: %s stands in table [%s], where it is not read; move it above the first table", e.keyWhere, inFile[i], clip(e.table)))
		}
	}
	return entries, warnings, errors.Join(problems...)
}

// clip cuts a name from outside before it goes into an error text.
func clip(s string) string {
	const most = 64
	if rs := []rune(s); len(rs) > most {
		return string(rs[:most]) + "…"
	}
	return s
}

// change is a value to be put into the text.
type change struct {
	option
	value any
}

// edit returns the text with the changes in it: the bytes of a value that is there are
// replaced, a key that is not is added with its comment. Nothing else changes.
func (d *document) edit(changes []change) []byte {
	eol := "\n"
	if bytes.Contains(d.text, []byte("\r\n")) {
		eol = "\r\n"
	}
	type splice struct {
		start, end int
		text       string
	}
	var splices []splice
	var missing strings.Builder
	for _, ch := range changes {
		i := slices.IndexFunc(d.entries, func(e entry) bool { return e.key == ch.name })
		if i < 0 {
			missing.WriteString(strings.ReplaceAll("\n"+ch.block(), "\n", eol))
			continue
		}
		e := d.entries[i]
		splices = append(splices, splice{e.start, e.end, strings.ReplaceAll(encode(ch.value, e.comments), "\n", eol)})
	}
	if missing.Len() > 0 {
		at := d.end()
		text := missing.String()
		switch {
		case at == 0:
			text = strings.TrimPrefix(text, eol)
		case d.text[at-1] != '\n':
			text = eol + text
		}
		if at < len(d.text) && d.text[at] != '\n' && d.text[at] != '\r' {
			text += eol // a blank line before what follows
		}
		splices = append(splices, splice{at, at, text})
	}
	slices.SortStableFunc(splices, func(a, b splice) int { return cmp.Compare(a.start, b.start) })

	var out bytes.Buffer
	done := 0
	for _, s := range splices {
		out.Write(d.text[done:s.start])
		out.WriteString(s.text)
		done = s.end
	}
	out.Write(d.text[done:])
	return out.Bytes()
}

// end returns where a key at the top level can be added: at the end, or, if there are
// tables, behind the last key before them, or else before the comment above the first.
func (d *document) end() int {
	if len(d.tables) == 0 {
		return len(d.text)
	}
	if n := len(d.entries); n > 0 {
		return d.entries[n-1].lineEnd
	}
	at := d.tables[0].start
	for at > 0 {
		above := bytes.LastIndexByte(d.text[:at-1], '\n') + 1
		if !bytes.HasPrefix(bytes.TrimLeft(d.text[above:at], " \t"), []byte("#")) {
			break
		}
		at = above
	}
	return at
}
