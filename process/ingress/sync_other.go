//go:build !unix

package ingress

import "os"

// noWait is nothing where there are no named pipes in folders.
const noWait = 0

// syncFolder does nothing on systems where a folder cannot be opened.
func syncFolder(*os.Root, string) error { return nil }
