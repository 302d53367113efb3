package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"steward/message"
)

// yamlSource gives a YAML document as the tokens of the same value in JSON, so that there
// is one set of rules for both. The document has to be read whole first.
type yamlSource struct {
	tokens []token
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
		line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
		if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
			_, text, _ = strings.Cut(text, ": ")
		}
		begin := 0 // of that line
		for range line - 1 {
			begin += bytes.IndexByte(doc[begin:], '\n') + 1
		}
		return &SyntaxError{Offset: startOffset + int64(max(begin-indent, 0)), Line: startLine + max(line, 1) - 1, Text: "YAML: " + cut(text)}
	}
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(&root); err == io.EOF {
		return nil, nil
	} else if err != nil {
		return nil, syntax(err)
	}
	if err := dec.Decode(new(yaml.Node)); err != io.EOF {
		return nil, syntax(errors.New(`text behind "---" in its line`))
	}
	src := &yamlSource{}
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
				return refuseYAML(key, "a key that is not a text")
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
			return refuseYAML(n, "the tag "+message.Quote(tag)+" is not supported")
		}
	default:
		return refuseYAML(n, "anchors and aliases are not supported")
	}
	return nil
}

func refuseYAML(n *yaml.Node, why string) error {
	return &RefusedError{Err: fmt.Errorf("line %d of the document: %s", n.Line, why)}
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
