package methods

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"steward/message"
	"steward/process"
)

// builtin is filled by the register lines of this package while it is initialised and only
// read afterwards.
var builtin []process.Spec

func register(s process.Spec) struct{} {
	builtin = append(builtin, s)
	return struct{}{}
}

// Registry is a set of methods, each complete and with a name of its own. It never changes.
type Registry struct {
	specs []process.Spec // sorted by name
}

// Builtin returns the methods of this package. An error is a mistake in one of them.
func Builtin() (*Registry, error) { return New(builtin...) }

// New returns a registry of the given methods. The error names every method that is
// incomplete or there twice, and why.
func New(specs ...process.Spec) (*Registry, error) {
	r := &Registry{specs: slices.Clone(specs)}
	slices.SortStableFunc(r.specs, func(a, b process.Spec) int {
		return strings.Compare(string(a.Name), string(b.Name))
	})
	var errs []error
	for i, s := range r.specs {
		if err := check(s); err != nil {
			errs = append(errs, fmt.Errorf("method %q (%s): %w", s.Name, s.Summary, err))
		}
		if i > 0 && r.specs[i-1].Name == s.Name {
			errs = append(errs, fmt.Errorf("method %q is registered twice: %q and %q", s.Name, r.specs[i-1].Summary, s.Summary))
		}
		if _, ok := r.Lookup(s.Reply); s.Reply != "" && !ok {
			errs = append(errs, fmt.Errorf("method %q: its reply method %q is not registered", s.Name, s.Reply))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

// check says what a spec lacks.
func check(s process.Spec) error {
	var errs []error
	lacks := func(missing bool, what string) {
		if missing {
			errs = append(errs, errors.New(what))
		}
	}
	if err := s.Name.Check(); err != nil {
		errs = append(errs, err)
	}
	exact := s.RunAll != nil && s.Mark != nil && s.Undo != nil
	part := s.RunAll != nil || s.Mark != nil || s.Undo != nil
	lacks(s.Summary == "" || strings.Contains(s.Summary, "\n"), "no summary of one line")
	lacks(strings.Contains(s.Details, "\n"), "its details are more than one line")
	lacks(s.Kind < message.CommandACK || s.Kind > message.EventNACK, "no kind")
	lacks(s.Access != process.AccessCentral && s.Access != process.AccessAll, "no access")
	lacks(s.Reply == "", "no reply method; a method without a reply has REQNone")
	lacks(s.Parallel < 0 || s.Parallel > 0 && s.Ordered, "an ordered method runs one at a time")
	lacks(s.MinArgs < 0 || s.MinArgs > 0 && s.Args == "", "arguments are wanted but not described")
	switch s.Crash {
	case process.Repeat, process.Once, process.Resume:
		lacks(s.Run == nil, "no Run")
		lacks(part, "RunAll, Mark and Undo are for methods that are Exact")
	case process.Exact:
		lacks(!exact, "an Exact method has RunAll, Mark and Undo")
		lacks(s.Run != nil, "an Exact method has no Run")
	default:
		lacks(true, "it does not say what a crash means")
	}
	return errors.Join(errs...)
}

// Lookup returns the method of that name.
func (r *Registry) Lookup(name message.Method) (process.Spec, bool) {
	i, ok := slices.BinarySearchFunc(r.specs, name, func(s process.Spec, n message.Method) int {
		return strings.Compare(string(s.Name), string(n))
	})
	if !ok {
		return process.Spec{}, false
	}
	return r.specs[i], true
}

// Names returns the names of all methods, sorted.
func (r *Registry) Names() []message.Method {
	names := make([]message.Method, len(r.specs))
	for i, s := range r.specs {
		names[i] = s.Name
	}
	return names
}

// All returns all methods, sorted by name.
func (r *Registry) All() []process.Spec { return slices.Clone(r.specs) }
