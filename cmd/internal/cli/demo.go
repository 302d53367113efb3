package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"steward/cmd/internal/node"
	"steward/config"
	"steward/message"
	"steward/methods"
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
	d := &demo{s: s, keep: *keep}
	return errors.Join(d.run(ctx), d.close())
}

// demo is one run of the demo.
type demo struct {
	s     streams
	keep  bool
	dir   string
	nodes []*demoNode
}

// demoNode is one running node of the demo.
type demoNode struct {
	*node.Node
	stop func() error
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.s.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context) error {
	// Not os.TempDir with a long name: the path of a unix socket ends at about 100 bytes.
	dir, err := os.MkdirTemp("", "steward-demo-")
	if err != nil {
		return err
	}
	d.dir = dir
	d.say("All files of this demo are in %s.", dir)
	d.say("")
	central, err := d.start(ctx, "central", "-embeddedBroker=127.0.0.1:0")
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
	d.say("  cat %s", filepath.Join(d.dir, "central", "var", "ship1", "REQCliCommand.log"))
	<-ctx.Done()
	return nil
}

// start starts a node and waits until it is on the air.
func (d *demo) start(ctx context.Context, name string, args ...string) (*demoNode, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(d.dir, name)
	args = append([]string{
		"-nodeName=" + name, "-configFolder=" + filepath.Join(home, "etc"), "-socketFolder=" + filepath.Join(home, "tmp"),
		"-databaseFolder=" + filepath.Join(home, "lib"), "-subscribersDataFolder=" + filepath.Join(home, "var"),
		"-promHostAndPort=", "-logLevel=warn",
	}, args...)
	cfg, err := config.Load(args, nil, configMethods(registry))
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(d.s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.New(node.Options{Config: cfg, Registry: registry, Log: log, Stdout: d.s.out, Stderr: d.s.err, Version: version()})
	if err != nil {
		return nil, err
	}
	running := d.serve(n)
	for _, w := range append(cfg.Warnings, cfg.Save()...) {
		log.Warn(w)
	}
	return running, d.await(ctx, name, n)
}

// serve runs a node until its stop is called.
func (d *demo) serve(n *node.Node) *demoNode {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = n.Run(ctx) })
	running := &demoNode{n, func() error {
		cancel()
		wg.Wait()
		return errors.Join(err, n.Close())
	}}
	d.nodes = append(d.nodes, running)
	return running
}

func (d *demo) await(ctx context.Context, name string, n *node.Node) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	select {
	case <-n.Ready():
	case <-ctx.Done():
		return fmt.Errorf("%s did not start: %w", name, ctx.Err())
	}
	for {
		up, changed := n.Link()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s found no broker: %w", name, ctx.Err())
		}
	}
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
func (d *demo) send(ctx context.Context, central, ship1 *demoNode) error {
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
	ids, refused, err := handIn(ctx, central.SocketPath(), strings.NewReader(demoMessage))
	if err := errors.Join(append(refused, err)...); err != nil || len(ids) != 1 {
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
	return d.show(filepath.Join(d.dir, "central", "var", "demo", "ship1", "hello.result"))
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

// close stops the nodes, the last one first, and takes the folder away.
func (d *demo) close() error {
	var errs []error
	for i := len(d.nodes) - 1; i >= 0; i-- {
		errs = append(errs, d.nodes[i].stop())
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
