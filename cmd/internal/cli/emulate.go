package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
when links are lost or all are back, until Ctrl-C; and why, when not all are connected for five seconds.`,
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
	w := linkWatch{nodes: nodes.nodes, s: c.streams, since: began, told: map[string]bool{},
		hint: fmt.Sprintf("what each node is to be given goes behind --, as in steward emulate -nodes %d -brokerAddress=%s -- -rootCAPath=FILE -nkeySeedFile=FILE", e.count, e.brokers)}
	return w.run(ctx)
}

const (
	// linksEvery is how often the links are looked at. A goroutine for each node would see more, and
	// would make each node look larger than it is.
	linksEvery = 20 * time.Millisecond
	// troubleEvery is after which time it is said why not all are connected, and how often that may change.
	troubleEvery = 5 * time.Second
)

// linkWatch says when all nodes are connected, when they no longer are, and why they are not for long.
type linkWatch struct {
	nodes []*localNode
	s     streams
	since time.Time // when it began that not all are
	hint  string
	told  map[string]bool // troubles since then
}

// run watches until ctx ends.
func (w *linkWatch) run(ctx context.Context) error {
	tick := time.NewTicker(linksEvery)
	defer tick.Stop()
	trouble := time.NewTicker(troubleEvery)
	defer trouble.Stop()
	for all, once := false, false; ; {
		up := 0
		for _, n := range w.nodes {
			if is, _ := n.Link(); is {
				up++
			}
		}
		switch now := up == len(w.nodes); {
		case now && !all:
			fmt.Fprintf(w.s.out, "all %d nodes are connected, after %.2f s\n", up, time.Since(w.since).Seconds())
			all, once = true, true
			clear(w.told)
		case !now && all:
			fmt.Fprintf(w.s.out, "links are lost: %d of %d nodes are connected\n", up, len(w.nodes))
			all, w.since = false, time.Now()
			trouble.Reset(troubleEvery)
		}
		select {
		case <-tick.C:
		case <-trouble.C:
			if !all {
				w.tellTrouble(up)
			}
		case <-ctx.Done():
			if once {
				return nil
			}
			return ctx.Err()
		}
	}
}

// tellTrouble says why most of those that are not connected are not, unless it has said just that.
func (w *linkWatch) tellTrouble(up int) {
	reasons, why := map[string]int{}, ""
	for _, n := range w.nodes {
		is, _ := n.Link()
		if err := n.LinkTrouble(); !is && err != nil {
			reasons[err.Error()]++
		}
	}
	for r, n := range reasons {
		if n > reasons[why] || n == reasons[why] && r < why {
			why = r
		}
	}
	if why == "" {
		why = "no answer of the broker yet"
	}
	text := fmt.Sprintf("%d of %d nodes are connected: %s", up, len(w.nodes), why)
	if w.told[text] {
		return
	}
	fmt.Fprintf(w.s.err, "steward: emulate: %s\n", text)
	if len(w.told) == 0 {
		fmt.Fprintf(w.s.err, "hint: %s\n", w.hint)
	}
	w.told[text] = true
}
