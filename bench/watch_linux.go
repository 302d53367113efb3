package main

import (
	"context"
	"os"
	"syscall"
)

// watchFile calls look at once, and again each time the file has been written to, until it returns
// true. A timer would be late by up to a millisecond, which is much of what is measured.
func watchFile(ctx context.Context, path string, look func() bool) error {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	if _, err := syscall.InotifyAddWatch(fd, path, syscall.IN_MODIFY); err != nil {
		return &os.PathError{Op: "watch", Path: path, Err: err}
	}
	defer context.AfterFunc(ctx, func() { _ = events.Close() })()
	for b := make([]byte, 4096); !look(); {
		if _, err := events.Read(b); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return err
		}
	}
	return nil
}
