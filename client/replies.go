package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"steward/message"
)

// AskedFolder is where the replies to questions land, below the data folder of the node.
const AskedFolder = "asked"

const (
	askedFile = "reply"
	// outputEvery is how often a reply file is looked at for more.
	outputEvery = 50 * time.Millisecond
	// awayAfter is how long a node may take before it is told that it is away. Why may not be known yet; then it is looked
	// again after twice that time, and so on up to awayEvery.
	awayAfter = 500 * time.Millisecond
	awayEvery = 30 * time.Second
	// pieceSize bounds what of an output is handed on, and in memory, at a time.
	pieceSize = 64 << 10
)

// Replies are the replies to messages that [Client.Ask] has handed in. The node writes them into files below its data folder, as
// it does with any reply, so that none is lost when the program goes before they come. One goroutine at
// a time may use it.
type Replies struct {
	c      *Client
	folder string
	all    []*reply
}

// reply is that of one node.
type reply struct {
	Sent
	file os.FileInfo // that was read last
	read int64       // bytes of it
	away bool        // that was told, or it has taken its message
	end  *Status
}

// Sent is a message that was handed in.
type Sent struct {
	Node message.Node
	ID   message.ID
	// File is where its reply lands, on this machine.
	File string
}

// Part is a part of a reply, or says why there is none yet: one of its last three fields is set.
type Part struct {
	Node message.Node
	ID   message.ID // of the message that was sent there
	// Output is what came since the last part of this node, 64 KiB at most. It is valid until the loop goes on.
	Output []byte
	// Away says that the node does not take its message, which waits. It comes once for a node, after half a second or when it is known why.
	Away *Away
	// End is how the message has ended, behind all of its output; its Err is nil if that was well.
	End *Status
}

// Away is why a node does not take a message.
type Away struct {
	Linked bool       // this node has a link to the broker, so it is the other one that is away
	Reason string     // as far as it is known
	Denied bool       // that is that the broker does not let this node send there
	Heard  *time.Time // when something of the other node came here last, if anything did
	Hello  *time.Time // when it sent its last hello that came here, if any did
	Key    Key        // what is known of its keys
}

// Run has nodes run a command, and returns what it writes, as it comes, and how it ended on each of them: see [Part]. The messages are handed in
// when the loop begins; it ends with an error when they are refused, when ctx ends, or when the answer of the
// node makes no sense. A message that has not ended by then stays, and so does the file of its reply; to get at
// both, and to take a message back, see [Client.Ask].
func (c *Client) Run(ctx context.Context, cmd Command) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		r, err := c.Ask(ctx, cmd.Message())
		if err != nil {
			yield(Part{}, err)
			return
		}
		for part, err := range r.Parts(ctx) {
			if !yield(part, err) {
				_ = r.Close() // nobody is there to be told
				return
			}
		}
		if err := r.Close(); err != nil {
			yield(Part{}, err)
		}
	}
}

// Ask hands in m, and returns the replies to it, which is to be closed. It says itself where they are stored, so m names no ReplyMethod,
// Directory or FileName. Errors are those of [Client.Send] and [Client.Node]; a receiver that is named twice is an error too.
func (c *Client) Ask(ctx context.Context, m Message) (*Replies, error) {
	if m.ReplyMethod != "" || m.Directory != "" || m.FileName != "" {
		return nil, invalid("the replies to a question are stored where its asker finds them: it cannot name their place")
	}
	info, err := c.Node(ctx)
	if err != nil {
		return nil, err
	}
	m.ReplyMethod, m.Directory, m.FileName = message.MethodToFileAppend, AskedFolder+"/"+strings.ToLower(rand.Text()), askedFile
	r := &Replies{c: c, folder: filepath.Join(info.DataFolder, filepath.FromSlash(m.Directory))}
	to := m.To
	m.To = nil
	for _, node := range to {
		if node == message.Local {
			node = info.Node
		}
		if err := node.Check(); err != nil {
			return nil, err
		}
		if slices.Contains(m.To, node) {
			return nil, invalid(fmt.Sprintf("%s is named twice", node))
		}
		m.To = append(m.To, node)
		r.all = append(r.all, &reply{Sent: Sent{Node: node, File: filepath.Join(r.folder, string(node), askedFile)}})
	}
	ids, err := c.Send(ctx, m)
	if err != nil {
		return nil, err
	}
	if len(ids) != len(r.all) {
		return nil, fmt.Errorf("the node accepted %d messages of %d", len(ids), len(r.all))
	}
	for i, x := range r.all {
		x.ID = ids[i]
	}
	return r, nil
}

// Sent returns what was handed in, in the order of the receivers.
func (r *Replies) Sent() []Sent {
	sent := make([]Sent, len(r.all))
	for i, x := range r.all {
		sent[i] = x.Sent
	}
	return sent
}

// Parts returns what comes, as it comes, until all messages have ended. It goes on where an earlier loop was left. A node that goes away and comes
// back meanwhile is waited for, as in [Client.Wait]. An error is the last: that of ctx, or of the node, or
// of a reply that cannot be read.
func (r *Replies) Parts(ctx context.Context) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		waiting, cancel := context.WithCancel(ctx)
		var over sync.WaitGroup
		defer over.Wait()
		defer cancel()
		l := loop{r: r, yield: yield, buf: make([]byte, pieceSize)}
		ended := r.ends(waiting, &over)
		look := time.NewTicker(outputEvery)
		defer look.Stop()
		late, wait := time.NewTimer(awayAfter), awayAfter
		defer late.Stop()
		for l.goesOn() {
			select {
			case e := <-ended:
				if e.err != nil {
					l.outputs() // what is here by now
					l.fail(e.err)
					return
				}
				l.end(e.x, e.status)
			case <-look.C:
				l.outputs()
			case <-late.C:
				if l.away(ctx) {
					wait = min(2*wait, awayEvery)
					late.Reset(wait)
				}
			}
		}
	}
}

