package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"steward/message"
)

// option describes a setting: everything that flags, environment, file and help know.
type option struct {
	name   string
	group  string
	unit   string // what the help text calls the value
	limits string // of a number, for documents
	help   string // what it means, on one line
	kind   kind
	def    any // string, int64 or []string, by kind
	// store checks a value and puts it into the configuration.
	store func(c *Config, v any) error
	// mask hides what must not be printed; nil for nothing.
	mask func(string) string
}

// inFile says whether the setting stands in config.toml. The folder of the file does not:
// it has to be known before the file is found.
func (o option) inFile() bool { return o.name != nameConfigFolder }

// show returns v as it would be given by flag, without what must not be printed.
func (o option) show(v any) string {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case int64:
		text = strconv.FormatInt(v, 10)
	case []string:
		text = Off
		if len(v) > 0 {
			text = strings.Join(v, ",")
		}
	}
	if o.mask != nil {
		text = o.mask(text)
	}
	return text
}

// text is a setting that is a string.
func text[T ~string](name, def, help string, at func(*Config) *T, check func(string) error) option {
	return option{name: name, unit: "string", help: help, kind: textKind, def: def, store: func(c *Config, v any) error {
		s := v.(string)
		if err := check(s); err != nil {
			return err
		}
		*at(c) = T(s)
		return nil
	}}
}

// number is a setting that is a whole number from least to most.
func number[T int | int64](name string, def, least, most int64, help string, at func(*Config) *T) option {
	return option{name: name, unit: "int", limits: limits(least, most), help: help, kind: numberKind, def: def, store: func(c *Config, v any) error {
		if err := inRange(v.(int64), least, most); err != nil {
			return err
		}
		*at(c) = T(v.(int64))
		return nil
	}}
}

// seconds is a setting that is a duration.
func seconds(name string, def, least int64, help string, at func(*Config) *time.Duration) option {
	const most = 100 * 365 * 24 * 3600 // far from the end of a time.Duration
	return option{name: name, unit: "seconds", limits: limits(least, math.MaxInt64), help: help, kind: numberKind, def: def, store: func(c *Config, v any) error {
		if err := inRange(v.(int64), least, most); err != nil {
			return err
		}
		*at(c) = time.Duration(v.(int64)) * time.Second
		return nil
	}}
}

// limits says what inRange accepts. A bound that nobody reaches is not worth a word.
func limits(least, most int64) string {
	if most >= math.MaxInt32 {
		return fmt.Sprintf("%d or more", least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

func inRange(n, least, most int64) error {
	switch {
	case n < 0 && least == 0:
		return fmt.Errorf("%d is negative; give 0 or more", n)
	case n < least:
		return fmt.Errorf("%d is too small; give %d or more", n, least)
	case n > most:
		return fmt.Errorf("%d is too large; give %d or less", n, most)
	}
	return nil
}

// senders is the setting that says which nodes may use a method.
func senders(m Method) option {
	def := slices.Clone(m.Default)
	if def == nil {
		def = []string{Central}
	}
	help := "who may use " + string(m.Name) + " here: node names, * for all, or RST to turn it off"
	return option{name: "startSub" + string(m.Name), unit: "nodes", help: help, kind: listKind, def: def, store: func(c *Config, v any) error {
		for _, n := range v.([]string) {
			if n == "*" || n == Central {
				continue
			}
			if err := checkNode(n); err != nil {
				return err
			}
		}
		c.Subscribers[m.Name] = v.([]string)
		return nil
	}}
}

// kind is the type of a value.
type kind uint8

const (
	textKind   kind = iota + 1 // string
	numberKind                 // int64
	listKind                   // []string, not nil, in which the empty list means off
)

// parse reads a value as it is given by flag or in the environment.
func (k kind) parse(s string) (any, error) {
	switch k {
	case numberKind:
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("want a whole number of at most %d, without a unit, got %s", int64(math.MaxInt64), message.Quote(s))
		}
		return n, nil
	case listKind:
		if strings.TrimSpace(s) == "" {
			return nil, fmt.Errorf("it is empty; give node names separated by commas, * for all, or %s to turn it off", Off)
		}
		list := strings.Split(s, ",")
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		return offOr(list), nil
	}
	return plainText(s)
}

// plainText refuses what no setting can be. It does not show the text: that may be secret.
func plainText(s string) (any, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return nil, errors.New("it holds a control character or is not UTF-8")
	}
	return s, nil
}

// decode takes a value as the TOML decoder returns it.
func (k kind) decode(v any) (any, error) {
	switch k {
	case textKind:
		if s, ok := v.(string); ok {
			return plainText(s)
		}
		return nil, fmt.Errorf(`want text in quotes, such as "a", got %s`, typeName(v))
	case numberKind:
		if n, ok := v.(int64); ok {
			return n, nil
		}
		return nil, fmt.Errorf("want a whole number without quotes, such as 5, got %s", typeName(v))
	}
	bad := func(v any) (any, error) {
		return nil, fmt.Errorf(`want a list of texts, such as ["a", "b"], got %s`, typeName(v))
	}
	items, ok := v.([]any)
	if !ok {
		return bad(v)
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return bad(item)
		}
		list = append(list, strings.TrimSpace(s))
	}
	return offOr(list), nil
}

// offOr returns the empty list for the word that means it.
func offOr(list []string) []string {
	if len(list) == 1 && list[0] == Off {
		return []string{}
	}
	return list
}

// typeName names the type of a decoded TOML value for people.
func typeName(v any) string {
	switch v := v.(type) {
	case string:
		return "text"
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return strconv.FormatBool(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}
