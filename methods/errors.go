package methods

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"steward/errorkernel"
	"steward/message"
)

// errorLogFolder has a folder for each node, with an errorLogFile in it.
const (
	errorLogFolder = "errorLog"
	errorLogFile   = "error.log"
)

// ErrorLog reads what REQErrorLog has written, in a data folder.
type ErrorLog struct {
	Folder string       // the data folder
	Node   message.Node // of whom the errors are; empty: of all
	Stderr bool         // with the lines about commands that ended well and wrote on stderr
	Log    *slog.Logger // what does not work and is tried again
}

// Last calls do with the last n lines, or with all when n is 0, sorted by the time at which they were sent.
func (e ErrorLog) Last(n int, do func(line string) error) error {
	nodes, err := e.Nodes()
	if err != nil {
		return err
	}
	return e.last(nodes, nil, n, do)
}

// last is Last for these nodes; of those that are followed, it is about what comes before that.
func (e ErrorLog) last(nodes []string, tails map[string]*tail, n int, do func(line string) error) error {
	var lines []string
	for _, node := range nodes {
		last, err := e.lastLines(e.file(node), n, tails[node])
		if err != nil {
			return err
		}
		lines = append(lines, last...)
		if slices.Sort(lines); n > 0 { // a line begins with its time
			lines = slices.Delete(lines, 0, max(0, len(lines)-n))
		}
	}
	for _, line := range lines {
		if err := do(line); err != nil {
			return err
		}
	}
	return nil
}

// Follow is Last, except that 0 is none, and then calls do with each line that is written, until ctx ends. It follows files that are
// rotated, and nodes that are new.
func (e ErrorLog) Follow(ctx context.Context, n int, do func(line string) error) error {
	tails := map[string]*tail{}
	defer func() {
		for _, t := range tails {
			t.close()
		}
	}()
	emit := func(_ context.Context, body, _ []byte) error {
		for line := range bytes.Lines(body) {
			if !e.has(line) {
				continue
			}
			if err := do(string(bytes.TrimSuffix(line, []byte{'\n'}))); err != nil {
				return err
			}
		}
		return nil
	}
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		nodes, err := e.Nodes()
		if err != nil {
			return err
		}
		for _, node := range nodes {
			if tails[node] != nil {
				continue
			}
			t := &tail{path: e.file(node), emit: emit, log: e.Log}
			tails[node] = t
			if first {
				if err := t.begin(ctx); err != nil {
					return err
				}
			}
		}
		if first && n > 0 {
			if err := e.last(nodes, tails, n, do); err != nil {
				return err
			}
		}
		for _, node := range nodes {
			if err := tails[node].poll(ctx); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// aboutStderr is in a line about a command that ended well and wrote on stderr, before what comes from the command.
var aboutStderr = []byte(" class=" + errorkernel.WroteStderr.String() + " ")

// has reports whether a line is among those that are read.
func (e ErrorLog) has(line []byte) bool {
	head, _, _ := bytes.Cut(line, []byte(" cause="))
	return e.Stderr || !bytes.Contains(head, aboutStderr)
}

// count returns how many whole lines of b are among those that are read; the first line of b may not be whole.
func (e ErrorLog) count(b []byte) (n int) {
	for line := range bytes.Lines(b) {
		if e.has(line) && bytes.HasSuffix(line, []byte{'\n'}) {
			n++
		}
	}
	return n
}

func (e ErrorLog) file(node string) string {
	return filepath.Join(e.Folder, errorLogFolder, node, errorLogFile)
}

// Nodes returns of whom there are errors, sorted; of one, whether there are or not.
func (e ErrorLog) Nodes() ([]string, error) {
	if e.Node != "" {
		return []string{string(e.Node)}, nil
	}
	folders, err := os.ReadDir(filepath.Join(e.Folder, errorLogFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var nodes []string
	for _, f := range folders {
		if f.IsDir() {
			nodes = append(nodes, f.Name())
		}
	}
	return nodes, nil
}

// lastLines returns the last n lines, or all when n is 0, of a file and those that were rotated before it;
// of one that is followed, those before the place at which that began.
func (e ErrorLog) lastLines(path string, n int, t *tail) ([]string, error) {
	if t != nil && len(t.files) == 0 {
		return nil, nil // it was not there, and is followed from its first line on
	}
	var lines []string
	for i := 0; i <= rotateKeep; i++ {
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		older, err := e.fileLines(name, n-len(lines), n == 0, &t)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if lines = append(older, lines...); n > 0 && len(lines) >= n {
			break
		}
	}
	return lines, nil
}

// fileLines returns the last n whole lines of a file, or all. It reads no more of it than it has to. As long as t is
// not nil, the file may be the one that it follows, or newer.
func (e ErrorLog) fileLines(path string, n int, all bool, t **tail) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := fi.Size()
	if *t != nil {
		followed := (*t).files[0]
		if !os.SameFile(followed.info, fi) {
			return nil, nil
		}
		size, *t = min(size, followed.Offset), nil
	}
	var b []byte
	for from := size; from > 0 && (all || e.count(b) <= n); {
		piece := make([]byte, min(from, max(64<<10, int64(len(b)))))
		from -= int64(len(piece))
		if _, err := f.ReadAt(piece, from); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		b = append(piece, b...)
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	var lines []string
	for line := range bytes.Lines(b) {
		if e.has(line) {
			lines = append(lines, string(bytes.TrimSuffix(line, []byte{'\n'})))
		}
	}
	if !all {
		lines = lines[max(0, len(lines)-n):]
	}
	return lines, nil
}
