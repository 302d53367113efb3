// Package cli is the command line of steward: it reads arguments, runs one command and
// returns its exit status. Results go to stdout, everything else to stderr.
//
// There is one file per command. Nothing here exits the program or reads its arguments,
// environment or streams other than as handed to [Run], so a test can run any command.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"steward/client"
	"steward/methods"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNoAnswer    = 3 // some nodes did not answer
	exitDenied      = 4
	exitTimeout     = 5
	exitInterrupted = 130
)

// streams are what a command reads and writes, and its environment.
type streams struct {
	in       io.Reader
	out, err io.Writer
	env      []string
}

// command is one sub command.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, s streams) error
	// operations are what it is made of.
	operations []operation
}

func commands() []command {
	return []command{
		several("acl", "show, explain and send the rules of who may do what", aclOperations()...),
		several("audit", "see whether the audit log of the node that runs here is what was written", auditOperations()...),
		single(brokerConfigOperation()),
		single(completionOperation()),
		several("config", "the settings of a node: show them, check them, or print the defaults", configOperations()...),
		single(demoOperation()),
		single(doctorOperation()),
		single(emulateOperation()),
		single(enrollOperation()),
		single(errorsOperation()),
		several("keys", "show the key of this node, and say which keys of others it trusts", keyOperations()...),
		single(manOperation()),
		single(methodsOperation()),
		single(nodesOperation()),
		single(psOperation()),
		several("queue", "what waits, and what was given up: look at it, remove it, send it again", queueOperations()...),
		single(revokeOperation()),
		single(runOperation()),
		single(schemaOperation()),
		single(sendOperation()),
		single(statusOperation()),
		several("token", "make and show the tokens with which new nodes are enrolled", tokenOperations()...),
		single(topOperation()),
		single(versionOperation()),
	}
}

// usageError is an error in the arguments.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// exitStatus is an exit code of which everything has been said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// hinted adds a line of advice to an error.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// hintOf returns the advice that goes with an error, or nothing. Whoever may not open a file is told that first, unless
// it is the client who says so.
func hintOf(err error) string {
	if hint := denied(err); hint != "" && !errors.As(err, new(*client.Error)) {
		return hint
	}
	var h hinted
	if !errors.As(err, &h) && errors.Is(err, fs.ErrPermission) {
		return asAnother
	}
	return h.hint
}

// inEachLine puts what an error is about before each of its lines.
type inEachLine struct {
	about string
	error
}

func (e inEachLine) Error() string {
	return e.about + ": " + strings.ReplaceAll(e.error.Error(), "\n", "\n"+e.about+": ")
}

func (e inEachLine) Unwrap() error { return e.error }

// Run runs steward with args, which do not hold the program's name, and returns its exit
// status. The first interrupt ends the command in order, the second one at once, with the
// process groups of what it has running.
func Run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal(ctx)
	defer stop()
	s := streams{stdin, stdout, stderr, env}
	err := dispatch(ctx, args, s)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	var status exitStatus
	said := errors.As(err, &status)
	if !said {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(stderr, "steward: %s\n", line)
		}
	}
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	if said {
		return int(status)
	}
	if errors.As(err, &usage) {
		return exitUsage
	}
	var with exitError
	if errors.As(err, &with) {
		return with.code
	}
	return exitFailed
}

// sameSignal is how long another signal belongs to the first one: timeout(1) signals its child, and then the group of it.
const sameSignal = time.Second

// untilSignal returns a context that ends with the first interrupt. The second one ends the
// program. stop is called once.
func untilSignal(parent context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	over := make(chan struct{})
	var interrupted atomic.Bool
	go func() {
		select {
		case <-over:
			return
		case <-signals:
			interrupted.Store(true)
			cancel()
		}
		for began := time.Now(); ; {
			select {
			case <-over:
				return
			case sig := <-signals:
				if time.Since(began) < sameSignal {
					continue
				}
				methods.KillCommands()
				endBy(sig)
				return
			}
		}
	}()
	return ctx, func() {
		if !interrupted.Load() { // else one that belongs to the first could still come, and end the program in place of its exit status
			signal.Stop(signals)
		}
		close(over)
		cancel()
	}
}

// endBy ends the program with a signal, as if nobody had waited for that.
func endBy(sig os.Signal) {
	signal.Reset(sig)
	self, err := os.FindProcess(os.Getpid())
	if err == nil && self.Signal(sig) != nil { // not every system knows every signal
		_ = self.Kill()
	}
}

func dispatch(ctx context.Context, args []string, s streams) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return runNode(ctx, args, s)
	}
	if args[0] == "help" {
		return help(s.out)
	}
	names := []string{"help"}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], s)
		}
		names = append(names, c.name)
	}
	return usageError{hinted{fmt.Errorf("%q is not a command%s", args[0], nearest(args[0], names)), "steward help lists them"}}
}

// Version is that of the module, or of the commit that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + dirty
}

func versionOperation() operation {
	return operation{
		name: "version", short: "print the version", about: "version prints the version of the program.", example: "steward version",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(_ context.Context, c *call) error {
				_, err := fmt.Fprintf(c.out, "steward %s\n", version())
				return err
			}
		},
	}
}
