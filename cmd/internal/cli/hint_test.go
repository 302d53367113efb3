package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"

	"steward/client"
)

func TestWhoMayNotIsToldWhoMay(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(path string) error { return &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES} }
	whose := func(path string) string {
		return path + " belongs to " + me.Username + ": run it as that user, as sudo does, or let this one in"
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("read settings: %w", refused(file)), whose(file)},
		{refused(filepath.Join(filepath.Dir(file), "not", "there", "yet")), whose(filepath.Dir(file))},
		{usageError{hinted{refused(file), "steward -help lists the flags"}}, whose(file)},
		{&os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.EACCES}, asAnother},
		{hinted{syscall.EACCES, "a file is not for you"}, "a file is not for you"},
		{hinted{&client.Error{Text: "no", Cause: refused(file)}, "the socket is not for you"}, "the socket is not for you"},
		{hinted{errors.New("no"), "steward help"}, "steward help"},
		{errors.New("no"), ""},
	} {
		if got := hintOf(c.err); got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
}
