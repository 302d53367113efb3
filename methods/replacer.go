package methods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"steward/message"
	"steward/process"
)

// replacer puts payloads in the place of files, each in one step: a reader sees the old
// content or the new one. When several payloads of one batch are for the same file the last
// one wins, and the others are not written at all: that, and parts kept until they are
// whole, is what lets a batch be taken back at any point.
type replacer struct{ disk disk }

// target is what a batch holds for one file.
type target struct {
	name    string
	chunks  [][]byte    // all payloads, in order
	calls   []int       // and their calls
	pending []*assembly // without their last part
	whole   []*assembly // in the order of their last parts; the last one wins
}

// plan sorts calls by file. errs has the error of each call that is for no valid file or
// whose forerunners are missing.
func (replacer) plan(calls []*process.Call) (targets []*target, errs []error) {
	errs = make([]error, len(calls))
	byName := make(map[string]*target)
	type key struct {
		name string
		id   message.ID
	}
	open := make(map[key]*assembly)
	for i, c := range calls {
		m := c.Message
		name, err := m.File()
		if err != nil {
			errs[i] = err
			continue
		}
		t := byName[name]
		if t == nil {
			t = &target{name: name}
			byName[name] = t
			targets = append(targets, t)
		}
		t.calls = append(t.calls, i)
		t.chunks = append(t.chunks, content(m))

		k := key{name, m.ID}
		if m.IsReply() {
			k.id = m.InReplyTo
		}
		p := open[k]
		if p == nil || m.Part == 0 {
			// A first part where another one is under way: the method was run anew.
			p = &assembly{root: c.Files, target: name, id: k.id, from: m.Part}
			open[k] = p
			t.pending = append(t.pending, p)
		}
		if m.Part != p.next() {
			errs[i] = fileError("write", name, errNoParts)
			continue
		}
		p.parts = append(p.parts, content(m))
		p.calls = append(p.calls, i)
		if m.Last() {
			p.whole = true
			delete(open, k)
			t.pending = slices.DeleteFunc(t.pending, func(q *assembly) bool { return q == p })
			t.whole = append(t.whole, p)
		}
	}
	return targets, errs
}

// settle leaves out what cannot be carried out, because forerunners are missing, and gives
// it to fail.
func (t *target) settle(fail func(p *assembly, err error)) {
	bad := func(p *assembly) bool {
		_, err := p.note()
		if err != nil {
			fail(p, err)
		}
		return err != nil
	}
	t.pending = slices.DeleteFunc(t.pending, bad)
	t.whole = slices.DeleteFunc(t.whole, bad)
}

func (r replacer) runAll(ctx context.Context, calls []*process.Call) []error {
	targets, errs := r.plan(calls)
	for _, t := range targets {
		set := func(at []int, err error) {
			for _, i := range at {
				errs[i] = fileError("write", t.name, err)
			}
		}
		if err := ctx.Err(); err != nil {
			set(t.calls, err)
			continue
		}
		root := calls[t.calls[0]].Files
		switch _, socket, err := kind(root, t.name); {
		case socket:
			set(t.calls, toSocket(ctx, root, t.name, t.chunks))
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			set(t.calls, err)
			continue
		}
		t.settle(func(p *assembly, err error) { set(p.calls, err) })
		for _, p := range t.pending {
			set(p.calls, r.disk.assemble(p))
		}
		if len(t.whole) > 0 {
			err := r.disk.assemble(t.whole[len(t.whole)-1])
			for _, p := range t.whole {
				set(p.calls, err)
			}
		}
	}
	return errs
}

func (r replacer) mark(calls []*process.Call) ([]byte, error) {
	var marks []partsMark
	targets, _ := r.plan(calls)
	for _, t := range targets {
		var failed error
		t.settle(func(_ *assembly, err error) {
			if passes(err) {
				failed = fileError("look at", t.name, err)
			}
		})
		if failed != nil {
			return nil, failed
		}
		for _, p := range slices.Concat(t.pending, t.whole) {
			m, err := p.note()
			if err != nil {
				return nil, fileError("look at", t.name, err)
			}
			marks = append(marks, m)
		}
	}
	return json.Marshal(marks)
}

func (r replacer) undo(env *process.Env, mark []byte) error {
	var marks []partsMark
	if err := json.Unmarshal(mark, &marks); err != nil {
		return fmt.Errorf("read mark: %w", err)
	}
	var errs []error
	for _, m := range marks {
		errs = append(errs, fileError("take back", string(m.Target), r.disk.takeApart(env.Files, m)))
	}
	return errors.Join(errs...)
}
