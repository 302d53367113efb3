package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestCommandDiesWithItsNode: a command of which the sender is told that it was interrupted, and which may be
// run again, must not go on meanwhile.
func TestCommandDiesWithItsNode(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	pipe := filepath.Join(f.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f.send([]map[string]any{{"toNode": "ship1", "method": "REQCliCommand", "methodTimeout": 1000,
		"data": []string{"sh", "-c", `echo runs >"$1"; exec sleep 1000 >"$1"`, "sh", pipe}}})
	r, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that it opens at once, whoever is there
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, len("runs\n"))); err != nil {
		t.Fatal(err)
	}
	f.kill("ship1")
	// The command alone has it open for writing now: its end is the end of the file.
	last, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	limit, _ := f.ctx.Deadline()
	if err := last.SetReadDeadline(limit); err != nil {
		t.Fatal(err)
	}
	if n, err := last.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the command goes on: %v", err)
	}
}
