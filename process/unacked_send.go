package process

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// unackedSent are the last messages without ACK that were sent without naming the start of their
// receivers, by the token of the subject for answers. Who requires that has not taken them, says
// so, and gets them once more. What does name it is never sent again: nobody could tell whether it
// was taken.
type unackedSent struct {
	count  uint64
	tokens [unackedKept]string
	msgs   [unackedKept]*message.Message
}

const unackedKept = 64

// SendUnacked sends a message once, now, without storing it or waiting for an ACK. It
// gives the message its id.
func (r *Router) SendUnacked(m *message.Message) error {
	r.opts.Store.Stamp(m)
	if r.opts.Signatures == nil || m.To == r.opts.Self {
		return r.sendUnacked(m, "", 0, 0)
	}
	r.sending.Lock()
	defer r.sending.Unlock()
	u := &r.unacked
	u.count++
	token := r.token + "-" + strconv.FormatUint(u.count, 36)
	count, number := r.opts.Signatures.count(kvstore.Stream{Peer: m.To, Method: m.Method})
	if number == 0 {
		kept := *m
		u.tokens[u.count%unackedKept], u.msgs[u.count%unackedKept] = token, &kept
	}
	return r.sendUnacked(m, ackSubject(r.opts.Self, token), count, number)
}

// sendUnacked sends a frame of one message. It is called with sending held when that is to be signed.
func (r *Router) sendUnacked(m *message.Message, reply string, count, number uint64) error {
	raw, err := wire.EncodeMessage(m)
	if err != nil {
		return err
	}
	data, err := r.opts.Codec.EncodeFrame(&wire.Frame{From: r.opts.Self, To: m.To, Method: m.Method, First: count,
		Sent: r.opts.Now().UnixMilli(), Entries: []wire.Entry{{Message: raw}}})
	if err != nil {
		return err
	}
	subject := message.Subject{Node: m.To, Method: m.Method, Kind: r.opts.Kind(m.Method).WithoutACK()}.String()
	if m.To != r.opts.Self {
		data = r.opts.Signatures.sign(forFrame, subject, reply, number, data)
	}
	return r.opts.Transport.Publish(subject, reply, data)
}

// answerUnacked deals with an answer that no publisher waits for. Only nodes that sign get one
// that matters.
func (r *Router) answerUnacked(token string, d Delivery) {
	if r.opts.Signatures == nil || d.Local || d.NoResponders {
		return
	}
	a := r.openAck(d)
	if a.ack == nil || !a.proof.signed || a.ack.To != r.opts.Self {
		return
	}
	r.sending.Lock()
	defer r.sending.Unlock()
	m := r.takeUnacked(token, a.ack)
	asked := a.proof.yours != a.proof.mine && (a.ack.Epoch == 0 || a.ack.Next == 0) // for the number of its start
	switch {
	case m != nil && a.ack.Code != "":
		r.opts.Report.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "router", Subject: string(m.To) + "." + string(m.Method),
			ID: m.ID, From: m.To, Method: m.Method, Err: fmt.Errorf("%s refused a message without ACK: %s", m.To, a.ack.Text)})
	case a.ack.Code != "" || !asked:
	case m != nil:
		count, number := r.opts.Signatures.recount(kvstore.Stream{Peer: m.To, Method: m.Method}, a.proof.mine, a.ack.Next)
		if err := r.sendUnacked(m, ackSubject(r.opts.Self, token), count, number); err != nil {
			r.opts.Log.Debug("message without ACK not sent again", logattr.Msg(m), logattr.Err(err))
		}
	case a.ack.Epoch == 0 && strings.HasPrefix(token, r.token):
		r.opts.Signatures.learn(a.ack.By, a.proof.yours, a.proof.mine)
	default:
		r.reportRecorded(a.ack)
	}
}

// reportRecorded tells of a frame of this node that has reached another one, and not from here.
func (r *Router) reportRecorded(a *wire.Ack) {
	r.opts.Report.Report(errorkernel.Event{Class: errorkernel.Unproven, Process: "router", From: a.By, Method: a.Method, Err: fmt.Errorf(
		"%s got, and did not take, a frame for %s that is from this node, and is not under way now: somebody may have recorded it", a.By, a.Method)})
}

// takeUnacked returns the message that an answer is about, once. It is called with sending held.
func (r *Router) takeUnacked(token string, a *wire.Ack) *message.Message {
	i := slices.Index(r.unacked.tokens[:], token)
	if i < 0 || r.unacked.msgs[i].To != a.By || r.unacked.msgs[i].Method != a.Method {
		return nil
	}
	m := r.unacked.msgs[i]
	r.unacked.tokens[i], r.unacked.msgs[i] = "", nil
	return m
}
