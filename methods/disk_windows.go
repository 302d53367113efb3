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

// openShared opens a file for reading that others write, rename and remove: as os.Open does
// it, nobody could rename it meanwhile.
func openShared(path string) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}
