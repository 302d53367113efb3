package methods

import (
	"context"
	"os/exec"
	"sync"
)

// running are the commands of this program whose process groups would outlive it. It is one
// for all nodes in it, as the end of the program is.
var running groups

type groups struct {
	mu   sync.RWMutex // held for reading while a command is started, and for writing from the kill on
	over bool         // guarded by mu
	all  sync.Map     // of *exec.Cmd
}

// start starts a command, unless KillCommands has been called.
func (g *groups) start(cmd *exec.Cmd) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.over {
		return context.Canceled
	}
	err := cmd.Start()
	if err == nil {
		g.all.Store(cmd, nil)
	}
	return err
}

// ended is called when a command has been waited for: its number may be that of another then.
func (g *groups) ended(cmd *exec.Cmd) { g.all.Delete(cmd) }

// KillCommands kills the process groups of all commands that run in this program, and lets none
// start any more. It is for a program that is about to end without stopping its nodes.
func KillCommands() {
	running.mu.Lock()
	defer running.mu.Unlock()
	running.over = true
	running.all.Range(func(cmd, _ any) bool {
		killGroup(cmd.(*exec.Cmd).Process)
		return true
	})
}
