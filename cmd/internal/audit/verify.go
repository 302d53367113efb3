package audit

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Finding is something that Verify has to say of a place in a log.
type Finding struct {
	File string
	Line int // counts from 1
	Text string
	// Harmless: a crash does that, too.
	Harmless bool
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// Result is what Verify has found.
type Result struct {
	Files     int
	Lines     uint64 // of the chain
	Unchained uint64 // before it, written by a version that knew none
	// First is the number of the first line, 1 when the whole log is there.
	First uint64
	Head  Head
	// Findings are in the order of the log, the first mostFindings of them. Bad counts those that no
	// crash explains.
	Findings []Finding
	Bad      int
}

const mostFindings = 100

// Files returns the files of a log that are there, in any order. Those that were set aside may
// have been compressed with gzip.
func Files(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)); ok && rotated.MatchString(rest) {
			files = append(files, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, noLog(path)
	}
	return files, nil
}

func noLog(path string) error {
	return fmt.Errorf("there is no audit log %s: %w", path, fs.ErrNotExist)
}

var rotated = regexp.MustCompile(`^(\.[0-9]+)?(\.gz)?$`)

// HeadOf returns the last line of a log, of which path is the file that is written.
func HeadOf(path string) (Head, error) {
	for _, p := range []string{path, path + ".1"} { // it may just have been rotated
		if c, ok, err := tailOf(p); ok || err != nil {
			return c.head, err
		}
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return Head{}, noLog(path)
	}
	return Head{}, fmt.Errorf("there is no line with a hash in %s", path)
}

// Verify reads the files of one log, in any order, and says what was changed, removed, put in or
// moved. What was cut off at the end can only be seen with kept, an earlier head of the same log;
// nil is none.
func Verify(files []string, kept *Head) (Result, error) {
	files, err := inOrder(files)
	if err != nil {
		return Result{}, err
	}
	v := verifier{kept: kept, span: sha256.New()}
	v.Files = len(files)
	for _, name := range files {
		if err := v.file(name); err != nil {
			return Result{}, err
		}
	}
	v.end()
	return v.Result, nil
}

