package acl

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"steward/message"
)

// names is a set of node or method names.
type names struct {
	exact    map[string]bool
	prefixes []string // of names that end with a star; an empty one is a star alone
}

func (n *names) has(name string) bool {
	return n.exact[name] || slices.ContainsFunc(n.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// add adds a name, or what is before the star at the end of one, as [checkName] accepts it.
func (n *names) add(s string) {
	if prefix, star := strings.CutSuffix(s, "*"); star {
		n.prefixes = append(n.prefixes, prefix)
		return
	}
	if n.exact == nil {
		n.exact = map[string]bool{}
	}
	n.exact[s] = true
}

// checkName says whether s is a name, or the beginning of one with a star behind it. check is
// that of the name.
func checkName(s string, check func(string) error) error {
	prefix, star := strings.CutSuffix(s, "*")
	switch {
	case strings.Contains(prefix, "*"):
		return fmt.Errorf("%s: a star stands at the end of a name only", message.Quote(s))
	case star && prefix == "":
		return nil
	case star:
		// What may stand before the star is what a name could go on from, such as "ww.".
		return check(strings.TrimSuffix(prefix, "."))
	}
	return check(s)
}

// argument is the pattern of one argument: texts with stars between them.
type argument []string

// parseArgument reads a pattern. A star is any text, \* is a star, and \\ is a backslash; any other
// backslash is one.
func parseArgument(s string) (argument, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, errors.New("it holds a NUL byte, which no argument can")
	}
	var a argument
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '*':
			a = append(a, text.String())
			text.Reset()
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '\\'):
			i++
			text.WriteByte(s[i])
		default:
			text.WriteByte(s[i])
		}
	}
	return append(a, text.String()), nil
}

// fits reports whether all of s is as the pattern says. It takes time as s is long: what stands between
// two stars is best found where it is first.
func (a argument) fits(s string) bool {
	first, last := a[0], a[len(a)-1]
	if len(a) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, text := range a[1 : len(a)-1] {
		i := strings.Index(s, text)
		if i < 0 {
			return false
		}
		s = s[i+len(text):]
	}
	return true
}

// always reports whether the pattern fits whatever the argument becomes.
func (a argument) always(arg Arg) bool {
	if !arg.Open {
		return a.fits(arg.Text)
	}
	return len(a) > 1 && a[len(a)-1] == "" && a.fits(arg.Text)
}

// ever reports whether the pattern fits what the argument may become.
func (a argument) ever(arg Arg) bool {
	if !arg.Open {
		return a.fits(arg.Text)
	}
	if len(a) == 1 {
		return strings.HasPrefix(a[0], arg.Text)
	}
	return strings.HasPrefix(a[0], arg.Text) || strings.HasPrefix(arg.Text, a[0])
}

// arguments are the patterns of all arguments.
type arguments struct {
	each []argument
	rest bool // there may be more
}

func (a *arguments) fit(args []Arg, one func(argument, Arg) bool) bool {
	if len(args) < len(a.each) || len(args) > len(a.each) && !a.rest {
		return false
	}
	for i, p := range a.each {
		if !one(p, args[i]) {
			return false
		}
	}
	return true
}