// ended is a message that has ended, or why that is not known.
type ended struct {
	x      *reply
	status Status
	err    error
}

// ends waits for those that have not ended. There is room for all that comes.
func (r *Replies) ends(ctx context.Context, over *sync.WaitGroup) <-chan ended {
	open := map[message.ID]*reply{}
	for _, x := range r.all {
		if x.end == nil {
			open[x.ID] = x
		}
	}
	ends := make(chan ended, len(open)+1)
	over.Go(func() {
		for st, err := range r.c.Ends(ctx, slices.Collect(maps.Keys(open))...) {
			ends <- ended{open[st.ID], st, err}
		}
	})
	return ends
}

// loop is one run of Parts.
type loop struct {
	r     *Replies
	yield func(Part, error) bool
	buf   []byte
	over  bool // the caller has left, or was told of an error
}

// goesOn reports whether something may still come, and somebody waits for it.
func (l *loop) goesOn() bool {
	return !l.over && slices.ContainsFunc(l.r.all, func(x *reply) bool { return x.end == nil })
}

func (l *loop) hand(x *reply, p Part) {
	p.Node, p.ID = x.Node, x.ID
	l.over = l.over || !l.yield(p, nil)
}

func (l *loop) fail(err error) {
	if !l.over {
		l.over = true
		l.yield(Part{}, err)
	}
}

// end hands on the rest of a reply, and how its message ended.
func (l *loop) end(x *reply, st Status) {
	l.output(x)
	if l.over {
		return
	}
	x.end = &st
	l.hand(x, Part{End: &st})
}

// away tells of nodes that have not taken their messages, and reports whether of some there is nothing to tell yet.
func (l *loop) away(ctx context.Context) (more bool) {
	var peers map[message.Node]Peer
	for _, x := range l.r.all {
		if l.over || x.end != nil || x.away {
			continue
		}
		st, err := l.r.c.Status(ctx, x.ID)
		d := st.Delivery
		x.away = err == nil && (st.Sent == nil || st.Sent.State != message.StateAccepted)
		if x.away {
			continue
		}
		if err != nil || d == nil || d.Linked && d.Reason == "" {
			more = true
			continue
		}
		x.away = true
		if peers == nil {
			peers = map[message.Node]Peer{}
			for p, err := range l.r.c.Nodes(ctx) { // without them there is less to say
				if err == nil {
					peers[p.Node] = p
				}
			}
		}
		p := peers[x.Node]
		l.hand(x, Part{Away: &Away{Linked: d.Linked, Reason: d.Reason, Denied: d.Denied, Heard: p.Heard, Hello: p.Hello, Key: p.Key}})
	}
	return more
}

func (l *loop) outputs() {
	for _, x := range l.r.all {
		if x.end == nil {
			l.output(x)
		}
	}
}

// output hands on what is new in a reply file.
func (l *loop) output(x *reply) {
	if l.over {
		return
	}
	f, err := os.Open(x.File)
	if errors.Is(err, fs.ErrNotExist) {
		x.file = nil
		return
	}
	if err != nil {
		l.fail(&Error{Text: err.Error(), Hint: "the reply is in a file of the node; run the command as its user", Cause: err})
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		l.fail(err)
		return
	}
	if !os.SameFile(x.file, info) { // the node removes one in which nothing comes for long
		x.file, x.read = info, 0
	}
	for !l.over {
		n, err := f.ReadAt(l.buf, x.read)
		x.read += int64(n)
		if n > 0 {
			l.hand(x, Part{Output: l.buf[:n:n]})
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			l.fail(err)
		}
	}
}

// Withdraw takes back what nobody is to do any more: messages that were not delivered are not sent, and none of these messages stays
// among what was given up and could be sent again. One that was delivered is run all the same. It makes
// no sense before the replies have been waited for.
func (r *Replies) Withdraw(ctx context.Context) error {
	var ids []string
	for _, x := range r.all {
		if x.end == nil || x.end.Err() != nil {
			ids = append(ids, x.ID.String())
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := r.c.Remove(ctx, Filter{IDs: ids})
	_, forget := r.c.Remove(ctx, Filter{IDs: ids, GivenUp: true})
	err = errors.Join(err, forget)
	for _, x := range r.all {
		if x.end != nil || err != nil {
			continue
		}
		var st Status
		if st, err = r.c.Status(ctx, x.ID); st.Ended {
			x.end = &st
		}
	}
	if err != nil {
		return fmt.Errorf("take back what was asked: %w", err)
	}
	return nil
}

// Close removes the files of the replies, when all have been read to their ends; else they stay, since what has not ended may still come. The node
// removes those that stay when nothing was added for 30 days.
func (r *Replies) Close() error {
	if slices.ContainsFunc(r.all, func(x *reply) bool { return x.end == nil }) {
		return nil
	}
	err := os.RemoveAll(r.folder)
	_ = os.Remove(filepath.Dir(r.folder)) // when nobody else waits for a reply
	return err
}
