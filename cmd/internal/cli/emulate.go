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

const emulateHelp = `steward emulate runs many nodes in one process, for who plans a fleet: how long a message to
all of them takes, what the broker needs, how they come back when it was away. Each is a node
like any other, with folders and a database of its own, but without metrics, keys and signatures: against a broker
that asks for logins, give -nkeySeedFile behind --, with a key that is trusted for all of their names.

usage: steward emulate -nodes N [flags] [-- FLAGS OF EACH NODE]

  steward emulate -nodes 1000 -brokerAddress=10.0.0.1:4222 -centralNodeName=central

  -nodes N                 how many (about five open files each)
  -prefix NAME             their names are NAME1 to NAMEN (default node)
  -brokerAddress ADDRESS   that of the broker (default 127.0.0.1:4222)
  -centralNodeName NAME    who may use them (default central)
  -directory FOLDER        where their folders are made; they stay (default: a temporary one,
                           which goes away)

It prints when all are connected, and each time when links are lost or all are back, until Ctrl-C.

exit codes: 0 ended by Ctrl-C when all were connected once, 1 failed, 2 usage, 130 interrupted
before
`

// emulatedAtATime is how many nodes are started or stopped at the same time: what takes long in that
// is the disk.
const emulatedAtATime = 16

func runEmulate(ctx context.Context, args []string, s streams) (err error) {
	flags := flag.NewFlagSet("emulate", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	count := flags.Int("nodes", 0, "")
	prefix := flags.String("prefix", "node", "")
	brokers := flags.String("brokerAddress", "127.0.0.1:4222", "")
	central := flags.String("centralNodeName", "central", "")
	dir := flags.String("directory", "", "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, emulateHelp)
		return errors.Join(werr, flag.ErrHelp)
	} else if err != nil {
		return usageError{hinted{fmt.Errorf("emulate: %w", err), "steward emulate -h"}}
	}
	if *count < 1 {
		return usageError{hinted{errors.New("emulate: no number of nodes"), "steward emulate -nodes N; steward emulate -h"}}
	}
	if err := message.Node(*prefix + strconv.Itoa(*count)).Check(); err != nil {
		return usageError{hinted{fmt.Errorf("emulate: -prefix: %w", err), "steward emulate -h"}}
	}
	nodes := localNodes{s: s, dir: *dir, codec: wire.NewCodec()}
	if *dir == "" {
		// Not os.TempDir with a long name: the path of a unix socket ends at about 100 bytes.
		if nodes.dir, err = os.MkdirTemp("", "steward-emulate-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(nodes.dir)) }()
	}
	defer func() { err = errors.Join(err, nodes.close(emulatedAtATime)) }()

	began := time.Now()
	// A broker that goes is a warning of each node.
	each := append([]string{"-logLevel=error", "-brokerAddress=" + *brokers, "-centralNodeName=" + *central}, flags.Args()...)
	err = inParallel(*count, emulatedAtATime, func(i int) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := nodes.start(ctx, *prefix+strconv.Itoa(i+1), each...)
		return err
	})
	if err != nil {
		return err
	}
	return watchLinks(ctx, nodes.nodes, began, s.out)
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
