package ingress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"steward/message"
)

const folderName = "read folder"

// Folder takes messages from the files that are put into a folder: each is moved to done/
// below it, or to failed/ with the reason beside it in <name>.error.
//
// A file is read when its name does not begin with a dot and its size and time have not
// changed for a while; several at a time in the order of their names, one after the other.
// Only regular files count. All of a file is accepted in one commit, or nothing of it.
//
// While it is read, a file is in working/, and before it is accepted the id of its first
// message is noted there. So a restart can see in the store what became of it, and no file
// is accepted twice. Messages without ACK are not in the store: after a crash between the
// note and their sending they are not sent.
type Folder struct {
	opt   FileOptions
	root  *os.Root // the folder, during one look at it: what others make of it leads nowhere else
	seen  map[string]sighting
	again retry
}

// sighting is a file as it was seen first in this state.
type sighting struct {
	size  int64
	mtime time.Time
	since time.Time
}

// folderNote is what is noted before a file is accepted.
type folderNote struct {
	File string     `json:"file"` // quoted: a name need not be UTF-8
	ID   message.ID `json:"id"`   // of the first message that the store keeps, or zero
}

// NewFolder checks the options. Nothing is opened before Serve.
func NewFolder(opt FileOptions) (*Folder, error) {
	if err := opt.check(folderName); err != nil {
		return nil, err
	}
	return &Folder{opt: opt, seen: map[string]sighting{}}, nil
}

// folderNotePath is where the note is, in the folder.
var folderNotePath = filepath.Join("working", ".note")

// Serve makes the folders and looks at them until ctx ends. The error is that of the file
// system; it can be served again.
func (f *Folder) Serve(ctx context.Context) error {
	if err := os.MkdirAll(f.opt.Path, 0o700); err != nil {
		return fmt.Errorf("%s: %w", folderName, err)
	}
	unlock, err := f.prepare()
	if err != nil {
		return fmt.Errorf("%s: %w", folderName, err)
	}
	defer unlock()
	if info, err := os.Stat(f.opt.Path); err == nil && info.Mode().Perm()&0o022 != 0 {
		f.opt.Log.Warn("others can write to the folder, and so send messages as this node", "path", f.opt.Path, "mode", info.Mode().Perm().String())
	}
	f.opt.Log.Info("folder is read", "path", f.opt.Path)
	for ctx.Err() == nil {
		n, err := f.look(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", folderName, err)
		}
		if n < maxNames { // else there are more
			pause(ctx, f.opt.Poll)
		}
	}
	return nil
}

// prepare makes the folders below, and keeps other nodes from them.
func (f *Folder) prepare() (unlock func(), err error) {
	root, err := os.OpenRoot(f.opt.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, name := range []string{"working", "done", "failed"} {
		if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if info, err := root.Stat(name); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s is there and is no folder", filepath.Join(f.opt.Path, name))
		}
	}
	unlock, err = lockFolder(filepath.Join(f.opt.Path, "working"))
	if err != nil {
		return nil, fmt.Errorf("each folder is read by one node only: %w", err)
	}
	return unlock, nil
}

// look deals with what is in the folder, and returns how many files it found.
func (f *Folder) look(ctx context.Context) (n int, err error) {
	// Anew each time: another one may have got its name.
	if f.root, err = os.OpenRoot(f.opt.Path); err != nil {
		return 0, err
	}
	defer f.root.Close()
	if err := f.finishWork(ctx); err != nil {
		return 0, err
	}
	ready, err := f.ready()
	if err != nil {
		return 0, err
	}
	for _, name := range ready {
		if ctx.Err() != nil {
			return 0, nil
		}
		if err := f.claim(name); err != nil {
			return 0, err
		}
		if err := f.finishWork(ctx); err != nil {
			return 0, err
		}
	}
	return len(ready), nil
}

