package methods

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
)

const (
	rotateAt   = 10 << 20 // bytes
	rotateKeep = 5        // files beside the one being written
)

// rotateFor sets the file of g aside if it would get longer than allowed.
func (a appender) rotateFor(g *fileCalls) error {
	fi, socket, err := kind(g.root, g.name)
	if errors.Is(err, fs.ErrNotExist) || socket || err != nil && !passes(err) {
		return nil // the run finds out, and says what is wrong with it
	}
	if err != nil {
		return err
	}
	size := fi.Size()
	for _, c := range g.chunks {
		size += int64(len(c))
	}
	if size <= a.rotate || fi.Size() == 0 {
		return nil
	}
	return a.disk.rotate(g.root, g.name)
}

// rotate renames name to name.1, what was there to name.2, and so on; the oldest is
// replaced. It begins by closing the first gap, so that one that was cut off half-way is
// ended by the next and no file is lost.
func (d disk) rotate(root *os.Root, name string) error {
	old := func(i int) string {
		if i == 0 {
			return name
		}
		return name + "." + strconv.Itoa(i)
	}
	free := 1
	for free < rotateKeep {
		_, err := root.Lstat(old(free))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		free++
	}
	for i := free; i > 0; i-- {
		if err := d.step(root, "rename", old(i)); err != nil {
			return err
		}
		if err := root.Rename(old(i-1), old(i)); err != nil {
			return err
		}
	}
	return d.syncFolder(root, path.Dir(name))
}
