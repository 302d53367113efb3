package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"steward/client"
	"steward/message"
)

// live are lines at the bottom of a terminal that change in their place, below whatever else is written. It may be used by many
// goroutines at once.
type live struct {
	file *os.File

	mu    sync.Mutex // guards what follows, and the terminal
	lines []string   // as they are on the screen
}

// draw puts lines in the place of those before.
func (l *live) draw(lines ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	columns, rows := sizeOf(l.file)
	lines = slices.Clone(lines[:min(len(lines), max(1, rows-1))])
	for i := range lines {
		lines[i] = fit(oneLineKeeping(lines[i]), columns-1) // a line that is full moves the cursor in its own way
	}
	if slices.Equal(lines, l.lines) {
		return // the link to the terminal may be a thin one
	}
	l.change(func(b *strings.Builder) { l.lines = lines })
}

// above writes text that stays, in whole lines.
func (l *live) above(w io.Writer, text []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(func(b *strings.Builder) {
		if w == io.Writer(l.file) { // in one piece, so that nothing flickers
			n = len(text)
			b.Write(text)
			return
		}
		_, _ = io.WriteString(l.file, b.String())
		b.Reset()
		n, err = w.Write(text)
	})
	return n, err
}

// change takes the lines off the screen, has something done, and puts them back. l.mu is held.
func (l *live) change(do func(*strings.Builder)) {
	var b strings.Builder
	columns, _ := sizeOf(l.file)
	up := 0
	for _, line := range l.lines { // a screen that has become narrower has broken them
		up += max(1, (widthOf(line)+columns-1)/columns)
	}
	if up > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA\x1b[J", up)
	}
	do(&b)
	for _, line := range l.lines {
		b.WriteString(line + "\n")
	}
	_, _ = io.WriteString(l.file, b.String()) // a terminal that is gone shows nothing
}

// aboveLive is a writer of whole lines above those that are live.
type aboveLive struct {
	l *live
	w io.Writer
}

func (a aboveLive) Write(p []byte) (int, error) { return a.l.above(a.w, p) }

// lookEvery is how often the live lines of run are made anew.
const lookEvery = 250 * time.Millisecond

// runLive are the live lines of run: how it stands on each node.
type runLive struct {
	live
	e     *errands
	began time.Time
	drop  time.Time // when what was not delivered is dropped; zero: never
	stop  func()    // ends it, and takes the lines away

	state sync.Mutex // guards what follows
	at    map[*errand]client.Status
	away  map[*errand]client.Away
}

// runLive begins to show how errands stand, or returns nil when there is no terminal for that.
func (c *call) runLive(ctx context.Context, e *errands, timeout time.Duration) *runLive {
	file := c.terminal(c.err)
	if file == nil || c.json {
		return nil
	}
	r := &runLive{live: live{file: file}, e: e, began: time.Now(), at: map[*errand]client.Status{}, away: map[*errand]client.Away{}}
	if timeout > 0 {
		r.drop = r.began.Add(timeout)
	}
	ctx, cancel := context.WithCancel(ctx)
	var over sync.WaitGroup
	over.Go(func() { r.watch(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		over.Wait()
		r.draw()
	})
	return r
}

// watch asks how the messages stand, and shows it, until ctx ends.
func (r *runLive) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, x := range r.e.all {
			if before := r.of(x); before.Ended || ctx.Err() != nil {
				continue
			}
			if st, err := r.e.local.Status(ctx, x.ID); err == nil { // else as it was
				r.state.Lock()
				r.at[x] = st
				r.state.Unlock()
			}
		}
		if ctx.Err() != nil {
			return
		}
		_, rows := sizeOf(r.file)
		r.draw(r.text(rows-1, time.Now())...)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *runLive) of(x *errand) client.Status {
	r.state.Lock()
	defer r.state.Unlock()
	return r.at[x]
}

// noteAway notes when a node that is away was heard of last.
func (r *runLive) noteAway(x *errand, a *client.Away) {
	r.state.Lock()
	defer r.state.Unlock()
	r.away[x] = *a
}

