package nameguard

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/message/wire"
	"steward/process/transport/internal/subjects"
)

const (
	// answerWait is how long a question waits when the broker knows of somebody who
	// listens: it may be a connection of this very node, from before a crash, that the
	// broker has not given up yet. Once another node has been heard of, its silence has to
	// last for patience.
	answerWait = 2 * time.Second
	patience   = 10 * time.Second
	// firstWait and longestWait bound the growing time between two questions of a node that
	// stands aside.
	firstWait   = time.Second
	longestWait = 30 * time.Second
	// courtesy is how long it waits with that after a connect.
	courtesy = 10 * time.Second
	// lookEvery is the time between two questions of a node that has its name, soonest that
	// between two which others bring about.
	lookEvery = time.Minute
	soonest   = time.Second
	// flushWait bounds how long the broker may take to note the subscriptions.
	flushWait = 10 * time.Second
	// memory is how long a conflict counts as lasting after it was last heard of. It is
	// longer than longestWait and lookEvery.
	memory = 3 * time.Minute
	// remind is the time between two reports of one conflict; another node on the other side
	// is told about after tellEvery.
	remind    = time.Hour
	tellEvery = time.Minute
	// margin is how many milliseconds one has to have had the name for longer than the
	// other, for that to decide. It is more than a question and an answer take.
	margin = 10_000
)

// phase is what a node knows about its name.
type phase uint8

const (
	asking  phase = iota // whether somebody has it
	aside                // somebody has it
	holding              // it is its own
)

// guard is the state of the goroutine that run is.
type guard struct {
	*Transport
	phase phase
	since time.Time     // holding: since when
	wait  time.Duration // aside: before the last question
	timer *time.Timer   // asking: no answer came; else: the time for the next question

	// questions are the last ones asked: a late answer is one all the same.
	questions []question
	provoked  time.Time // when a question of another was last answered with one of our own
	told      told
}

// question is one of this node's own.
type question struct {
	to   string // the last part of the subject for its answer
	held int64  // for how long the name had been held by then
}

const maxQuestions = 4

// told is what was last reported.
type told struct {
	token  string
	yields bool // this node stands aside
	at     time.Time
}

// run keeps the name, or waits for it, as long as the transport is open.
func (t *Transport) run(ctx context.Context) {
	defer close(t.ended)
	g := guard{Transport: t, timer: time.NewTimer(0)}
	g.timer.Stop()
	defer g.timer.Stop()
	for {
		open, changed := t.opts.Opened()
		g.link(ctx, open)
		for lasts := true; lasts; {
			select {
			case <-ctx.Done():
				return
			case <-changed: // a change counts also when it is over already
				lasts = false
			case <-g.timer.C:
				g.due(ctx)
			case h := <-t.heard:
				g.handle(ctx, h)
			}
		}
		t.mu.Lock()
		t.open = false
		t.state.Set(false)
		t.mu.Unlock()
	}
}

// link takes note of a link that came or went.
func (g *guard) link(ctx context.Context, open bool) {
	g.timer.Stop()
	switch {
	case !open:
	case g.phase == holding: // inner has told the broker of all subscriptions
		g.mu.Lock()
		added := g.added
		g.begin()
		g.mu.Unlock()
		g.look()
		g.confirm(ctx, added)
	case g.aside: // a broker that was away comes back for both: the other one goes first
		g.phase = aside
		g.timer.Reset(courtesy)
	default:
		g.ask()
	}
}

// due is called when the time set last has come.
func (g *guard) due(ctx context.Context) {
	switch g.phase {
	case asking:
		g.opts.Log.Debug("nobody answers to the name")
		g.take(ctx)
	case aside:
		g.ask()
	case holding:
		if up, _ := g.state.Get(); !up {
			g.mu.Lock()
			added := g.added
			g.mu.Unlock()
			g.confirm(ctx, added)
			return
		}
		g.look()
	}
}

// ask asks whether somebody has the name, before this node takes it.
func (g *guard) ask() {
	g.phase = asking
	g.send()
	wait := answerWait
	if g.Conflict() {
		wait = patience
	}
	g.timer.Reset(wait)
}

// look asks whether somebody else has the name too.
func (g *guard) look() {
	g.send()
	g.timer.Reset(lookEvery + mathrand.N(lookEvery/4)) // a fleet does not ask in one moment
}

func (g *guard) send() {
	q := question{to: strings.ToLower(rand.Text()), held: g.heldFor()}
	if len(g.questions) == maxQuestions {
		g.questions = g.questions[:copy(g.questions, g.questions[1:])]
	}
	g.questions = append(g.questions, q)
	g.publish(g.name, g.name+"."+q.to, q.held)
}

// heldFor is for how many milliseconds this node has had the name: 0 only if it has it not.
func (g *guard) heldFor() int64 {
	if g.phase != holding {
		return 0
	}
	return max(1, time.Since(g.since).Milliseconds())
}

