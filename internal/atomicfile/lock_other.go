//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package atomicfile

// Lock does nothing: here one who changes files has to know that nobody else does.
func Lock(string) (unlock func(), err error) { return func() {}, nil }
