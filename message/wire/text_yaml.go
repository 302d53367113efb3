package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"steward/message"
)

// yamlSource gives a YAML document as the tokens of the same value in JSON, so that there
// is one set of rules for both. The document has to be read whole first.
type yamlSource struct {
	tokens []token
	before int // lines of the stream before the document
	level  int
	err    error
}

// newYAMLSource reads one document, of which indent blanks have been used already. It
// returns nil when there is nothing in it.
func newYAMLSource(in *input, indent, limit int) (*yamlSource, error) {
	startLine, startOffset := in.line(), in.offset()
	doc, tooLarge, err := readDocument(in, indent, limit)
	if err != nil {
		return nil, err
	}
	if tooLarge {
		return &yamlSource{err: &RefusedError{Err: fmt.Errorf("the YAML document is larger than the limit of %d bytes; send it in parts, or as JSON", limit)}}, nil
	}
	syntax := func(err error) error {
		before, text := placeOf(err, doc)
		return &SyntaxError{
			Offset: startOffset + int64(max(0, len(before)-indent)), Line: startLine + countLines(before), Text: "YAML: " + cut(text),
		}
	}
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(&root); err == io.EOF {
		return nil, nil
	} else if err != nil {
		return nil, syntax(err)
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return nil, syntax(errors.New(`text behind "---" in its line`))
	} else if err != io.EOF {
		return nil, syntax(err)
	}
	src := &yamlSource{before: startLine - 1}
	if err := src.add(&root, 0); err != nil {
		if refused := (*RefusedError)(nil); !errors.As(err, &refused) {
			return nil, syntax(err)
		}
		return &yamlSource{err: err}, nil
	}
	if len(src.tokens) == 0 {
		return nil, nil
	}
	return src, nil
}

// fromZero are how those errors of the library begin of which it counts the lines from 0: of its parser, other than of its scanner.
var fromZero = []string{
	"did not find expected <", "did not find expected node content", "did not find expected key", "did not find expected '-' indicator",
	"did not find expected ',' or ", "found undefined tag handle", "found duplicate %", "found incompatible YAML document",
}

// placeOf returns what stands in doc before the line that an error of the library is about, and the error without the number of
// that line.
func placeOf(err error, doc []byte) (before []byte, text string) {
	line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
		if slices.ContainsFunc(fromZero, func(begin string) bool { return strings.HasPrefix(text, begin) }) {
			line++
		}
	}
	lines := bytes.SplitAfter(doc, []byte{'\n'})
	at := min(line, len(lines)) - 1
	if strings.HasPrefix(text, "found a tab character") { // the line is that in which the value before the tab begins
		at += max(0, slices.IndexFunc(lines[at:], indentedByTab))
	}
	return bytes.Join(lines[:at], nil), text
}

// indentedByTab reports whether there is a tab in the white space with which a line begins.
func indentedByTab(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte{'\t'})
}

// readDocument reads lines up to one that ends the document, which is used too, or the
// end of the stream. Bytes that no YAML has are an error at once.
func readDocument(in *input, indent, limit int) (doc []byte, tooLarge bool, err error) {
	doc = bytes.Repeat([]byte{' '}, min(indent, limit))
	line := 0 // where it begins in doc
	for {
		var c byte
		if c, err = in.peek(); err == io.EOF {
			if endsDocument(doc[line:]) {
				doc = doc[:line]
			}
			return doc, tooLarge, nil
		} else if err != nil {
			return nil, false, err
		}
		size := 1
		if c >= 0x80 {
			if _, size, err = in.rune(); err != nil {
				return nil, false, err
			}
		} else if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7F {
			return nil, false, in.syntax(fmt.Sprintf("unexpected byte 0x%02x", c))
		}
		doc = append(doc, in.buf[in.pos:in.pos+size]...)
		in.pos += size
		if len(doc) > limit {
			// Only the line at hand matters now, and of that not more than a marker's length.
			tooLarge = true
			doc = append(doc[:0], doc[line:min(len(doc), line+64)]...)
			line = 0
		}
		if c == '\n' {
			if endsDocument(doc[line:]) {
				return doc[:line], tooLarge, nil
			}
			line = len(doc)
		}
	}
}

// endsDocument reports whether line is "---" or "...", perhaps with a comment behind.
func endsDocument(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	if !ok {
		if rest, ok = bytes.CutPrefix(line, []byte("...")); !ok {
			return false
		}
	}
	trimmed := bytes.TrimLeft(rest, " \t\r\n")
	return len(trimmed) == 0 || trimmed[0] == '#' && len(trimmed) < len(rest)
}

// add appends the tokens of n. It keeps no text of the library in refusals that is not
// bounded.
func (s *yamlSource) add(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: nested more than %d deep", n.Line, maxDepth)
	}
	put := func(kind tokenKind, text string) { s.tokens = append(s.tokens, token{kind, []byte(text)}) }
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			if err := s.add(c, depth); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		put(tokArray, "")
		for _, c := range n.Content {
			if err := s.add(c, depth+1); err != nil {
				return err
			}
		}
		put(tokEndArray, "")
	case yaml.MappingNode:
		put(tokObject, "")
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				return s.refuse(key, "a key that is not a text")
			}
			put(tokKey, key.Value)
			if err := s.add(n.Content[i+1], depth+1); err != nil {
				return err
			}
		}
		put(tokEndObject, "")
	case yaml.ScalarNode:
		switch tag := n.ShortTag(); tag {
		case "!!str", "!!timestamp":
			put(tokString, n.Value)
		case "!!int", "!!float":
			put(tokNumber, n.Value)
		case "!!bool":
			if strings.EqualFold(n.Value, "true") {
				put(tokTrue, "")
			} else {
				put(tokFalse, "")
			}
		case "!!null":
			put(tokNull, "")
		default:
			return s.refuse(n, "the tag "+message.Quote(tag)+" is not supported")
		}
	default:
		return s.refuse(n, "anchors and aliases are not supported")
	}
	return nil
}

func (s *yamlSource) refuse(n *yaml.Node, why string) error {
	return &RefusedError{Err: fmt.Errorf("line %d: %s", s.before+n.Line, why)}
}

func (s *yamlSource) next() (token, error) {
	if s.err != nil {
		return token{}, s.err
	}
	t := s.tokens[0]
	s.tokens = s.tokens[1:]
	switch t.kind {
	case tokArray, tokObject:
		s.level++
	case tokEndArray, tokEndObject:
		s.level--
	}
	return t, nil
}

func (s *yamlSource) depth() int { return s.level }

func (s *yamlSource) discard() {}
