//go:build !unix

package kvstore_test

// systemChildren are those that take this system.
var systemChildren map[string]func(path string) error
