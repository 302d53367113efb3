package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"steward/client"
	"steward/message"
	"steward/methods"
	"steward/process"
)

// topShown is the node as it was at one moment. It is what top prints with -json.
type topShown struct {
	At        time.Time       `json:"at" doc:"when the node was asked"`
	Node      client.NodeInfo `json:"node"`
	Nodes     []topNode       `json:"nodes" doc:"itself, who said hello, and for whom something waits"`
	Streams   []topStream     `json:"streams" doc:"what waits for one method of one node, or was delivered since the node was asked before"`
	Runs      []client.Run    `json:"runs" doc:"the methods that run, the longest one first"`
	Processes topProcesses    `json:"processes"`
	Errors    []errorLine     `json:"errors" doc:"the last ones of its error log, the newest first"`
}

// topNode is a node, as seen from the one that is asked.
type topNode struct {
	Node    message.Node `json:"node"`
	Link    string       `json:"link,omitempty" doc:"up or down: that of the node that is asked to its broker; answers or silent: another one to which something was sent lately"`
	Hello   *time.Time   `json:"hello,omitempty" doc:"when its last hello was sent"`
	Version string       `json:"version,omitempty" doc:"which it said it has"`
	Text    string       `json:"text,omitempty" doc:"what else it said"`
	Waiting uint64       `json:"waiting" doc:"messages that wait for it"`
	Oldest  *time.Time   `json:"oldest,omitempty" doc:"when the oldest of them was accepted"`
}

// The links of nodes.
const (
	linkUp      = "up"
	linkDown    = "down"
	linkAnswers = "answers"
	linkSilent  = "silent"
)

// topStream is a stream with its rate.
type topStream struct {
	To                message.Node     `json:"to"`
	Method            message.Method   `json:"method"`
	Messages          uint64           `json:"messages" doc:"how many wait"`
	Bytes             uint64           `json:"bytes"`
	Accepted          *time.Time       `json:"accepted,omitempty" doc:"when the oldest of them was accepted"`
	Delivery          *client.Delivery `json:"delivery,omitempty" doc:"how its delivery stands"`
	MessagesPerSecond float64          `json:"messagesPerSecond" doc:"that were delivered"`
	BytesPerSecond    float64          `json:"bytesPerSecond" doc:"of these, as they went over the link, compressed"`
}

// topProcesses are the supervised processes.
type topProcesses struct {
	Running int           `json:"running" doc:"how many run"`
	Others  []topTroubled `json:"others" doc:"those that should and do not"`
}

type topTroubled struct {
	Name  string    `json:"name"`
	State string    `json:"state" doc:"starting, backoff, stopping or stopped"`
	Since time.Time `json:"since"`
	Error string    `json:"error,omitempty" doc:"its latest failure"`
}

const (
	// topErrors is how many errors are shown at most, and topErrorsEvery how often they are looked for: a central
	// node has a file of each of its nodes.
	topErrors      = 50
	topErrorsEvery = 3 * time.Second
	// topPatience is how long the node may take to answer.
	topPatience = 10 * time.Second
	// leastInterval bounds what the node is bothered with.
	leastInterval = 100 * time.Millisecond
)

var errNoScreen = errors.New("this build has no live view")

func topOperation() operation {
	return operation{
		name: "top", local: true, result: topShown{},
		short: "a live view of the node that runs here: nodes, streams, what runs, what failed",
		about: `top shows on the whole screen, and anew each second, what the node that runs here knows: which nodes there are and for
whom something waits, how much waits on which stream and how fast it goes out, which methods run, and what failed last. Tab and the arrows
move between the four parts and in them, Enter gives one of them all of the screen, / shows only what holds a word, p holds
the view, ? says so, and q ends it. With -once or -json it prints one picture, after it has looked for one interval how fast messages go. A
program that was built without the broker (make agent) has those two only.`,
		example: "steward top\nsteward top -once\nsteward top -json -socketFolder /run/steward",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			once := flags.Bool("once", false, "print one picture as text")
			interval := flags.Duration("interval", time.Second, "how often to look, as a `TIME` such as 500ms")
			return func(ctx context.Context, c *call) error { return top(ctx, c, *once, *interval) }
		},
	}
}

