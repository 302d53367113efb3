package methods

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"steward/message"
)

// partsKept is how long the parts of a reply are kept whose end never came.
const partsKept = 30 * 24 * time.Hour

// assembly is a payload on its way into one file: the parts of one reply, or a message of
// one part. Until it is whole it is a hidden file beside its target, whose name tells the
// number of parts in it; so a part that follows on a missing one is noticed.
type assembly struct {
	root   *os.Root
	target string
	id     message.ID
	from   uint32   // the first part that is handled now
	parts  [][]byte // that and the following ones
	whole  bool     // the last part is among them

	calls []int // their places in the batch
}

func (p *assembly) next() uint32 { return p.from + uint32(len(p.parts)) }

// file returns where the first n parts are.
func (p *assembly) file(n uint32) string { return partsFile(p.target, p.id, n) }

func partsFile(target string, id message.ID, n uint32) string {
	return path.Join(path.Dir(target), fmt.Sprintf(".steward-%s-%d.part", id, n))
}

// partsMark is what it takes to take back an assembly.
type partsMark struct {
	Target []byte // not a string: JSON would not keep every byte of one
	ID     message.ID
	From   uint32
	To     uint32 // the number of parts after it, 0 when it becomes the target
	Size   int64  // of the parts before From
	Inode  uint64 `json:",omitempty"`
}

// errNoParts is what a part gets whose forerunners are not there.
var errNoParts = errors.New("parts of the reply before this one are missing")

// note looks at what is there before p is carried out.
func (p *assembly) note() (partsMark, error) {
	m := partsMark{Target: []byte(p.target), ID: p.id, From: p.from}
	if !p.whole {
		m.To = p.next()
	}
	if p.from == 0 {
		return m, nil
	}
	fi, err := p.root.Lstat(p.file(p.from))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, errNoParts
	case err != nil:
		return m, err
	case !fi.Mode().IsRegular():
		return m, notAFile(fi.Mode())
	}
	m.Size, m.Inode = fi.Size(), inode(fi)
	return m, nil
}

// assemble adds the parts of p to those that are there and, when it is whole, puts it in
// place of its target in one step. After an error nothing has changed.
func (d disk) assemble(p *assembly) error {
	if err := d.parents(p.root, p.target); err != nil {
		return err
	}
	m, err := p.note()
	if err != nil {
		return err
	}
	if p.from == 0 && !p.whole {
		d.sweep(p.root, path.Dir(p.target))
	}
	to := p.target
	if !p.whole {
		to = p.file(p.next())
	}
	err = d.extend(p.root, p.file(p.from), m.Size, p.parts...)
	if err == nil {
		err = d.rename(p.root, p.file(p.from), to)
	}
	if err != nil {
		if again := d.takeApart(p.root, m); again != nil {
			err = fmt.Errorf("%w; and it could not be taken back: %w", err, reason(again))
		}
	}
	return err
}

// takeApart brings the parts back to what they were when m was noted, wherever assemble
// was cut off. A target that was replaced stays, since it is going to be replaced by the
// same again.
func (d disk) takeApart(root *os.Root, m partsMark) error {
	target := string(m.Target)
	before, after := partsFile(target, m.ID, m.From), partsFile(target, m.ID, m.To)
	exists := func(name string) (bool, error) {
		fi, err := root.Lstat(name)
		if err != nil {
			return false, hidden(err)
		}
		ours := m.Inode == 0 || inode(fi) == m.Inode || name == before
		return ours && fi.Mode().IsRegular() && fi.Size() >= m.Size, nil
	}
	if m.From == 0 {
		var errs []error
		for _, name := range []string{before, after} {
			there, err := exists(name)
			if there {
				err = d.remove(root, name)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	if there, err := exists(before); there || err != nil {
		return errors.Join(err, d.cut(root, before, m.Size))
	}
	if m.To > 0 {
		there, err := exists(after)
		if !there || err != nil {
			return err
		}
		if err := d.cut(root, after, m.Size); err != nil {
			return err
		}
		return d.rename(root, after, before)
	}
	if there, err := exists(target); !there || err != nil {
		return err
	}
	return d.copyHead(root, target, before, m.Size)
}

// copyHead copies the first size bytes of a file into a new one beside it, which appears
// in one step.
func (d disk) copyHead(root *os.Root, from, to string, size int64) error {
	f, err := openFile(root, from)
	if err != nil {
		return err
	}
	defer f.Close()
	temp := to + ".copy"
	if err := d.step(root, "copy", temp); err != nil {
		return err
	}
	t, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|noWait, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(t, f, size)
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return errors.Join(err, d.remove(root, temp))
	}
	return d.rename(root, temp, to)
}

// sweep removes from a folder the parts of replies that nobody has added to for long: their
// sender gave up. It is tidying, so errors are no matter.
func (d disk) sweep(root *os.Root, folder string) {
	f, err := root.OpenFile(folder, os.O_RDONLY|noWait, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(256)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".steward-") || !strings.Contains(e.Name(), ".part") {
				continue
			}
			if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > partsKept {
				_ = d.remove(root, path.Join(folder, e.Name()))
			}
		}
		if err != nil {
			return
		}
	}
}
