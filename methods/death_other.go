//go:build unix && !linux

package methods

import "syscall"

// dieWithNode does nothing: the commands of a node that is killed go on without it.
func dieWithNode(*syscall.SysProcAttr) {}
