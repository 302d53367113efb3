package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// asAnother is what can be done about something that this user may not do.
const asAnother = "run it as a user who may do that: the one whom the node runs as, or root"

// denied says the same of a file or folder that this user may not open; nothing about any other error.
func denied(err error) string {
	no := new(fs.PathError)
	if !errors.As(err, &no) || !errors.Is(no.Err, fs.ErrPermission) {
		return ""
	}
	// What cannot be seen, or is not there yet, is kept from this user by the folder above it.
	path := no.Path
	info, err := os.Stat(path)
	for err != nil && path != filepath.Dir(path) {
		path = filepath.Dir(path)
		info, err = os.Stat(path)
	}
	if err != nil {
		return asAnother
	}
	return fmt.Sprintf("%s belongs to %s: run it as that user, as sudo does, or let this one in", path, ownerOf(info))
}
