package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"time"

	"steward/client"
	"steward/internal/logattr"
)

const (
	// askedKept is how long a reply is kept that was not fetched: its command did not want to wait, or could not any more.
	askedKept = 30 * 24 * time.Hour
	// askedEvery is how often such replies are looked for.
	askedEvery = time.Hour
)

// sweepAsked removes, until ctx ends, replies that nobody has fetched and nothing was added to for long.
func sweepAsked(ctx context.Context, files *os.Root, log *slog.Logger) {
	tick := time.NewTicker(askedEvery)
	defer tick.Stop()
	for {
		n, err := removeAsked(files, time.Now().Add(-askedKept))
		if n > 0 {
			log.Info("replies that nobody has fetched are removed", "folders", n, "kept", askedKept)
		}
		if err != nil {
			log.Warn("old replies stay", logattr.Err(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// removeAsked removes the folders of replies in which nothing is newer than before, and returns how many.
func removeAsked(files *os.Root, before time.Time) (n int, err error) {
	folders, err := fs.ReadDir(files.FS(), client.AskedFolder)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var errs []error
	for _, f := range folders {
		name := path.Join(client.AskedFolder, f.Name())
		last, err := lastChange(files, name)
		if err == nil && last.Before(before) {
			if err = files.RemoveAll(name); err == nil {
				n++
			}
		}
		if !errors.Is(err, fs.ErrNotExist) { // its command is at it
			errs = append(errs, err)
		}
	}
	return n, errors.Join(append(errs, err)...)
}

// lastChange returns when something at or below a path was changed last.
func lastChange(files *os.Root, name string) (last time.Time, err error) {
	err = fs.WalkDir(files.FS(), name, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
		return err
	})
	return last, err
}
