//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// killGroup kills a process and those of its group.
func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// setApart has a program run in a group of its own.
func setApart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
