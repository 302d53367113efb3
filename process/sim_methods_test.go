package process_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"steward/message"
	"steward/process"
)

// The methods of the simulation. data is a number, and what a run is to do.
const (
	repeat   message.Method = "REQRepeat"  // ordered, may be run again
	once     message.Method = "REQOnce"    // ordered, never run again unasked
	exact    message.Method = "REQExact"   // ordered, appends to a file
	resumes  message.Method = "REQnResume" // without order, goes on where it was cut off
	manyOnce message.Method = "REQnOnce"   // without order
	answer   message.Method = "REQAnswer"  // takes replies: as exact
	none     message.Method = "REQNone"    // takes replies that nobody asked for
	unknown  message.Method = "REQUnknown" // nobody has it
	kind                    = message.CommandACK
)

// run is one run of a method, from its start.
type run struct {
	node, from message.Node
	method     message.Method
	id         message.ID
	n          int
	attempt    int
	life       int // of the node that ran it
	at         time.Time
	part       uint32
	inReplyTo  message.ID
	result     *message.Result
	body       string
}

// disk holds the files of a node. It outlives its lives, as synced files do.
type disk struct {
	mu      sync.Mutex
	files   map[string][]entry
	onWrite func() // is told of each entry
}

type entry struct {
	from message.Node
	id   message.ID
	n    int
	part uint32
	// unacked: it was sent without ACK.
	unacked   bool
	inReplyTo message.ID
	last      bool // part of a reply
}

// do makes a message with a number. what is "sleep=1s", "fail", "failures=2" (so many runs fail),
// "panic", "hang", "later=2" (so many runs put it off), "parts=3", "body=text", "steps=3" (a part and a
// note every second).
func do(to *simNode, method message.Method, n int, what ...string) message.Message {
	return message.Message{To: to.name, Method: method, Data: append([]string{strconv.Itoa(n)}, what...), ReplyMethod: none,
		ACKTimeout: 5 * time.Second, MethodTimeout: time.Minute, ReplyACKTimeout: 5 * time.Second, ReplyMethodTimeout: time.Minute}
}

// answered makes m want a reply.
func answered(m message.Message) message.Message {
	m.ReplyMethod, m.ReplyMethodArgs = answer, m.Data[:1]
	return m
}

// series makes messages numbered from first to last.
func series(to *simNode, method message.Method, first, last int, what ...string) []message.Message {
	var msgs []message.Message
	for n := first; n <= last; n++ {
		msgs = append(msgs, do(to, method, n, what...))
	}
	return msgs
}

// methods are those of one life of a node.
func (l *life) methods() []process.Spec {
	simple := func(name message.Method, ordered bool, crash process.Crash) process.Spec {
		spec := process.Spec{Name: name, Kind: kind, Ordered: ordered, Crash: crash, Run: l.run}
		if name != none {
			spec.MinArgs = 1
		}
		return spec
	}
	appends := func(name message.Method) process.Spec {
		return process.Spec{Name: name, Kind: kind, Ordered: true, Crash: process.Exact, RunAll: l.runAll, Mark: l.mark, Undo: l.undo}
	}
	return []process.Spec{simple(repeat, true, process.Repeat), simple(once, true, process.Once), simple(manyOnce, false, process.Once),
		simple(resumes, false, process.Resume), simple(none, false, process.Repeat), appends(exact), appends(answer)}
}

// began records a run; it is false when the node is dead, and then nothing happened.
func (l *life) began(c *process.Call) bool {
	w, m := l.n.w, c.Message
	w.mu.Lock()
	defer w.mu.Unlock()
	if !l.alive() {
		return false
	}
	r := run{node: l.n.name, from: m.From, method: m.Method, id: m.ID, n: number(m), attempt: c.Attempt, life: l.number, at: time.Now(),
		part: m.Part, inReplyTo: m.InReplyTo, result: m.Result, body: string(m.Body)}
	w.runs = append(w.runs, r)
	return true
}

func number(m *message.Message) int {
	if len(m.Data) == 0 {
		return -1
	}
	n, err := strconv.Atoi(m.Data[0])
	if err != nil {
		return -1
	}
	return n
}

func (l *life) run(ctx context.Context, c *process.Call) (process.Outcome, error) {
	if !l.began(c) {
		return process.Outcome{}, errDown
	}
	out := process.Outcome{Exit: -1}
	if c.Message.IsReply() {
		return out, nil
	}
	for _, what := range c.Message.Data[1:] {
		verb, arg, _ := strings.Cut(what, "=")
		if verb == "body" {
			out.Body = []byte(arg)
			continue
		}
		if verb == "parts" {
			parts, _ := strconv.Atoi(arg)
			for i := range parts {
				if err := c.Emit(ctx, fmt.Append(nil, "part ", i)); err != nil {
					return out, err
				}
			}
			continue
		}
		if err := l.act(ctx, c, verb, arg); err != nil {
			return out, err
		}
	}
	return out, nil
}

