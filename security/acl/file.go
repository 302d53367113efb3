package acl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"steward/internal/atomicfile"
	"steward/message"
)

// FileOptions are those of a [File]. All but Required are needed.
type FileOptions struct {
	Path string
	// Required: it is an error when there is no file at the start.
	Required bool
	// Methods are those that there are.
	Methods []message.Method
	// Report is told why the file cannot be used, once for each reason, and nil when it can be again.
	// It must not call back.
	Report func(error)
}

// File follows the file of the rules. What was in it when it could be used last is in force, so that
// neither a mistake in it nor its loss opens or closes anything.
type File struct {
	opts FileOptions

	mu      sync.Mutex // guards what follows
	rules   *Rules     // in force; nil for none
	seen    fs.FileInfo
	settled bool   // what was seen cannot change any more without a mark on it
	problem string // that was reported last
}

// Open reads the file. One that cannot be read is an [*Error].
func Open(opts FileOptions) (*File, error) {
	if opts.Path == "" || opts.Report == nil {
		return nil, errors.New("rules: an option is missing")
	}
	f := &File{opts: opts}
	err := f.look()
	if errors.Is(err, fs.ErrNotExist) && !opts.Required {
		return f, nil
	}
	var mistake *Error
	if err != nil && !errors.As(err, &mistake) {
		err = &Error{File: opts.Path, What: "the rules cannot be read: " + err.Error()}
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Path is where the file is.
func (f *File) Path() string { return f.opts.Path }

// Now returns the rules in force, nil for none. It looks whether the file has changed.
func (f *File) Now() *Rules {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow()
	return f.rules
}

// Update puts a text in the place of the file and in force. Its version has to be higher than the one
// in force, before; the same text again changes nothing. check says whether the rules may be replaced by
// those. The error wraps [message.ErrInvalid] when the text cannot be used.
func (f *File) Update(text string, check func(next *Rules) error) (next *Rules, before int64, err error) {
	next, err = Parse("the new rules", text, f.opts.Methods)
	if err != nil {
		return nil, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow()
	again := false
	if f.rules != nil {
		before, again = f.rules.Version, f.rules.text == text
	}
	switch {
	case next.Version < before:
		return nil, before, fmt.Errorf("version %d of the rules is older than version %d, which is in force", next.Version, before)
	case next.Version == before && !again:
		return nil, before, fmt.Errorf("version %d of the rules is in force with another text; a change needs a higher number", before)
	case again && f.problem == "":
		return next, before, nil
	}
	if err := check(next); err != nil {
		return nil, before, err
	}
	if err := write(f.opts.Path, text); err != nil {
		return nil, before, fmt.Errorf("write rules: %w", err)
	}
	f.rules, f.seen = next, nil
	f.follow()
	return next, before, nil
}

// follow is called with mu held, as are all below it.
func (f *File) follow() {
	err := f.look()
	if errors.Is(err, fs.ErrNotExist) {
		f.seen = nil
		if err = nil; f.rules != nil {
			err = errors.New("the file is gone")
		}
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if problem == f.problem {
		return
	}
	f.problem = problem
	switch {
	case err == nil:
		f.opts.Report(nil)
	case f.rules == nil:
		f.opts.Report(fmt.Errorf("rules of %s are not in force: %w", f.opts.Path, err))
	default:
		f.opts.Report(fmt.Errorf("rules of %s are not read, version %d stays in force: %w", f.opts.Path, f.rules.Version, err))
	}
}

// young is how long after a change of a file its time need not show the next one: clocks of file
// systems are coarse.
const young = 2 * time.Second

// look reads the file if it is another one than the one that was seen last.
func (f *File) look() error {
	info, err := os.Stat(f.opts.Path)
	if err != nil {
		return err
	}
	same := f.seen != nil && os.SameFile(info, f.seen) && info.Size() == f.seen.Size() && info.ModTime().Equal(f.seen.ModTime())
	if same && f.settled {
		if f.problem != "" {
			return errors.New(f.problem)
		}
		return nil
	}
	text, err := readFile(f.opts.Path, info)
	if err != nil {
		return err
	}
	f.seen, f.settled = info, time.Since(info.ModTime()) > young
	if f.rules != nil && text == f.rules.text {
		return nil
	}
	rules, err := Parse(f.opts.Path, text, f.opts.Methods)
	if err != nil {
		return err
	}
	f.rules = rules
	return nil
}

// write puts a text in the place of the file, in one step. A symbolic link stays one.
func write(path, text string) error {
	path, err := atomicfile.Target(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Replace(path, []byte(text))
}

func readFile(path string, info fs.FileInfo) (string, error) {
	if !info.Mode().IsRegular() { // a pipe would keep the node waiting
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	return string(text), err
}
