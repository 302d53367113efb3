package methods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"steward/message"
	"steward/process"
)

const (
	// commandGrace is how long a process group has to end after it was asked to.
	commandGrace = 3 * time.Second
	// commandDrain is how long the rest of the output may take once the group is dead.
	commandDrain = time.Second
	// longestArg bounds one argument, in bytes, as Linux does.
	longestArg = 128<<10 - 1
)

// command runs data[0] with the rest of data as its arguments, without a shell, in a
// process group of its own, with a clean environment, and as another user where the node is
// told to.
//
// A call ends when the command has ended and its output has: what processes that it left
// in the background print belongs to the output, so the call waits for them, until the
// timeout. A process whose stdout and stderr go elsewhere is not waited for, and lives on
// when the command ends by itself: that is how a daemon is started. At the timeout, or when
// the node stops, the whole group is asked to end and killed after grace, whether it holds
// the output or not. A process that left the group is not found by that; it merely loses
// its reader.
type command struct {
	grace time.Duration
	disk  disk
	// whole says that a reply in several parts is put together before the command is run
	// with it, which takes parts in order.
	whole bool
	// within, when not 0, sends the output on while it comes, after that time at the latest.
	within time.Duration
}

func (r command) run(ctx context.Context, c *process.Call) (process.Outcome, error) {
	none := process.Outcome{Exit: -1}
	m := c.Message
	if len(m.Data) == 0 || m.Data[0] == "" {
		return none, errors.New("no command: data is empty")
	}
	if m.IsReply() && !r.whole && (m.Part > 0 || !m.Last()) {
		return none, errors.New("the reply has several parts, which only a method that keeps the order can put together: use REQCliCommand")
	}
	if !m.Last() {
		in := input{root: c.Files, m: m}
		return none, fileError("keep a part of the reply in", in.folder(), in.keep(r.disk))
	}
	in, err := newInput(c)
	if err != nil {
		return none, err
	}
	args, err := arguments(m, in)
	if err != nil {
		return none, err
	}
	o, err := r.exec(ctx, c, args, in)
	if err == nil || c.Attempt > m.MethodRetries && !errors.Is(err, context.Canceled) {
		in.drop(r.disk)
	}
	return o, err
}

// exec runs args with what is in in on its stdin.
func (r command) exec(parent context.Context, c *process.Call, args []string, in *input) (process.Outcome, error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()

	cut := false // read after Wait, which is after Cancel
	env := environment(os.Environ(), c.Commands)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(env,
		"STEWARD_NODE="+string(c.Self),
		"STEWARD_FROM="+string(c.Message.From),
		"STEWARD_MESSAGE_ID="+c.Message.ID.String(),
		"STEWARD_ATTEMPT="+strconv.Itoa(c.Attempt),
	)
	ownGroup(cmd)
	if u := c.Commands.User; u != nil {
		runAs(cmd, u)
		cmd.Dir = homeOf(u)
		cmd.Path, cmd.Err = lookIn(pathOf(u), args[0])
	}
	out, stderr := newOutput(), newHead()
	defer out.Close()
	cmd.Stdout, cmd.Stderr = handOver{out}, stderr
	if c.Message.IsReply() {
		cmd.Stdin = in.reader()
	}
	cmd.WaitDelay = commandDrain
	cmd.Cancel = func() error {
		if groupGone(cmd.Process) {
			return os.ErrProcessDone
		}
		cut = true
		r.stop(cmd.Process)
		return nil
	}

	if err := running.start(cmd); err != nil {
		return process.Outcome{Exit: -1}, startError(parent, args, in, err)
	}
	defer running.ended(cmd)
	// The command is not waited for before its output has ended. Until then it stays in
	// the system's table, even if it has ended, and its group cannot be mistaken for
	// another one that got the same number.
	emitting, release := outlast(parent, r.grace+2*commandDrain)
	defer release()
	body, readErr := (&sender{emit: c.Emit, within: r.within}).run(emitting, out)
	var emitErr *emitError
	if errors.As(readErr, &emitErr) {
		cancel()
		_ = out.Close() // never fails
	}
	<-stderr.ended
	waitErr := cmd.Wait()

	o := process.Outcome{
		Body: body, Exit: cmd.ProcessState.ExitCode(), Signal: signalOf(cmd.ProcessState),
		Stderr: stderr.kept, StderrSize: stderr.size,
	}
	switch {
	case cut && errors.Is(parent.Err(), context.Canceled):
		return o, parent.Err()
	case emitErr != nil:
		return o, emitErr
	case cut:
		return o, timeoutError(c.Message.MethodTimeout, o)
	case o.Signal != "":
		return o, errors.New("ended by signal " + o.Signal)
	case o.Exit != 0:
		return o, fmt.Errorf("exit status %d", o.Exit)
	case readErr != nil:
		return o, fmt.Errorf("read output: %w", readErr)
	case waitErr != nil && !errors.Is(waitErr, exec.ErrWaitDelay):
		return o, fmt.Errorf("run command: %w", waitErr)
	}
	// ErrWaitDelay here means that a process in the background holds the other end of
	// stdin, which it is free to do.
	return o, nil
}