// act does what a message asks for.
func (l *life) act(ctx context.Context, c *process.Call, verb, arg string) error {
	count, _ := strconv.Atoi(arg)
	switch verb {
	case "sleep":
		d, _ := time.ParseDuration(arg)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
		}
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "fail":
		return errors.New("it was told to fail")
	case "failures":
		if c.Attempt <= count {
			return errors.New("it was told to fail")
		}
	case "steps":
		from, _ := strconv.Atoi(string(c.Noted))
		for i := from; i < count; i++ {
			if err := l.act(ctx, c, "sleep", "1s"); err != nil {
				return err
			}
			if err := c.EmitNoting(ctx, fmt.Append(nil, "step ", i), fmt.Append(nil, i+1)); err != nil {
				return err
			}
		}
	case "panic":
		panic("it was told to panic")
	case "later":
		w := l.n.w
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.tries[c.Message.ID]++; w.tries[c.Message.ID] <= count {
			return fmt.Errorf("the disk is full: %w", process.ErrTryLater)
		}
	}
	return nil
}

// runAll appends an entry for each call to the sender's file. When one has to wait, those
// behind it do too.
func (l *life) runAll(ctx context.Context, calls []*process.Call) []error {
	errs := make([]error, len(calls))
	for i, c := range calls {
		for _, what := range c.Message.Data[min(1, len(c.Message.Data)):] {
			verb, arg, _ := strings.Cut(what, "=")
			if errs[i] == nil {
				errs[i] = l.act(ctx, c, verb, arg)
			}
		}
		if errs[i] == nil {
			errs[i] = l.append(c)
		}
		if errors.Is(errs[i], process.ErrTryLater) || ctx.Err() != nil {
			for j := i; j < len(calls); j++ {
				errs[j] = errs[i]
			}
			break
		}
	}
	return errs
}

func (l *life) append(c *process.Call) error {
	d, m := &l.n.disk, c.Message
	d.mu.Lock()
	onWrite := d.onWrite
	if !l.began(c) {
		d.mu.Unlock()
		return errDown
	}
	file := fileOf(m)
	d.files[file] = append(d.files[file], entry{m.From, m.ID, number(m), m.Part, m.ACKTimeout <= 0, m.InReplyTo, m.Result != nil})
	d.mu.Unlock()
	if onWrite != nil {
		onWrite()
	}
	return nil
}

func fileOf(m *message.Message) string { return string(m.Method) + " from " + string(m.From) }

// mark notes the lengths of the files.
func (l *life) mark(calls []*process.Call) ([]byte, error) {
	d := &l.n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	lengths := map[string]int{}
	for _, c := range calls {
		if slices.Contains(c.Message.Data, "panic in mark") {
			panic("it was told to panic")
		}
		file := fileOf(c.Message)
		lengths[file] = len(d.files[file])
	}
	return json.Marshal(lengths)
}

// undo cuts the files back to their lengths.
func (l *life) undo(_ *process.Env, mark []byte) error {
	lengths := map[string]int{}
	if err := json.Unmarshal(mark, &lengths); err != nil {
		return err
	}
	d := &l.n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if !l.alive() {
		return errDown
	}
	for file, n := range lengths {
		d.files[file] = d.files[file][:min(n, len(d.files[file]))]
	}
	return nil
}

// ran returns the runs on a node.
func (n *simNode) ran(methods ...message.Method) []run {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	var all []run
	for _, r := range n.w.runs {
		if r.node == n.name && slices.Contains(methods, r.method) {
			all = append(all, r)
		}
	}
	return all
}

// numbers are those of the runs on a node, in order.
func (n *simNode) numbers(methods ...message.Method) []int {
	var all []int
	for _, r := range n.ran(methods...) {
		all = append(all, r.n)
	}
	return all
}

// file returns the numbers in a file, in order.
func (n *simNode) file(method message.Method, from *simNode) []int {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var all []int
	for _, e := range n.disk.files[string(method)+" from "+string(from.name)] {
		all = append(all, e.n)
	}
	return all
}

func upTo(n int) []int {
	var all []int
	for i := 1; i <= n; i++ {
		all = append(all, i)
	}
	return all
}
