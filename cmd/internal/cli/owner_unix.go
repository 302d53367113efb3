//go:build unix

package cli

import (
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf names the user to whom a file belongs.
func ownerOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "somebody else"
	}
	id := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "the user with the number " + id
}
