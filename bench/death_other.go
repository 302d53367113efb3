//go:build !linux

package main

import "os/exec"

// dieWithParent does nothing here: when this process is killed, its children stay.
func dieWithParent(*exec.Cmd) {}
