//go:build !unix

package atomicfile

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: owners are inherited from the folder here.
func keepOwner(*os.File, fs.FileInfo) {}

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(string) error { return nil }
