package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/message"
	"steward/message/wire"
)

// FileOptions are what the ways in that read files need: [Folder], [InFile] and [Startup].
type FileOptions struct {
	// Path is the folder, or the file of an InFile.
	Path string
	// Resolve checks one array, as that of a Socket does.
	Resolve func([]wire.Draft) ([]message.Message, error)
	// Stamp gives a message the id under which Accept takes it.
	Stamp func(*message.Message)
	// Accept returns when the messages are on disk under the ids that they have, or an error
	// when none of them is accepted. An error that wraps message.ErrInvalid is final; after any
	// other the same messages are handed in again later, under new ids.
	Accept func(context.Context, []message.Message) ([]message.ID, error)
	// Accepted reports whether a message with that id was accepted, also by an earlier run of
	// this node.
	Accepted func(message.ID) (bool, error)
	Report   errorkernel.Reporter
	Log      *slog.Logger

	Limits wire.Limits
	// Poll is the time between two looks; 0 means 500 milliseconds.
	Poll time.Duration
	// Settle is how long nothing may have changed before a file counts as complete; 0 means
	// one second.
	Settle time.Duration
	// MaxFile bounds a file in a folder, in bytes; 0 means 16 MiB.
	MaxFile int64
}

func (o *FileOptions) check(what string) error {
	if o.Path == "" || o.Resolve == nil || o.Stamp == nil || o.Accept == nil || o.Accepted == nil || o.Report == nil || o.Log == nil {
		return fmt.Errorf("%s: an option is missing", what)
	}
	if o.Poll < 0 || o.Settle < 0 || o.MaxFile < 0 {
		return fmt.Errorf("%s: a limit is negative", what)
	}
	setDefault(&o.Poll, 500*time.Millisecond)
	setDefault(&o.Settle, time.Second)
	setDefault(&o.MaxFile, 16<<20)
	o.Log = o.Log.With(logattr.Process(what))
	return nil
}

// maxPerFile bounds the messages of one file, which are accepted in one go.
const maxPerFile = 100_000

// errNotFile is what is said of anything but a regular file.
var errNotFile = errors.New("it is not a regular file")

// openRegular opens a file that is neither a link nor a pipe nor anything else that could
// lead elsewhere or hold up its reader.
func openRegular(root *os.Root, name string, flag int) (*os.File, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: %w", name, errNotFile)
	}
	f, err := root.OpenFile(name, flag|noWait, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("open %s: it was replaced meanwhile", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// contentError is what is wrong with what a file holds: to read it again would not help.
type contentError struct{ error }

func (e contentError) Unwrap() error { return e.error }

// messages reads and checks a whole file. The error is a contentError, or that of the disk.
func (o *FileOptions) messages(root *os.Root, name string) ([]message.Message, error) {
	f, err := openRegular(root, name, os.O_RDONLY)
	if errors.Is(err, errNotFile) {
		return nil, contentError{err}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() > o.MaxFile {
		return nil, contentError{fmt.Errorf("the file has %d bytes, the limit is %d; send it in parts", info.Size(), o.MaxFile)}
	}
	dec := wire.NewDecoder(io.LimitReader(f, o.MaxFile), o.Limits)
	var all []message.Message
	for n := 1; ; n++ {
		drafts, err := dec.Next()
		if err == io.EOF && n == 1 {
			return nil, contentError{errors.New("there is no message in it")}
		}
		if err == io.EOF {
			return all, nil
		}
		var some []message.Message
		if err == nil {
			some, err = o.Resolve(drafts)
		}
		if err == nil && len(all)+len(some) > maxPerFile {
			err = fmt.Errorf("the file has more than %d messages; send it in parts", maxPerFile)
		}
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			return nil, err
		}
		if err != nil {
			return nil, contentError{fmt.Errorf("array %d: %w", n, err)}
		}
		all = append(all, some...)
	}
}

// stamp gives messages their ids, and returns the first that the store will know: the zero
// id when no message wants an ACK, because such ones are not kept.
func (o *FileOptions) stamp(msgs []message.Message) (first message.ID) {
	for i := range msgs {
		o.Stamp(&msgs[i])
		if first.IsZero() && msgs[i].ACKTimeout > 0 {
			first = msgs[i].ID
		}
	}
	return first
}

// setOrigin notes where messages come from.
func setOrigin(msgs []message.Message, origin string) {
	for i := range msgs {
		msgs[i].Origin = origin
	}
}

// settled reports whether messages that were noted under their first id have been handed
// in. Those that nobody acknowledges are sent once at most: begun counts as done.
func (o *FileOptions) settled(first message.ID) (bool, error) {
	if first.IsZero() {
		return true, nil
	}
	return o.Accepted(first)
}

// refused tells of input that is not accepted.
func (o *FileOptions) refused(what string, err error) {
	o.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: what, Err: fmt.Errorf("%s: %w", o.Path, err)})
}

// retry waits after Accept has failed for a reason that may pass, longer each time.
type retry struct{ wait time.Duration }

func (r *retry) after(ctx context.Context, o *FileOptions, what string, err error) {
	o.Report.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: what,
		Err: fmt.Errorf("%s: not accepted yet, it will be tried again: %w", o.Path, err)})
	r.wait = min(max(2*r.wait, time.Second), 30*time.Second)
	pause(ctx, r.wait)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// maxNames bounds the files of a folder that are looked at in one go.
const maxNames = 1000

// names returns the names of the regular files in a folder, in order, the first maxNames of
// them. Names that begin with a dot are left out: so are files on their way called.
func names(root *os.Root, folder string) ([]string, error) {
	dir, err := root.OpenFile(folder, os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var list []string
	for {
		some, err := dir.ReadDir(maxNames)
		for _, e := range some {
			if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
				list = append(list, e.Name())
			}
		}
		slices.Sort(list)
		list = list[:min(len(list), maxNames)]
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// writeNote puts a value on disk in one step: after a crash there is the old one or the new one.
func writeNote(root *os.Root, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(root, name, append(b, '\n'))
}

func writeFile(root *os.Root, name string, b []byte) error {
	temp := name + ".new"
	if err := removeNote(root, temp); err != nil { // what a crash has left, or somebody has put there
		return err
	}
	f, err := root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	return syncFolder(root, filepath.Dir(name))
}

// readNote reads what writeNote wrote, and reports whether there was something. A note that
// makes no sense is an error: to guess could accept a message twice.
func readNote(root *os.Root, name string, v any) (bool, error) {
	f, err := openRegular(root, name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		defer f.Close()
		err = json.NewDecoder(f).Decode(v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	return true, nil
}

func removeNote(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