// text is a line for each node, or, when there is no room for that, for those that count, and one for the rest.
func (r *runLive) text(room int, now time.Time) []string {
	r.state.Lock()
	defer r.state.Unlock()
	width := 0
	for _, x := range r.e.all {
		width = max(width, widthOf(string(x.Node)))
	}
	line := func(x *errand) string {
		st := r.at[x]
		return fmt.Sprintf("%-*s  %s", width, x.Node, r.stands(x, &st, now))
	}
	if len(r.e.all) <= room {
		var lines []string
		for _, x := range r.e.all {
			lines = append(lines, line(x))
		}
		return lines
	}
	var lines []string
	ended, rest := 0, 0
	for _, x := range r.e.all {
		switch st := r.at[x]; {
		case st.Ended:
			ended++
		case len(lines) < room-1:
			lines = append(lines, line(x))
		default:
			rest++
		}
	}
	return append(lines, fmt.Sprintf("%d of %d have ended, %d more wait or run", ended, len(r.e.all), rest))
}

// stands says how a message stands.
func (r *runLive) stands(x *errand, st *client.Status, now time.Time) string {
	l := st.Sent
	switch since := wholeSpan(now.Sub(r.began)); {
	case l == nil:
		return "is handed in"
	case st.Ended:
		return endedText(x, st)
	case l.State != message.StateAccepted && x.wrote.Load():
		return "runs, " + sinceDelivered(st, now)
	case l.State != message.StateAccepted:
		return "has it, " + sinceDelivered(st, now) + "; it runs, or waits for its turn"
	case st.Delivery != nil && !st.Delivery.Linked:
		return "waits, " + since + "; there is no link to the broker" + r.next(st, now)
	case st.Delivery != nil && st.Delivery.Denied:
		return "waits, " + since + ": " + st.Delivery.Reason + r.next(st, now)
	case st.Delivery != nil && (st.Delivery.Attempts > 0 || st.Delivery.Reason != ""):
		text := "away"
		if a, ok := r.away[x]; ok && a.Heard != nil {
			text += ", last heard of " + wholeSpan(now.Sub(*a.Heard)) + " ago" + ofKey(a.Key)
		} else if ok {
			text += cmp.Or(ofKey(a.Key), ", not heard of since this node started")
		}
		return text + "; waits, " + since + r.next(st, now)
	default:
		return "is sent it, " + since
	}
}

func sinceDelivered(st *client.Status, now time.Time) string {
	if st.Sent.Delivered == nil {
		return "now"
	}
	return wholeSpan(now.Sub(*st.Sent.Delivered))
}

// next says what becomes of a message that waits.
func (r *runLive) next(st *client.Status, now time.Time) string {
	text := ""
	if d := st.Delivery; d.Next != nil {
		text = "; again in " + wholeSpan(d.Next.Sub(now))
	}
	if !r.drop.IsZero() {
		text += "; dropped in " + wholeSpan(r.drop.Sub(now))
	}
	return text
}

// endedText says how a message has ended, and after which time.
func endedText(x *errand, st *client.Status) string {
	why, code := x.failedAt(st, notRun)
	after := ""
	if l := st.Life(); l.Ended != nil {
		after = " after " + span(l.Ended.Sub(st.Accepted))
	}
	if code == exitDone {
		return "done" + after
	}
	if l := st.Sent; l != nil && l.State == message.StateExpired {
		return why // which is when its time was over
	}
	return why + after
}

// rest leaves the lines where they are, when nobody waits any more.
func (r *runLive) rest() {
	for _, line := range r.text(len(r.e.all), time.Now()) {
		_, _ = fmt.Fprintln(r.file, oneLineKeeping(line))
	}
}

// sum prints how it has ended everywhere.
func (r *runLive) sum() {
	width, counts := 0, map[string]int{}
	for _, x := range r.e.all {
		width = max(width, widthOf(string(x.Node)))
	}
	var b strings.Builder
	for _, x := range r.e.all {
		text := ""
		switch why, _ := x.failed(notRun); {
		case x.status.Ended:
			text = endedText(x, &x.status)
		default:
			text = why
		}
		counts[x.end()]++
		fmt.Fprintf(&b, "%-*s  %s\n", width, x.Node, oneLine(text))
	}
	if len(r.e.all) > 1 {
		var parts []string
		for _, what := range ends {
			if n := counts[what]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, what))
			}
		}
		fmt.Fprintf(&b, "%s: %s, after %s\n", count(len(r.e.all), "node"), strings.Join(parts, ", "), span(time.Since(r.began)))
	}
	_, _ = io.WriteString(r.file, b.String())
}
