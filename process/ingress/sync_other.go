//go:build !unix

package ingress

// syncFolder does nothing on systems where a folder cannot be opened.
func syncFolder(string) error { return nil }