func top(ctx context.Context, c *call, once bool, interval time.Duration) error {
	if interval < leastInterval {
		return usageError{fmt.Errorf("-interval is below %v", leastInterval)}
	}
	live := !once && !c.json
	if live && (c.terminal(c.out) == nil || c.terminal(c.in) == nil) {
		return usageError{hinted{errors.New("there is no terminal for a live view"), "steward top -once prints one picture as text, -json as JSON"}}
	}
	local, err := c.local(ctx)
	if err != nil {
		return err
	}
	defer local.Close()
	w := &topWatch{local: local, link: map[message.Node]string{}}
	shown, err := w.look(ctx) // a node that does not run is said here, where it can be read
	if err != nil {
		return err
	}
	if live {
		err := runScreen(ctx, w, shown, interval)
		if errors.Is(err, errNoScreen) {
			err = hinted{err, "steward top -once prints one picture as text; watch steward top -once repeats that"}
		}
		return err
	}
	select {
	case <-time.After(interval):
	case <-ctx.Done():
		return ctx.Err()
	}
	if shown, err = w.look(ctx); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(shown)
	}
	for _, line := range new(topView).frame(&shown, "", 0, 0) {
		if _, err := io.WriteString(c.out, line.text()+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// topWatch asks the node again and again.
type topWatch struct {
	local    *client.Client
	at       time.Time // of the last look
	counted  map[streamName]client.Traffic
	link     map[message.Node]string // what is known of those of other nodes
	errors   []errorLine
	errorsAt time.Time
}

type streamName struct {
	to     message.Node
	method message.Method
}

// look asks the node for all that is shown.
func (w *topWatch) look(ctx context.Context) (s topShown, err error) {
	ctx, cancel := context.WithTimeout(ctx, topPatience)
	defer cancel()
	if s.Node, err = w.local.Node(ctx); err != nil {
		return s, err
	}
	s.At = time.Now()
	if err := w.streams(ctx, &s); err != nil {
		return s, err
	}
	if err := w.nodes(ctx, &s); err != nil {
		return s, err
	}
	s.Runs = []client.Run{}
	for r, err := range w.local.Runs(ctx) {
		if err != nil {
			return s, err
		}
		s.Runs = append(s.Runs, r)
	}
	tree, err := w.local.Processes(ctx)
	if err != nil {
		return s, err
	}
	s.Processes.Others = []topTroubled{}
	s.Processes.count(&tree)
	if s.At.Sub(w.errorsAt) >= topErrorsEvery {
		w.errors, w.errorsAt = []errorLine{}, s.At
		log := methods.ErrorLog{Folder: s.Node.DataFolder, Log: slog.New(slog.DiscardHandler)}
		err := log.Last(topErrors, func(line string) error {
			w.errors = append(w.errors, parseErrorLine(line))
			return nil
		})
		if err != nil { // there is more to see
			w.errors = append(w.errors, errorLine{Text: err.Error()})
		}
		slices.Reverse(w.errors)
	}
	s.Errors = w.errors
	return s, nil
}

// streams takes down what waits, and how much was delivered since the last look.
func (w *topWatch) streams(ctx context.Context, s *topShown) error {
	byName := map[streamName]*topStream{}
	s.Streams = []topStream{}
	for st, err := range w.local.Queue(ctx, client.Filter{}) {
		if err != nil {
			return err
		}
		s.Streams = append(s.Streams, topStream{To: st.To, Method: st.Method, Messages: st.Messages, Bytes: st.Bytes, Accepted: &st.Accepted, Delivery: st.Delivery})
	}
	for i := range s.Streams {
		byName[streamName{s.Streams[i].To, s.Streams[i].Method}] = &s.Streams[i]
	}
	counted := map[streamName]client.Traffic{}
	var gone []topStream // of which nothing waits any more
	at := time.Now()
	for t, err := range w.local.Traffic(ctx) {
		if err != nil {
			return err
		}
		name := streamName{t.To, t.Method}
		counted[name] = t
		before := w.counted[name]
		if t.Messages < before.Messages || t.Bytes < before.Bytes { // it was begun anew
			before = client.Traffic{}
		}
		if w.at.IsZero() || t.Messages == before.Messages {
			continue
		}
		st := byName[name]
		if st == nil {
			gone = append(gone, topStream{To: t.To, Method: t.Method})
			st = &gone[len(gone)-1]
		}
		took := at.Sub(w.at).Seconds()
		st.MessagesPerSecond, st.BytesPerSecond = float64(t.Messages-before.Messages)/took, float64(t.Bytes-before.Bytes)/took
	}
	w.counted, w.at = counted, at
	s.Streams = append(s.Streams, gone...)
	return nil
}

// nodes takes down the nodes: itself first.
func (w *topWatch) nodes(ctx context.Context, s *topShown) error {
	own := topNode{Node: s.Node.Node, Version: s.Node.Version, Link: linkUp}
	if !s.Node.Linked {
		own.Link = linkDown
		clear(w.link) // of the others nothing is known
	}
	for _, st := range s.Streams {
		switch {
		case !s.Node.Linked:
		case st.MessagesPerSecond > 0:
			w.link[st.To] = linkAnswers
		case st.Delivery != nil && (st.Delivery.Reason != "" || st.Delivery.Attempts > 0):
			w.link[st.To] = linkSilent
		}
	}
	var others []topNode
	for p, err := range w.local.Nodes(ctx) {
		if err != nil {
			return err
		}
		n := topNode{p.Node, w.link[p.Node], p.Hello, p.Version, p.Text, p.Waiting, p.Oldest}
		if p.Node == own.Node {
			n.Link, n.Version = own.Link, own.Version
			own = n
			continue
		}
		others = append(others, n)
	}
	s.Nodes = append([]topNode{own}, others...)
	return nil
}

func (p *topProcesses) count(t *client.Process) {
	switch {
	case t.State == string(process.Running):
		p.Running++
	case t.State != string(process.Stopped) || t.Error != "": // some have only a beginning to do, and end well
		p.Others = append(p.Others, topTroubled{t.Name, t.State, t.Since, t.Error})
	}
	for i := range t.Children {
		p.count(&t.Children[i])
	}
}
