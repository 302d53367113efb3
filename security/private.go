package security

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// CheckPrivate returns an error when there is no file at path, or when others than its owner
// may read or write it: then what is in it proves nothing.
func CheckPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return private(path, info)
}

// private is CheckPrivate for a file that is known.
func private(path string, info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	case runtime.GOOS != "windows" && info.Mode()&0o077 != 0:
		return fmt.Errorf("%s can be read by others than its owner, so that it proves nothing; run: chmod 600 %s", path, path)
	}
	return nil
}
