package methods

import (
	"context"
	"errors"
	"time"

	"steward/message"
	"steward/process"
)

const (
	// tailEvery is how often a tail looks for new lines. It asks the file system, which works
	// on every one of them, and costs less than the commit of what it finds.
	tailEvery = 250 * time.Millisecond
	// tailsAtOnce is how many tails a node has. One that only waits costs next to nothing.
	tailsAtOnce = 1024
)

var _ = register(process.Spec{
	Name:    "REQTailFile",
	Summary: "send on the new lines of a file as they come, over rotation and truncation, until the timeout",
	Details: "The path is one on that node, relative to the folder in which the node was started, and not confined to the data " +
		"folder. `methodTimeout` is how long the tail goes on; its end is no failure, unless the file never was there until then.",
	Args:     "FILE",
	MinArgs:  1,
	Kind:     message.EventACK,
	Access:   process.AccessCentral,
	Parallel: tailsAtOnce,
	Crash:    process.Resume,
	Reply:    message.MethodToFileAppend,
	Run:      tailFile,
})

// tailFile ends at its timeout, which is no failure if there was a file. It sends on what was written until then
// also when the ring buffer is full at that moment.
func tailFile(ctx context.Context, c *process.Call) (process.Outcome, error) {
	none := process.Outcome{Exit: -1}
	if !c.Message.Last() {
		return none, nil // as a reply method, it is run at the end of the reply
	}
	if len(c.Message.Data) == 0 || c.Message.Data[0] == "" {
		return none, errors.New("no file: data is empty")
	}
	t := &tail{path: c.Message.Data[0], emit: c.EmitNoting, log: c.Log}
	defer t.close()
	emitting := context.WithoutCancel(ctx) // emitting ends with the node anyway
	var err error
	if c.Noted == nil {
		err = t.begin(emitting)
	} else {
		err = t.resume(c.Noted)
	}
	if err != nil {
		return none, fileError("tail", t.path, err)
	}
	every := time.NewTicker(tailEvery)
	defer every.Stop()
	for {
		if err := t.poll(emitting); err != nil {
			return none, err
		}
		select {
		case <-every.C:
			continue
		case <-ctx.Done():
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return none, ctx.Err()
		}
		return none, t.end(emitting)
	}
}