func (g *guard) publish(subject, reply string, held int64) {
	b, err := wire.EncodeClaim(&wire.Claim{Token: g.token, Held: held, Host: g.opts.Host, PID: int64(g.opts.PID)})
	if err == nil {
		if g.opts.Claims != nil {
			b = g.opts.Claims.SignClaim(subject, reply, b)
		}
		err = g.opts.Inner.Publish(subject, reply, b)
	}
	if err != nil { // no link: the next one brings the next question
		g.opts.Log.Debug("not sent", logattr.Subject(subject), logattr.Err(err))
	}
}

func (g *guard) handle(ctx context.Context, h heard) {
	if h.to == "" {
		g.challenged(h)
		return
	}
	for i, q := range g.questions {
		if q.to != h.to {
			continue
		}
		switch {
		case h.claim != nil:
			g.contradicted(q, h.claim)
		case g.phase == asking && i == len(g.questions)-1:
			g.take(ctx)
		}
		return
	}
}

// challenged answers the question of another node with this node's name.
func (g *guard) challenged(h heard) {
	if g.phase != holding {
		return // it came before the subscription was closed
	}
	held := g.heldFor()
	if subjects.Match(g.name+".*", h.reply) { // no other subject is ours to publish to
		g.publish(h.reply, "", held)
	}
	if h.claim.Held == 0 || keeps(g.token, held, h.claim) {
		g.conflict(h.claim, false)
	}
	if h.claim.Held == 0 {
		return
	}
	// Who of the two stands aside is found by asking.
	if wait := soonest - time.Since(g.provoked); wait > 0 {
		g.timer.Reset(wait)
		return
	}
	g.provoked = time.Now()
	g.look()
}

// contradicted takes the answer of a node that has the name, to a question of our own.
func (g *guard) contradicted(q question, c *wire.Claim) {
	if c.Held == 0 {
		return
	}
	// What is compared is what held when the question was sent, so that each of the two
	// takes the other for older than it is. Both may stand aside then, for a moment, but
	// never do both stay.
	if g.phase == holding && keeps(g.token, q.held, c) {
		g.conflict(c, false)
		return
	}
	g.leave()
	g.phase = aside
	g.mu.Lock()
	g.aside = true
	g.mu.Unlock()
	g.conflict(c, true)
	g.wait = min(max(2*g.wait, firstWait), longestWait)
	g.timer.Reset(g.wait + mathrand.N(g.wait/2))
}

// keeps decides which of two that have one name keeps it. Both come to the same result when
// they compare the same times.
func keeps(token string, held int64, other *wire.Claim) bool {
	if longer := held - other.Held; longer > margin || longer < -margin {
		return longer > 0
	}
	return token > other.Token
}

// take puts the node on the air.
func (g *guard) take(ctx context.Context) {
	added, err := g.join()
	if err == nil {
		g.phase, g.since = holding, time.Now()
		err = g.flush(ctx, added)
	}
	if err != nil {
		g.leave()
		g.phase = aside
		g.timer.Reset(firstWait)
		g.opts.Log.Debug("subscriptions are not in force", logattr.Err(err))
		return
	}
	g.mu.Lock()
	was := g.aside
	g.aside = false
	g.mu.Unlock()
	if was {
		g.opts.Log.Info("the name is free: this node is on the air again")
	}
	g.wait = 0
	g.look() // another may have found the name free in the same moment
}

// flush says that there is a link once the broker has taken note of all subscriptions: those that
// were added are known to it, others may have come since.
func (g *guard) flush(ctx context.Context, added int) error {
	for ok := false; !ok; {
		flush, cancel := context.WithTimeout(ctx, flushWait)
		err := g.opts.Inner.Flush(flush)
		cancel()
		if err != nil {
			return err
		}
		added, ok = g.up(added)
	}
	return nil
}

// confirm is flush for a node that had the name before the link came.
func (g *guard) confirm(ctx context.Context, added int) {
	if err := g.flush(ctx, added); err != nil { // a link that has ended meanwhile tells so
		g.timer.Reset(firstWait)
		g.opts.Log.Debug("subscriptions are not in force", logattr.Err(err))
	}
}

// conflict notes that another node with this name was heard of, and reports it when that
// is news.
func (g *guard) conflict(c *wire.Claim, yields bool) {
	now := time.Now()
	g.mu.Lock()
	lasts := g.recent()
	g.seen = now
	g.mu.Unlock()
	after := now.Sub(g.told.at)
	same := g.told.token == c.Token
	if lasts && g.told.yields == yields && (same && after < remind || !same && after < tellEvery) {
		return
	}
	g.told = told{token: c.Token, yields: yields, at: now}
	what := "that one stands aside"
	if yields {
		what = "this one stands aside, takes and sends nothing, until that one has ended"
	}
	g.opts.Report.Report(errorkernel.Event{Class: errorkernel.NameTaken, Process: "transport", Err: fmt.Errorf(
		"two nodes are named %s: this one on host %s, process id %d, and one on host %s, process id %d; %s; give one of them another -nodeName",
		g.opts.Self, cmp.Or(g.opts.Host, "?"), g.opts.PID, cmp.Or(c.Host, "?"), c.PID, what)})
}
