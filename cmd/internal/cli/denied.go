package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// denied says what can be done about a file or folder that this user may not read or write, nothing for any other error.
func denied(err error) string {
	no := new(fs.PathError)
	if !errors.As(err, &no) || !errors.Is(no.Err, fs.ErrPermission) {
		return ""
	}
	// What cannot be seen, or is not there yet, is kept from this user by the folder above it.
	for path := no.Path; ; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err == nil {
			return fmt.Sprintf("%s belongs to %s: run the command as that user, as sudo does, or let this one in", path, ownerOf(info))
		}
		if path == filepath.Dir(path) {
			return "run the command as the user whose file that is"
		}
	}
}
