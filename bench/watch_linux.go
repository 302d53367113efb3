package main

import (
	"context"
	"os"
	"syscall"
)

// watcher tells when a file has been written to. A timer would be late by up to a millisecond,
// which is much of what is measured.
type watcher struct{ events *os.File }

// watchFile begins to watch a file. To end that takes the kernel ten milliseconds and more, so one
// watcher serves a whole measurement.
func watchFile(path string) (*watcher, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &watcher{os.NewFile(uintptr(fd), "inotify")}
	if _, err := syscall.InotifyAddWatch(fd, path, syscall.IN_MODIFY); err != nil {
		_ = w.close()
		return nil, &os.PathError{Op: "watch", Path: path, Err: err}
	}
	return w, nil
}

// until calls look at once, and again each time the file has been written to, until it returns true.
func (w *watcher) until(ctx context.Context, look func() bool) error {
	defer context.AfterFunc(ctx, func() { _ = w.close() })()
	for b := make([]byte, 4096); !look(); {
		if _, err := w.events.Read(b); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) close() error { return w.events.Close() }
