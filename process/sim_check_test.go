package process_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"steward/kvstore"
	"steward/message"
)

// check looks whether what is promised was kept, when all nodes are up and quiet. Messages
// have to be numbered upwards for each sender, receiver and method.
func (w *world) check() {
	w.t.Helper()
	w.checkOrder()
	for i := range w.asked {
		w.checkOnce(&w.asked[i])
		w.checkEnd(&w.asked[i])
	}
	for _, n := range w.nodes {
		if waits := n.up.waiting(); waits != "" {
			w.fault("%s: still waiting: %s", n.name, waits)
		}
		if messages, bytes, err := n.up.kv.Sizes(); err != nil || messages != 0 || bytes != 0 {
			w.fault("%s: the ring counts %d messages and %d bytes: %v", n.name, messages, bytes, err)
		}
	}
}

// wasLost reports whether the node has lost its store, or a part of it, after the message was
// handed in.
func (w *world) wasLost(n message.Node, a *asked) bool {
	return slices.ContainsFunc(w.lost, func(l loss) bool { return l.node == n && a.at < l.before })
}

// floor is the highest number of a stream that was handed in before one of its ends has lost its
// store. What is not above it may have come back later than it should, or a second time.
func (w *world) floor(from, to message.Node, method message.Method) int {
	highest := 0
	for i := range w.asked {
		a := &w.asked[i]
		if a.by == from && a.To == to && a.Method == method && (w.wasLost(from, a) || w.wasLost(to, a)) {
			highest = max(highest, a.n)
		}
	}
	return highest
}

// known returns the ends that are known to the senders.
func (w *world) known() map[message.ID]message.State {
	ends := map[message.ID]message.State{}
	for i := range w.asked {
		a := &w.asked[i]
		if l, err := w.named(a.by).up.kv.Sent(a.ID); err == nil && l.State.Final() {
			ends[a.ID] = l.State
		}
	}
	return ends
}

// checkOrder: for one sender, receiver and method, messages begin in the order in which they
// were accepted. What may be run again after a crash begins where it was cut off.
func (w *world) checkOrder() {
	w.t.Helper()
	type stream struct {
		from, to message.Node
		method   message.Method
	}
	newest := map[stream]run{} // by its number
	latest := map[stream]run{}
	floors := map[stream]int{}
	for _, r := range w.runs {
		if r.method != repeat && r.method != once {
			continue
		}
		s := stream{r.from, r.node, r.method}
		floor, ok := floors[s]
		if !ok {
			floor = w.floor(s.from, s.to, s.method)
			floors[s] = floor
		}
		if r.n <= floor {
			continue
		}
		last, top := latest[s], newest[s]
		again := r.n == last.n && (r.attempt > last.attempt || r.attempt == last.attempt && w.tries[r.id] > 0)
		switch {
		case last.life == r.life && r.n <= last.n && !again,
			last.life != r.life && r.n <= top.n && r.method == once && !again:
			w.fault("P3: %s from %s on %s: number %d (attempt %d) began after %d (attempt %d)",
				r.method, r.from, r.node, r.n, r.attempt, last.n, last.attempt)
		}
		latest[s] = r
		if r.n >= top.n {
			newest[s] = r
		}
	}
	for _, n := range w.nodes {
		for file, entries := range n.disk.files {
			seen := map[message.ID]bool{}
			last := 0
			for _, e := range entries {
				if e.unacked || // and so not kept from coming twice
					file == string(answer)+" from "+string(e.from) && slices.ContainsFunc(w.lost, func(l loss) bool { return l.node == n.name }) ||
					file == string(exact)+" from "+string(e.from) && e.n <= w.floor(e.from, n.name, exact) {
					continue
				}
				if seen[e.id] {
					w.fault("P2: %s on %s: number %d (%s) was appended twice", file, n.name, e.n, e.id)
				}
				seen[e.id] = true
				if file == string(exact)+" from "+string(e.from) {
					if e.n <= last {
						w.fault("P3: %s on %s: %d behind %d", file, n.name, e.n, last)
					}
					last = e.n
				}
			}
		}
	}
}

// begun returns the runs of a message.
func (w *world) begun(a *asked) []run {
	var runs []run
	for _, r := range w.runs {
		if r.method == a.Method && r.from == a.by && r.node == a.To && r.n == a.n {
			runs = append(runs, r)
		}
	}
	return runs
}

// checkOnce: no run of a method that is not to be repeated begins twice, and it begins again
// only as often as the message says.
func (w *world) checkOnce(a *asked) {
	w.t.Helper()
	if a.Method != once && a.Method != manyOnce || w.wasLost(a.To, a) {
		return
	}
	last := 0
	for _, r := range w.begun(a) {
		if r.attempt == last && w.tries[r.id] > 0 {
			continue // it said itself that it did nothing
		}
		if r.attempt <= last || r.attempt > 1+a.MethodRetries {
			w.fault("P2: %s %d from %s on %s: attempt %d after attempt %d, %d retries",
				a.Method, a.n, a.by, a.To, r.attempt, last, a.MethodRetries)
		}
		last = r.attempt
	}
}

