package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"steward/client"
	"steward/message"
	"steward/process"
)

const demoHelp = `steward demo shows the main job on this machine: it starts a broker and two nodes,
central and ship1, in a folder of their own, hands central a message for ship1 by writing
JSON to central's socket, and follows it until the reply is in central's data folder.

usage: steward demo [--keep]

  --keep   leave broker and nodes running until Ctrl-C, to try more

exit codes: 0 the reply came, 1 it did not, 2 usage, 130 interrupted
`

// demoTimeout is how long the demo waits for any one step.
const demoTimeout = 30 * time.Second

func runDemo(ctx context.Context, args []string, s streams) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	keep := flags.Bool("keep", false, "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, demoHelp)
		return errors.Join(werr, flag.ErrHelp)
	} else if err != nil {
		return usageError{hinted{fmt.Errorf("demo: %w", err), "steward demo -h"}}
	}
	if flags.NArg() > 0 {
		return usageError{hinted{fmt.Errorf("demo: %q is one argument too many", flags.Arg(0)), "steward demo -h"}}
	}
	d := &demo{s: s, keep: *keep, nodes: localNodes{s: s}}
	return errors.Join(d.run(ctx), d.close())
}

// demo is one run of the demo.
type demo struct {
	s     streams
	keep  bool
	nodes localNodes
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.s.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context) error {
	// Not os.TempDir with a long name: the path of a unix socket ends at about 100 bytes.
	dir, err := os.MkdirTemp("", "steward-demo-")
	if err != nil {
		return err
	}
	d.nodes.dir = dir
	d.say("All files of this demo are in %s.", dir)
	d.say("")
	central, err := d.start(ctx, "central", "-embeddedBroker=127.0.0.1:0", "-embeddedBrokerLogin=no")
	if err != nil {
		return err
	}
	d.say("broker    listens on %s, inside of central", central.BrokerURL())
	d.say("central   runs and takes messages on %s", central.SocketPath())
	ship1, err := d.start(ctx, "ship1", "-brokerAddress="+central.BrokerURL())
	if err != nil {
		return err
	}
	d.say("ship1     runs and waits for work from central")
	d.say("")
	if err := d.send(ctx, central, ship1); err != nil {
		return err
	}
	if !d.keep {
		d.say("That was all, and its folder goes away now. With --keep, broker and nodes stay.")
		return nil
	}
	d.say("")
	d.say("Broker and nodes go on until Ctrl-C. Try this from another terminal:")
	d.say("")
	d.say(`  echo '[{"toNode":"ship1","method":"REQCliCommand","data":["uptime"]}]' | nc -N -U %s`, central.SocketPath())
	d.say("")
	d.say("The reply, a moment later:")
	d.say("")
	d.say("  cat %s", filepath.Join(d.nodes.dir, "central", "var", "ship1", "REQCliCommand.log"))
	<-ctx.Done()
	return nil
}

// start starts a node and waits until it is on the air.
func (d *demo) start(ctx context.Context, name string, args ...string) (*localNode, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	n, err := d.nodes.start(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	for _, w := range n.cfg.Save() {
		fmt.Fprintf(d.s.err, "steward: %s\n", w)
	}
	return n, n.connected(ctx)
}

// demoMessage is what central is asked to do.
const demoMessage = `[
  {
    "toNode": "ship1",
    "method": "REQCliCommand",
    "data": ["sh", "-c", "echo hello from $STEWARD_NODE, asked by $STEWARD_FROM; uname -sr; date"],
    "replyMethod": "REQToFileAppend",
    "directory": "demo",
    "fileName": "hello.result"
  }
]`

// send hands the message to central and follows it.
func (d *demo) send(ctx context.Context, central, ship1 *localNode) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	atCentral, stop := central.Watch(message.ID{})
	defer stop()
	atShip, stop := ship1.Watch(message.ID{})
	defer stop()

	d.say("This message is written to central's socket:")
	d.say("")
	d.say("%s", demoMessage)
	d.say("")
	began := time.Now()
	local := client.New(central.cfg.SocketFolder)
	defer local.Close()
	ids, err := local.SendText(ctx, strings.NewReader(demoMessage))
	if err != nil || len(ids) != 1 {
		return fmt.Errorf("hand the message to central, which accepted %d: %w", len(ids), err)
	}
	id := ids[0]
	d.say(`          central answers {"accepted":["%s"]}`, id)
	d.say("")
	for {
		var at string
		var step process.Step
		select {
		case step = <-atCentral:
			at = "central"
		case step = <-atShip:
			at = "ship1"
		case <-ctx.Done():
			return fmt.Errorf("the reply did not come: %w", ctx.Err())
		}
		if step.ID != id {
			continue
		}
		d.say("%7.1f ms  %-8s %s", float64(step.At.Sub(began).Microseconds())/1000, at, explain(step))
		if step.What == process.StepGivenUp {
			return fmt.Errorf("the message was given up: %s", step.Text)
		}
		if step.What == process.StepAnswered {
			break
		}
	}
	return d.show(filepath.Join(d.nodes.dir, "central", "var", "demo", "ship1", "hello.result"))
}

// explain says in words what a step means.
func explain(s process.Step) string {
	switch s.What {
	case process.StepAccepted:
		return "accepted: the message is on central's disk, for " + string(s.Peer)
	case process.StepReceived:
		return "received: the message is on ship1's disk, which acknowledges it"
	case process.StepDelivered:
		return "delivered: central has the ACK"
	case process.StepStarted:
		return "started: " + string(s.Method) + " runs"
	case process.StepEnded:
		return "ran: " + s.Text + "; the reply is on ship1's disk, on its way back"
	case process.StepAnswered:
		return "reply: stored by " + string(s.Method)
	}
	return string(s.What) + ": " + s.Text
}

func (d *demo) show(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d.say("")
	d.say("The reply is in %s:", path)
	d.say("")
	d.say("%s", b)
	return nil
}

// close stops the nodes and takes their folder away.
func (d *demo) close() error {
	errs := []error{d.nodes.close(1)}
	if d.nodes.dir != "" {
		errs = append(errs, os.RemoveAll(d.nodes.dir))
	}
	return errors.Join(errs...)
}
