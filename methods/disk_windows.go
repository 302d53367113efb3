package methods

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

const noWait = 0

// syncDir does nothing: a folder cannot be synced here, its entries last with its files.
func syncDir(*os.File) error { return nil }

// inode is not known from a FileInfo here.
func inode(fs.FileInfo) uint64 { return 0 }

// diskFull reports what this system calls a full disk.
func diskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
