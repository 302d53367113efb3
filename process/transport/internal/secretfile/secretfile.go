// Package secretfile looks whether a file with a secret is one.
package secretfile

import (
	"fmt"
	"os"
	"runtime"
)

// Check returns an error when there is no file at path, or when others than its owner may
// read or change it. what names the file for the error.
func Check(what, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if info.IsDir() {
		return fmt.Errorf("%s %s: it is a folder", what, path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" { // which knows no such modes
		return fmt.Errorf("%s %s: its mode %04o lets others in; run: chmod 600 %s", what, path, mode, path)
	}
	return nil
}
