package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"steward/message"
	"steward/message/wire"
)

func emulateOperation() operation {
	return operation{
		name: "emulate", args: "[-- FLAGS OF EACH NODE]", most: -1, takesCommand: true,
		short: "run many nodes in this process, to see how a fleet of that size behaves",
		about: `emulate runs many nodes in one process, for who plans a fleet: how long a message to
all of them takes, what the broker needs, how they come back when it was away. Each is a node
like any other, with folders and a database of its own, but without metrics, keys and signatures: against a broker
that asks for logins, give -nkeySeedFile behind --, with a key that is trusted for all of their names. It prints when all are connected, and each time
when links are lost or all are back, until Ctrl-C.`,
		example: "steward emulate -nodes 1000 -brokerAddress=10.0.0.1:4222 -centralNodeName=central",
		exits:   "0 ended by Ctrl-C when all were connected once",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			var e emulation
			flags.IntVar(&e.count, "nodes", 0, "how many, as a `NUMBER`: about five open files each")
			flags.StringVar(&e.prefix, "prefix", "node", "their names are `NAME`1 and so on (default node)")
			flags.StringVar(&e.brokers, "brokerAddress", "127.0.0.1:4222", "`ADDRESS` of the broker (default 127.0.0.1:4222)")
			flags.StringVar(&e.central, "centralNodeName", "central", "`NAME` of the node that may use them (default central)")
			flags.StringVar(&e.dir, "directory", "", "`FOLDER` where their folders are made; they stay (default: a temporary one, which goes away)")
			return e.run
		},
	}
}

// emulation is what was given.
type emulation struct {
	count                         int
	prefix, brokers, central, dir string
}

// emulatedAtATime is how many nodes are started or stopped at the same time: what takes long in that
// is the disk.
const emulatedAtATime = 16

func (e *emulation) run(ctx context.Context, c *call) (err error) {
	if e.count < 1 {
		return usageError{hinted{errors.New("it is not said how many nodes"), "steward emulate -nodes 100"}}
	}
	if err := message.Node(e.prefix + strconv.Itoa(e.count)).Check(); err != nil {
		return usageError{fmt.Errorf("-prefix: %w", err)}
	}
	nodes := localNodes{s: c.streams, dir: e.dir, codec: wire.NewCodec()}
	if e.dir == "" {
		// Not os.TempDir with a long name: the path of a unix socket ends at about 100 bytes.
		if nodes.dir, err = os.MkdirTemp("", "steward-emulate-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(nodes.dir)) }()
	}
	defer func() { err = errors.Join(err, nodes.close(emulatedAtATime)) }()

	began := time.Now()
	// A broker that goes is a warning of each node.
	each := append([]string{"-logLevel=error", "-brokerAddress=" + e.brokers, "-centralNodeName=" + e.central}, c.args...)
	err = inParallel(e.count, emulatedAtATime, func(i int) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := nodes.start(ctx, e.prefix+strconv.Itoa(i+1), each...)
		return err
	})
	if err != nil {
		return err
	}
	return watchLinks(ctx, nodes.nodes, began, c.out)
}

// linksEvery is how often the links are looked at. A goroutine for each node would see more, and
// would make each node look larger than it is.
const linksEvery = 20 * time.Millisecond

// watchLinks says when all nodes are connected, and when they no longer are, until ctx ends.
func watchLinks(ctx context.Context, nodes []*localNode, since time.Time, out io.Writer) error {
	tick := time.NewTicker(linksEvery)
	defer tick.Stop()
	for all, once := false, false; ; {
		up := 0
		for _, n := range nodes {
			if is, _ := n.Link(); is {
				up++
			}
		}
		switch now := up == len(nodes); {
		case now && !all:
			fmt.Fprintf(out, "all %d nodes are connected, after %.2f s\n", up, time.Since(since).Seconds())
			all, once = true, true
		case !now && all:
			fmt.Fprintf(out, "links are lost: %d of %d nodes are connected\n", up, len(nodes))
			all, since = false, time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if once {
				return nil
			}
			return ctx.Err()
		}
	}
}