// opened reads a file, compressed or not.
func opened(name string, read func(*bufio.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := read(bufio.NewReaderSize(r, 256<<10)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// inOrder sorts files by the number of their first line. Those without one come first, by the number
// in their name, the oldest having the highest.
func inOrder(files []string) ([]string, error) {
	type file struct {
		name  string
		first uint64
		age   int
	}
	list := make([]file, 0, len(files))
	for _, name := range files {
		f := file{name: name}
		parts := strings.Split(strings.TrimSuffix(name, ".gz"), ".")
		f.age, _ = strconv.Atoi(parts[len(parts)-1]) // else it is the one that is written
		err := opened(name, func(r *bufio.Reader) error {
			for {
				line, err := r.ReadBytes('\n')
				if n, _, ok := parseLink(line); ok {
					f.first = n
					return nil
				}
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
			}
		})
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	slices.SortStableFunc(list, func(a, b file) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.age, a.age))
	})
	names := make([]string, len(list))
	for i, f := range list {
		names[i] = f.name
	}
	return names, nil
}

// verifier walks along a log.
type verifier struct {
	Result
	kept *Head
	met  bool // the line with its number is there

	span    hash.Hash // of what the next line has the hash of
	alone   sum       // the hash of the last line of the chain without what follows it
	last    Finding   // its place
	odd     []Finding // what follows it and has no hash
	suspect *Finding  // a line of which the next one says whether it was changed, or the one before it
}

func (v *verifier) file(name string) error {
	return opened(name, func(r *bufio.Reader) error {
		for n := 1; ; n++ {
			line, err := r.ReadBytes('\n')
			if len(line) > 0 {
				v.line(Finding{File: name, Line: n}, line)
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

func (v *verifier) say(f Finding, text string) {
	f.Text = text
	if !f.Harmless {
		v.Bad++
	}
	if len(v.Findings) < mostFindings {
		v.Findings = append(v.Findings, f)
	}
}

func (v *verifier) line(at Finding, line []byte) {
	n, prev, ok := parseLink(line)
	if !ok {
		v.without(at, line)
		return
	}
	switch {
	case v.Lines > 0:
		v.follow(at, n, prev)
	case v.Unchained > 0 && (n != 1 || prev != v.sum()):
		v.say(at, "the lines before this one have no hash, and are not those that were there when it was written")
		fallthrough
	default:
		v.First = n
	}
	v.Lines++
	v.alone = sha256.Sum256(line)
	v.Head, v.last = Head{n, v.alone}, at
	v.span.Reset()
	_, _ = v.span.Write(line)
	if v.kept != nil && n == v.kept.N {
		if v.met = true; v.alone != v.kept.Hash {
			v.say(at, "this line is not the one whose head was kept")
		}
	}
}

// without takes a line that has no hash.
func (v *verifier) without(at Finding, line []byte) {
	_, parses, _ := Parse(line)
	switch {
	case v.Lines == 0:
		v.Unchained++
		v.span.Reset()
	case parses: // what a crash leaves of a line does not
		v.say(at, "this line was put in or changed: it has no hash, as those before it have")
	default:
		v.odd = append(v.odd, at)
	}
	_, _ = v.span.Write(line) // never fails
}

func (v *verifier) sum() (s sum) {
	v.span.Sum(s[:0])
	return s
}

// follow says what is wrong between the last line of the chain and the next one, if anything is.
func (v *verifier) follow(at Finding, n uint64, prev sum) {
	odd := v.odd
	v.odd = nil
	suspect := v.suspect
	v.suspect = nil
	whole := prev == v.sum()
	if suspect != nil && !whole && n == v.Head.N+1 && len(odd) == 0 {
		v.say(v.last, "this line was changed") // what it says of the one before it, too
		return
	}
	if suspect != nil {
		v.say(*suspect, "this line was changed")
	}
	switch {
	case whole:
		for _, f := range odd {
			f.Harmless = true
			v.say(f, "torn by a crash: only a part of this line was written")
		}
	case prev == v.alone:
		for _, f := range odd {
			v.say(f, "this line was put in")
		}
	case n == 1:
		v.say(at, "a new chain begins here: the log before it had been taken away when this line was written")
	case n <= v.Head.N:
		v.say(at, fmt.Sprintf("out of order: number %d comes after number %d", n, v.Head.N))
	case len(odd) > 0:
		for _, f := range odd {
			v.say(f, "this line was changed or put in")
		}
	case n > v.Head.N+1:
		v.say(at, fmt.Sprintf("before this line %d are missing: number %d comes after number %d", n-v.Head.N-1, n, v.Head.N))
	default:
		last := v.last
		v.suspect = &last
	}
}

// end is called behind the last line.
func (v *verifier) end() {
	if v.suspect != nil {
		v.say(*v.suspect, "this line or the one after it was changed")
	}
	for i, f := range v.odd {
		f.Harmless = true
		if i == len(v.odd)-1 {
			v.say(f, "the last line is not whole: it is being written, or was torn by a crash")
		} else {
			v.say(f, "torn by a crash: only a part of this line was written")
		}
	}
	switch {
	case v.kept == nil || v.met:
	case v.Lines == 0 || v.kept.N > v.Head.N:
		v.say(v.last, fmt.Sprintf("lines are missing at the end: it ends with number %d, the head that was kept has %d", v.Head.N, v.kept.N))
	case v.kept.N < v.First:
		v.say(v.last, fmt.Sprintf("the line of the head that was kept, number %d, is no longer here: the log begins with number %d", v.kept.N, v.First))
	default:
		v.say(v.last, fmt.Sprintf("the line of the head that was kept, number %d, is missing", v.kept.N))
	}
}

// errNothing is what there is to verify in a log of no lines.
var errNothing = errors.New("there is no line in it")

// Check is Verify with its result as an error where something is wrong.
func (r Result) Check() error {
	switch {
	case r.Bad > 0:
		return fmt.Errorf("the audit log is not what was written: %d findings", r.Bad)
	case r.Lines+r.Unchained == 0:
		return errNothing
	}
	return nil
}