// appended counts the entries of a message in a file.
func (n *simNode) appended(a *asked) int {
	count := 0
	for _, e := range n.disk.files[fileOf(&message.Message{Method: a.Method, From: a.by})] {
		if e.n == a.n {
			count++
		}
	}
	return count
}

// checkEnd: a message that was accepted has an end, and the end is true.
func (w *world) checkEnd(a *asked) {
	w.t.Helper()
	if a.ID.IsZero() {
		return // the node died before it said yes: both are right
	}
	sender, receiver := w.named(a.by), w.named(a.To)
	life, err := sender.up.kv.Sent(a.ID)
	senderLost, receiverLost := w.wasLost(a.by, a), w.wasLost(a.To, a)
	if senderLost && errors.Is(err, kvstore.ErrNotFound) {
		return
	}
	sender.must(err)
	fail := func(what string) {
		w.fault("P4: %s %d (%s) from %s to %s ended as %s, %s %q: %s", a.Method, a.n, a.ID, a.by, a.To, life.State, life.Code, life.Text, what)
	}
	_, dead := sender.dead()[a.ID]
	runs := len(w.begun(a))
	if a.Method == exact {
		runs = receiver.appended(a)
	}
	switch {
	case !life.State.Final():
		l, err := receiver.up.kv.Received(a.ID)
		fail(fmt.Sprintf("this is no end; its receiver knows %s, %s %q, %v", l.State, l.Code, l.Text, err))
	case w.ends[a.ID] != "" && w.ends[a.ID] != life.State:
		fail("before that it ended as " + string(w.ends[a.ID]))
	case strings.Contains(life.Text, "no longer knows it") && !receiverLost:
		fail("its receiver has lost nothing")
	case a.AwaitsReply() && a.ACKTimeout > 0 && a.Schedule == nil && !senderLost && !receiverLost && !sender.hasReply(&life):
		fail("the reply is not there, or more than one")
	case a.Schedule != nil && life.Code == message.CodeRemoved && (!life.Delivered.IsZero() || !life.Started.IsZero()):
		// Its further runs were, where it had arrived, maybe without an ACK that came back.
	case dead != givenUp(&life) && a.ACKTimeout > 0:
		fail("whether there is a dead letter does not agree with that")
	case receiverLost:
		return
	case life.State == message.StateDone && runs == 0 && a.ACKTimeout > 0:
		// Without a reply, the end of the run is not known here.
		if l, err := receiver.up.kv.Received(a.ID); a.AwaitsReply() || err != nil || l.State == message.StateDone {
			fail("it never ran")
		}
	case life.Code == message.CodeExpired && a.TTL == 0, life.Code == message.CodeInvalid && len(a.Data) > 0,
		life.Code == message.CodeDenied && !slices.Contains(receiver.denied, a.Method), life.Code == message.CodeRemoved && !sender.cleared && (a.Schedule == nil || !receiver.cleared):
		fail("there is no reason for that")
	case (life.Code == message.CodeInvalid || life.Code == message.CodeDenied) && runs > 0:
		fail("it was run")
	}
	if runs > 0 || a.ACKTimeout == 0 {
		return
	}
	// What the sender holds for delivered has its end at the receiver.
	if !life.Delivered.IsZero() && life.Attempts > 0 {
		if l, err := receiver.up.kv.Received(a.ID); err != nil || !l.State.Final() {
			fail("the receiver does not know its end")
		}
	}
}

// hasReply reports whether as many replies have come as the life of a message says: one, or
// none when that was given up, or the message itself.
func (n *simNode) hasReply(l *kvstore.Life) bool {
	count := 0
	for _, e := range n.disk.files[string(answer)+" from "+string(l.Peer)] {
		if e.inReplyTo == l.ID && e.last {
			count++
		}
	}
	return count == 1 || count == 0 && (givenUp(l) || strings.Contains(l.Text, "its reply was given up"))
}

// givenUp: what became a dead letter, and was not corrected by a result.
func givenUp(l *kvstore.Life) bool {
	switch l.Code {
	case message.CodeUnreachable, message.CodeDenied, message.CodeInvalid, message.CodeRemoved:
		return true
	case message.CodeExpired:
		return l.Delivered.IsZero() && l.Started.IsZero()
	}
	return false
}

func (w *world) named(name message.Node) *simNode {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	w.t.Fatalf("no node %s", name)
	return nil
}
