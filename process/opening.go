package process

import (
	"errors"
	"fmt"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/message"
	"steward/message/wire"
)

// open checks and decodes a frame: nothing of it is looked at before its signature fits. With an
// error it returns what is known of the frame by then, f may be nil.
func (s *Subscriber) open(d Delivery) (f *wire.Frame, p proof, err error) {
	p, err = s.opts.Signatures.open(forFrame, d, func() (from message.Node, err error) {
		if f, err = s.opts.Codec.DecodeFrame(d.Data); err == nil {
			from = f.From
		}
		return from, err
	})
	if err != nil {
		return f, p, err
	}
	return f, p, s.belongs(f, d)
}

// refuse reports a frame, and tells its sender. That settles nothing there: a frame that somebody
// else has made must not harm those of the one whose name it bears.
func (s *Subscriber) refuse(d Delivery, f *wire.Frame, p proof, why error) {
	from := ackNode(d.Reply)
	if f != nil {
		from = f.From
	}
	class, code := errorkernel.Refused, message.CodeInvalid
	if u := (*unproven)(nil); errors.As(why, &u) {
		class, code = errorkernel.Unproven, message.CodeDenied
		why = fmt.Errorf("frame that says to be from %s: %w", orUnknown(from), why)
		p.signed = u.reason != noSignature // by whomever, and so it can read what is signed
	}
	s.opts.Report.Report(errorkernel.Event{Class: class, Process: s.process, Subject: d.Subject, From: from, Err: why})
	s.answer(d.Reply, p, &wire.Ack{By: s.opts.Env.Self, To: from, Method: s.opts.Spec.Name, Code: code, Text: why.Error()})
}

// fresh says whether a frame was written for this start of this node. If not, its sender is told
// how to write it.
func (s *Subscriber) fresh(d Delivery, f *wire.Frame, p proof) bool {
	ok, next, err := s.opts.Signatures.fresh(p, f)
	if err != nil {
		s.opts.Report.Report(errorkernel.Event{Class: errorkernel.Unproven, Process: s.process, Subject: d.Subject, From: f.From,
			Err: fmt.Errorf("frame from %s: %w", f.From, err)})
	}
	if ok {
		return true
	}
	s.log.Debug("a frame does not name this start of the node", logattr.From(f.From))
	a := wire.Ack{By: s.opts.Env.Self, To: f.From, Method: f.Method, Epoch: f.Epoch}
	if f.Epoch == 0 {
		a.Next = next
	}
	s.answer(d.Reply, p, &a)
	return false
}

func orUnknown(n message.Node) string {
	if n == "" {
		return "somebody"
	}
	return string(n)
}
