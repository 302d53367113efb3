package methods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"steward/message"
	"steward/process"
)

// appender appends messages to files, so that a batch cut off by a crash can be taken
// back: before it the length of each file is noted, and what goes beyond that is cut off
// after the crash. A batch opens, writes and syncs each file once; calls for one file
// succeed or fail together, those for other files go their own way.
type appender struct {
	disk disk
	// file says which file a message is for.
	file func(m *message.Message) (string, error)
	// content is what is appended.
	content func(m *message.Message) []byte
	// rotate is the size in bytes above which a file is set aside before a batch, 0 for never.
	rotate int64
}

// fileCalls are the calls of a batch for one file, by their places in the batch.
type fileCalls struct {
	root   *os.Root
	name   string
	calls  []int
	chunks [][]byte
	// worthless: all are replies to runs that failed and printed nothing. No file is made for
	// them, which would look like success without output.
	worthless bool
}

// group sorts calls by file, in the order of each file's first call. errs has the error of
// each call that is for no valid file.
func (a appender) group(calls []*process.Call) (groups []*fileCalls, errs []error) {
	errs = make([]error, len(calls))
	byName := make(map[string]*fileCalls)
	for i, c := range calls {
		name, err := a.file(c.Message)
		if err != nil {
			errs[i] = err
			continue
		}
		g := byName[name]
		if g == nil {
			g = &fileCalls{root: c.Files, name: name, worthless: true}
			byName[name] = g
			groups = append(groups, g)
		}
		chunk := a.content(c.Message)
		g.calls = append(g.calls, i)
		g.chunks = append(g.chunks, chunk)
		r := c.Message.Result
		g.worthless = g.worthless && len(chunk) == 0 && r != nil && !r.OK()
	}
	return groups, errs
}

func (a appender) runAll(ctx context.Context, calls []*process.Call) []error {
	groups, errs := a.group(calls)
	for _, g := range groups {
		err := ctx.Err()
		if err == nil {
			err = fileError("append to", g.name, a.append(ctx, g))
		}
		for _, i := range g.calls {
			errs[i] = err
		}
	}
	return errs
}

func (a appender) append(ctx context.Context, g *fileCalls) error {
	switch _, socket, err := kind(g.root, g.name); {
	case socket:
		return toSocket(ctx, g.root, g.name, g.chunks)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil && g.worthless:
		return nil
	}
	if err := a.disk.parents(g.root, g.name); err != nil {
		return err
	}
	return a.disk.extend(g.root, g.name, -1, g.chunks...)
}

// length notes how long a file was, and which one it was if that is known.
type length struct {
	Name  []byte // not a string: JSON would not keep every byte of one
	Size  int64
	Inode uint64 `json:",omitempty"`
}

// mark notes the lengths of the files that calls are for. A file that is too long is set
// aside here and not in the run: then no crash in the run can meet a rotation half done.
func (a appender) mark(calls []*process.Call) ([]byte, error) {
	var lengths []length
	groups, _ := a.group(calls) // a call for no valid file writes nothing
	for _, g := range groups {
		if a.rotate > 0 {
			if err := a.rotateFor(g); err != nil {
				return nil, fileError("rotate", g.name, err)
			}
		}
		switch fi, socket, err := kind(g.root, g.name); {
		case err == nil && !socket:
			lengths = append(lengths, length{[]byte(g.name), fi.Size(), inode(fi)})
		case errors.Is(err, fs.ErrNotExist):
			lengths = append(lengths, length{Name: []byte(g.name)})
		case err != nil && passes(err):
			return nil, fileError("look at", g.name, err)
		}
		// What is neither missing nor a file is not written to, or cannot be taken back.
	}
	return json.Marshal(lengths)
}

func (a appender) undo(env *process.Env, mark []byte) error {
	var lengths []length
	if err := json.Unmarshal(mark, &lengths); err != nil {
		return fmt.Errorf("read mark: %w", err)
	}
	var errs []error
	for _, l := range lengths {
		name := string(l.Name)
		switch fi, socket, err := kind(env.Files, name); {
		case err != nil && fi == nil:
			errs = append(errs, fileError("take back", name, hidden(err)))
		case err != nil || socket:
			// It has become something else, or is gone.
		case l.Inode != 0 && inode(fi) != l.Inode:
			// Somebody put another file there: it holds nothing of ours, or more than ours.
		default:
			errs = append(errs, fileError("take back", name, a.disk.cut(env.Files, name, l.Size)))
		}
	}
	return errors.Join(errs...)
}
