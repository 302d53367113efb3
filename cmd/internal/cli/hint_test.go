package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"steward/client"
)

func TestWhoMayNotIsToldWhoMay(t *testing.T) {
	no := &fs.PathError{Op: "open", Path: "etc/config.toml", Err: syscall.EACCES}
	const who = "run it as a user who may do that: the one whom the node runs as, or root"
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("read settings: %w", no), who},
		{usageError{hinted{no, "steward -help lists the flags"}}, who},
		{hinted{&client.Error{Text: "no", Cause: no}, "the socket is not for you"}, "the socket is not for you"},
		{hinted{errors.New("no"), "steward help"}, "steward help"},
		{errors.New("no"), ""},
	} {
		if got := hintOf(c.err); got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
}