// ready returns the files that can be read, in order.
func (f *Folder) ready() ([]string, error) {
	list, err := names(f.root, ".")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	seen := make(map[string]sighting, len(list))
	var ready []string
	for _, name := range list {
		info, err := f.root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue // it has gone, and what came in its place is looked at the next time
		}
		s := sighting{info.Size(), info.ModTime(), now}
		if old, ok := f.seen[name]; ok && old.size == s.size && old.mtime.Equal(s.mtime) {
			s.since = old.since
		}
		seen[name] = s
		// An empty file is one that somebody is about to write.
		if s.size > 0 && now.Sub(s.since) >= f.opt.Settle {
			ready = append(ready, name)
		}
	}
	f.seen = seen
	return ready, nil
}

// claim moves a file to where it is worked on.
func (f *Folder) claim(name string) error {
	err := f.root.Rename(name, filepath.Join("working", name))
	if errors.Is(err, fs.ErrNotExist) { // taken back
		return nil
	}
	return err
}

// finishWork deals with what is in working/: the file that was moved there, or the one that
// the last run has left.
func (f *Folder) finishWork(ctx context.Context) error {
	for ctx.Err() == nil {
		list, err := names(f.root, "working")
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return removeNote(f.root, folderNotePath)
		}
		if err := f.work(ctx, list[0]); err != nil {
			return err
		}
	}
	return nil
}

// work brings one file of working/ to its end, unless the store does not take it now.
func (f *Folder) work(ctx context.Context, name string) error {
	var note folderNote
	found, err := readNote(f.root, folderNotePath, &note)
	if err != nil {
		return err
	}
	if found && note.File == strconv.QuoteToASCII(name) {
		ok, err := f.opt.settled(note.ID)
		if err != nil {
			return err
		}
		if ok {
			return f.end(name, "done")
		}
	}
	msgs, err := f.opt.messages(f.root, filepath.Join("working", name))
	if err == nil && len(msgs) > 0 {
		setOrigin(msgs, folderName+" "+message.Quote(name))
		first := f.opt.stamp(msgs)
		if err := writeNote(f.root, folderNotePath, folderNote{strconv.QuoteToASCII(name), first}); err != nil {
			return err
		}
		if err := syncFolder(f.root, "."); err != nil {
			return err
		}
		_, err = f.opt.Accept(ctx, msgs)
		switch {
		case errors.Is(err, message.ErrInvalid):
			if err := removeNote(f.root, folderNotePath); err != nil {
				return err
			}
			return f.fail(name, err)
		case err != nil:
			f.again.after(ctx, &f.opt, folderName, err)
			return nil
		}
		f.again = retry{}
		f.opt.Log.Info("file accepted", "file", name, "messages", len(msgs), "first_id", msgs[0].ID.String())
	}
	if content := (contentError{}); errors.As(err, &content) {
		return f.fail(name, err)
	}
	if err != nil {
		return err
	}
	return f.end(name, "done")
}

// fail moves a file to failed/, with the reason beside it.
func (f *Folder) fail(name string, reason error) error {
	f.opt.refused(folderName, fmt.Errorf("%s: %w", name, reason))
	target, err := f.free("failed", name)
	if err != nil {
		return err
	}
	if err := writeFile(f.root, filepath.Join("failed", target+".error"), []byte(reason.Error()+"\n")); err != nil {
		return err
	}
	return f.move(name, "failed", target)
}

func (f *Folder) end(name, folder string) error {
	target, err := f.free(folder, name)
	if err != nil {
		return err
	}
	return f.move(name, folder, target)
}

// move takes a file out of working/. The note goes when that is on disk.
func (f *Folder) move(name, folder, target string) error {
	if err := f.root.Rename(filepath.Join("working", name), filepath.Join(folder, target)); err != nil {
		return err
	}
	for _, dir := range []string{folder, "working"} {
		if err := syncFolder(f.root, dir); err != nil {
			return err
		}
	}
	return removeNote(f.root, folderNotePath)
}

// free returns name, or when that is taken, name with the time behind it. A long name is
// cut, so that there is room for more.
func (f *Folder) free(folder, name string) (string, error) {
	const most = 200
	name = name[:min(len(name), most)]
	target := name
	for {
		taken := false
		for _, p := range []string{target, target + ".error"} {
			if _, err := f.root.Lstat(filepath.Join(folder, p)); err == nil {
				taken = true
			} else if !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
		if !taken {
			return target, nil
		}
		target = name + "." + time.Now().UTC().Format("20060102T150405.000000000Z")
	}
}
