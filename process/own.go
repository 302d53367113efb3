package process

import (
	"context"
	"fmt"
	"time"

	"steward/kvstore"
	"steward/message"
)

// own reports whether m was sent by this node itself, and is no reply: then its headers
// are from here too.
func (s *Subscriber) own(m *message.Message) bool {
	return m.From == s.opts.Env.Self && !m.IsReply()
}

// rename puts the node in whose name a message of this node is in the place of its sender.
func (s *Subscriber) rename(m *message.Message) {
	if from := message.Node(m.Headers[message.HeaderFrom]); from != "" && s.own(m) {
		m.From = from
	}
}

// mayRun returns what says whether messages that have waited may still be run, as things stand. peer is
// the node that they came from, whatever their names say; this node always may.
func (s *Subscriber) mayRun(peer message.Node) func(*message.Message) error {
	if peer == s.opts.Env.Self {
		return func(*message.Message) error { return nil }
	}
	known, allowed := s.opts.Signatures.known(peer), s.opts.Allowed()
	return func(m *message.Message) error {
		why := known
		if why == nil {
			why = allowed(peer, m)
		}
		if why != nil {
			return fmt.Errorf("%w; it was allowed when it arrived", s.denied(peer, why))
		}
		return nil
	}
}

func (s *Subscriber) denied(from message.Node, why error) error {
	return fmt.Errorf("%s %w %s on %s: %w", from, errDenied, s.opts.Spec.Name, s.opts.Env.Self, why)
}

// outdated reports whether m belongs to an earlier start of this node.
func (s *Subscriber) outdated(m *message.Message) bool {
	start := m.Headers[message.HeaderStart]
	return start != "" && s.own(m) && start != s.opts.Start
}

// prepare ends what belongs to an earlier start of this node, without a word to central and
// with one to nobody but the life of the message: this start has its own. It returns the rest, with the senders that methods are to
// see. An Exact method finishes what it has begun. The error is that of the node's stop.
func (l *lane) prepare(ctx context.Context, waiting []kvstore.Waiting) ([]kvstore.Waiting, error) {
	if l.id.Peer != l.s.opts.Env.Self {
		return waiting, nil
	}
	rest := waiting[:0]
	for _, w := range waiting {
		if l.s.opts.Spec.Crash == Exact || !l.s.outdated(w.Message) {
			l.s.rename(w.Message)
			rest = append(rest, w)
			continue
		}
		mark := uint64(0)
		if w.Mark != nil {
			mark = w.Arrival
		}
		res := message.Result{Code: message.CodeExpired, Text: "it belonged to an earlier start of the node", Exit: -1, Started: time.Now()}
		f := kvstore.Finished{Arrival: w.Arrival, Message: w.Message, Result: res}
		if w.Message.AwaitsReply() {
			f.Reply = l.s.replyTo(w.Message, nil, &res, 0)
			f.Reply.Method = message.MethodNone
		}
		if err := l.finish(ctx, mark, []kvstore.Finished{f}); err != nil {
			return nil, err
		}
	}
	return rest, nil
}