// stop ends the command's group: it asks, waits, kills.
func (r command) stop(p *os.Process) {
	askGroup(p)
	grace := time.NewTimer(r.grace)
	defer grace.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !groupGone(p) {
		select {
		case <-grace.C:
			killGroup(p)
			return
		case <-look.C:
		}
	}
}

// outlast returns a context that ends with parent when parent is cancelled, and some time
// after it when parent's time is over: what a command printed before its timeout is still
// to be stored.
func outlast(parent context.Context, after time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		if errors.Is(parent.Err(), context.Canceled) {
			cancel()
			return
		}
		late := time.AfterFunc(after, cancel)
		context.AfterFunc(ctx, func() { late.Stop() })
	})
	return ctx, func() { stop(); cancel() }
}

// arguments returns the command and its arguments. In those of a reply method the
// [message.DataPlaceholder] is replaced by the output of the request.
func arguments(m *message.Message, in *input) ([]string, error) {
	args := append([]string(nil), m.Data...)
	for i, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return nil, fmt.Errorf("element %d of data holds a NUL byte, which no argument can", i+1)
		}
		if i == 0 || !m.IsReply() || !strings.Contains(a, message.DataPlaceholder) {
			continue
		}
		size := int64(len(a)) + int64(strings.Count(a, message.DataPlaceholder))*(in.size-int64(len(message.DataPlaceholder)))
		if size > longestArg {
			return nil, argsTooLong(in)
		}
		text, err := in.text()
		if err != nil {
			return nil, err
		}
		args[i] = strings.ReplaceAll(a, message.DataPlaceholder, text)
	}
	return args, nil
}

func argsTooLong(in *input) error {
	return fmt.Errorf("the arguments are too long with %d bytes of output in them: leave %s out, the command gets the output on stdin too", in.size, message.DataPlaceholder)
}

// startError says why a command did not start.
func startError(parent context.Context, args []string, in *input, err error) error {
	name := message.Quote(args[0])
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		return parent.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("out of time before the command was started: %w", context.DeadlineExceeded)
	case errors.Is(err, exec.ErrDot):
		return fmt.Errorf("command %s is in the node's own folder only: write ./%s to mean that one", name, args[0])
	case tooLong(err) && in.size > 0:
		return argsTooLong(in)
	case tooLong(err):
		return fmt.Errorf("command %s: the arguments are too long for this system; let it read stdin or a file instead", name)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("command %s not found", name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("command %s may not be executed", name)
	}
	return fmt.Errorf("start command %s: %w", name, reason(err))
}

// cutOff is a context.DeadlineExceeded in words for people.
type cutOff string

func (c cutOff) Error() string        { return string(c) }
func (c cutOff) Is(target error) bool { return target == context.DeadlineExceeded }

// timeoutError is a context.DeadlineExceeded that says what was cut off.
func timeoutError(after time.Duration, o process.Outcome) error {
	text := "cut off at its timeout"
	if after > 0 {
		text += " of " + after.String()
	}
	if o.Exit == 0 && o.Signal == "" {
		text += "; the command itself ended with exit status 0"
	}
	return cutOff(text)
}
