package cli

import (
	"cmp"
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
	Nodes     []topNode       `json:"nodes" doc:"itself, and those that it knows"`
	Streams   []topStream     `json:"streams" doc:"what waits for one method of one node, or was delivered since the node was asked before"`
	Runs      []client.Run    `json:"runs" doc:"the methods that run, the longest one first"`
	Processes topProcesses    `json:"processes"`
	Errors    []errorLine     `json:"errors" doc:"the last ones of its error log, the newest first"`
}

// topNode is a node, as seen from the one that is asked.
type topNode struct {
	Node    message.Node `json:"node"`
	Link    string       `json:"link,omitempty" doc:"up or down: that of the node that is asked to its broker; answers or silent: another one to which something was sent since top began, or in the minute before"`
	Heard   *time.Time   `json:"heard,omitempty" doc:"when something of it came here last"`
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
	MessagesPerSecond float64          `json:"messagesPerSecond" doc:"that were delivered, the mean of the interval"`
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
	// rateWindow is over how long the rates of the live view are taken: those of a second alone would dance.
	rateWindow = 10 * time.Second
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
whom something waits, how much waits on which stream and how fast it goes out, which methods run here, and what failed last. Tab and the arrows
move between the four parts and in them, Enter gives one of them all of the screen, / shows only what holds a word, p holds
the view, ? says so, and q ends it. How fast messages go is the mean of the last ten seconds. With -once or -json it prints one picture, and
that is the mean of the one interval for which it has looked. A
program that was built without the broker (make agent) has those two only.`,
		example: "steward top\nsteward top -once\nsteward top -json -socketFolder /run/steward",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			once := flags.Bool("once", false, "print one picture as text")
			interval := duration(flags, "interval", time.Second, "how often to look, as a `TIME` such as 500ms")
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
	lately   []delivered             // between looks, the oldest first
	link     map[message.Node]string // what is known of those of other nodes
	errors   []errorLine
	errorsAt time.Time
}

// delivered is what was delivered from one look to the next.
type delivered struct {
	from time.Time
	by   map[streamName]client.Traffic
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
	at := time.Now()
	var counted []client.Traffic
	for t, err := range w.local.Traffic(ctx) {
		if err != nil {
			return err
		}
		counted = append(counted, t)
	}
	w.count(at, counted)
	var gone []topStream // of which nothing waits any more
	for name, sum := range w.rates() {
		st := byName[name]
		if st == nil {
			gone = append(gone, topStream{To: name.to, Method: name.method})
			st = &gone[len(gone)-1]
		}
		st.MessagesPerSecond, st.BytesPerSecond = sum.messages, sum.bytes
	}
	slices.SortFunc(gone, func(a, b topStream) int { return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Method, b.Method)) })
	s.Streams = append(s.Streams, gone...)
	return nil
}

// count takes down what was delivered so far on each stream.
func (w *topWatch) count(at time.Time, all []client.Traffic) {
	first := w.at.IsZero()
	counted, since := map[streamName]client.Traffic{}, delivered{w.at, map[streamName]client.Traffic{}}
	for _, t := range all {
		name := streamName{t.To, t.Method}
		counted[name] = t
		before := w.counted[name]
		if t.Messages < before.Messages || t.Bytes < before.Bytes { // it was begun anew
			before = client.Traffic{}
		}
		if t.Messages == before.Messages {
			continue
		}
		w.link[t.To] = linkAnswers // at the first look, a while ago
		since.by[name] = client.Traffic{Messages: t.Messages - before.Messages, Bytes: t.Bytes - before.Bytes}
	}
	w.counted, w.at = counted, at
	if first {
		return
	}
	w.lately = append(w.lately, since)
	for len(w.lately) > 1 && at.Sub(w.lately[1].from) >= rateWindow {
		w.lately = w.lately[1:]
	}
}

// perSecond is how fast messages of a stream go.
type perSecond struct{ messages, bytes float64 }

// rates are those of the streams of which something was delivered lately.
func (w *topWatch) rates() map[streamName]perSecond {
	all := map[streamName]perSecond{}
	for _, d := range w.lately {
		took := w.at.Sub(w.lately[0].from).Seconds()
		for name, t := range d.by {
			sum := all[name]
			all[name] = perSecond{sum.messages + float64(t.Messages)/took, sum.bytes + float64(t.Bytes)/took}
		}
	}
	return all
}

// answered says whether a node has taken something since the last look.
func (w *topWatch) answered(n message.Node) bool {
	if len(w.lately) == 0 {
		return false
	}
	for name := range w.lately[len(w.lately)-1].by {
		if name.to == n {
			return true
		}
	}
	return false
}

// nodes takes down the nodes: itself first.
func (w *topWatch) nodes(ctx context.Context, s *topShown) error {
	own := topNode{Node: s.Node.Node, Version: s.Node.Version, Link: linkUp}
	if !s.Node.Linked {
		own.Link = linkDown
		clear(w.link) // of the others nothing is known
	}
	for _, st := range s.Streams {
		failing := st.Delivery != nil && (st.Delivery.Reason != "" || st.Delivery.Attempts > 0)
		if s.Node.Linked && failing && !w.answered(st.To) {
			w.link[st.To] = linkSilent
		}
	}
	var others []topNode
	for p, err := range w.local.Nodes(ctx) {
		if err != nil {
			return err
		}
		n := topNode{p.Node, w.link[p.Node], p.Heard, p.Hello, p.Version, p.Text, p.Waiting, p.Oldest}
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
	case t.State == string(process.Done):
	case t.State != string(process.Stopped) || t.Error != "": // one that an operator has stopped is none that has trouble
		p.Others = append(p.Others, topTroubled{t.Name, t.State, t.Since, t.Error})
	}
	for i := range t.Children {
		p.count(&t.Children[i])
	}
}
