package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"steward/message"
	"steward/process/control"
)

const (
	// askedFolder is where the replies to commands land, below the data folder.
	askedFolder = "asked"
	askedFile   = "reply"
	// outputEvery is how often a reply file is looked at for more.
	outputEvery = 50 * time.Millisecond
	// mostWaiting bounds how many messages the node is asked about at a time.
	mostWaiting = 16
	// lookPatience is how long that may take when nobody waits any more.
	lookPatience = 5 * time.Second
	// absentAfter is how long a node may take before somebody is told for what it waits.
	absentAfter = 500 * time.Millisecond
)

// errands are messages that a command hands in, one for each of several nodes, and whose replies it waits
// for. The node writes them into files below its data folder, as it does with any reply, so that none
// is lost when the command goes before they come.
type errands struct {
	client *control.Client
	socket string
	folder string // of the replies
	dir    string // the same, as a message names it
	all    []*errand
}

// errand is one of them.
type errand struct {
	node   message.Node
	id     message.ID
	file   string
	read   int64 // bytes of the file
	status control.Status
}

// newErrands prepares messages for these nodes.
func (c *call) newErrands(ctx context.Context, nodes []string) (*errands, error) {
	cfg, client, err := c.node(ctx)
	if err != nil {
		return nil, err
	}
	e := &errands{
		client: client,
		socket: filepath.Join(cfg.SocketFolder, "steward.sock"),
		dir:    askedFolder + "/" + strings.ToLower(rand.Text()),
	}
	info, err := e.client.Node(ctx)
	if err != nil {
		return nil, err
	}
	e.folder = filepath.Join(info.DataFolder, filepath.FromSlash(e.dir))
	for _, name := range nodes {
		node := message.Node(name)
		if node == message.Local {
			node = info.Node
		}
		if err := node.Check(); err != nil {
			return nil, usageError{err}
		}
		if slices.ContainsFunc(e.all, func(x *errand) bool { return x.node == node }) {
			return nil, usageError{fmt.Errorf("%s is named twice", node)}
		}
		e.all = append(e.all, &errand{node: node, file: filepath.Join(e.folder, string(node), askedFile)})
	}
	return e, nil
}

// seconds is a time as a message has it, in whole ones.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// send hands the messages in. m is what they have in common, as the socket takes it.
func (e *errands) send(ctx context.Context, m map[string]any) error {
	var array []map[string]any
	for _, x := range e.all {
		one := map[string]any{"toNode": x.node, "directory": e.dir, "fileName": askedFile, "replyMethod": message.MethodToFileAppend}
		for k, v := range m {
			one[k] = v
		}
		array = append(array, one)
	}
	text, err := json.Marshal(array)
	if err != nil {
		return err
	}
	ids, err := handAll(ctx, e.socket, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if len(ids) != len(e.all) {
		return fmt.Errorf("the node accepted %d messages of %d", len(ids), len(e.all))
	}
	for i, x := range e.all {
		x.id = ids[i]
	}
	return nil
}

// wait waits until all have ended, or ctx does; in any case each has its status then. Whatever comes of a reply is
// written with output, in pieces; absent, if not nil, is called once for each node that does not take its message.
func (e *errands) wait(ctx context.Context, output func(x *errand, piece []byte) error, absent func(x *errand, d *control.Delivery)) error {
	waiting, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var over sync.WaitGroup
	over.Go(func() {
		ended <- inParallel(len(e.all), mostWaiting, func(i int) error {
			st, err := e.client.Status(waiting, e.all[i].id.String(), true)
			if err == nil {
				e.all[i].status = st
			}
			return err
		})
	})
	defer over.Wait()
	defer cancel()
	look := time.NewTicker(outputEvery)
	defer look.Stop()
	late := time.NewTimer(absentAfter)
	defer late.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				err = errors.Join(err, e.look(context.WithoutCancel(ctx)))
			}
			return errors.Join(err, e.output(output))
		case <-look.C:
			if err := e.output(output); err != nil {
				return err
			}
		case <-late.C:
			if absent != nil {
				e.late(ctx, absent)
			}
		}
	}
}

// look asks where those messages are of which the end is not known.
func (e *errands) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	for _, x := range e.all {
		if x.status.Ended {
			continue
		}
		var err error
		if x.status, err = e.client.Status(ctx, x.id.String(), false); err != nil {
			return err
		}
	}
	return nil
}

// late tells of nodes that have not taken their messages.
func (e *errands) late(ctx context.Context, absent func(*errand, *control.Delivery)) {
	for _, x := range e.all {
		st, err := e.client.Status(ctx, x.id.String(), false)
		if err == nil && st.Sent != nil && st.Sent.State == message.StateAccepted && st.Delivery != nil && (st.Delivery.Reason != "" || !st.Delivery.Linked) {
			absent(x, st.Delivery)
		}
	}
}

func (e *errands) output(do func(*errand, []byte) error) error {
	for _, x := range e.all {
		if err := x.output(do); err != nil {
			return err
		}
	}
	return nil
}

// output hands on what is new in the reply file.
func (x *errand) output(do func(*errand, []byte) error) error {
	f, err := os.Open(x.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return hinted{err, "the reply is in a file of the node; run the command as its user"}
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.ReadAt(buf, x.read)
		x.read += int64(n)
		if n > 0 {
			if err := do(x, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// close gives back what is held. The reply files go when all replies were read.
func (e *errands) close() error {
	e.client.Close()
	if slices.ContainsFunc(e.all, func(x *errand) bool { return !x.status.Ended }) {
		return nil
	}
	err := os.RemoveAll(e.folder)
	_ = os.Remove(filepath.Dir(e.folder)) // when nobody else waits for a reply
	return err
}

// failed says why an errand did not end well, and with which exit code; 0 when it did.
func (x *errand) failed() (why string, code int) {
	l := x.status.Sent
	switch {
	case l == nil:
		return "no answer", exitNoAnswer
	case !x.status.Ended:
		code = exitTimeout
		if l.State == message.StateAccepted {
			code = exitNoAnswer
		}
		return fmt.Sprintf("no answer in time; message %s: %s", x.id, stateText(&x.status, l)), code
	}
	return howEnded(&x.status)
}
