package methods

import "syscall"

// dieWithNode has the kernel kill a command when its node is killed: of that command the sender is told
// that it was interrupted, and it may be run again. What the command itself has started is not killed.
//
// To the kernel it is the thread that dies. A Go program ends none of its threads but those that a goroutine
// has locked and not unlocked; nothing in this program does that.
func dieWithNode(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
