package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"steward/errorkernel"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// inquiry is a service that asks the receivers of requests that have been acknowledged and not
// answered whether they still know them, and answers such questions of others. The store of a
// receiver may have been lost, or an old copy of it put back: then no reply will ever come.
//
// A node is asked when it says that it is there, when the link comes back, and now and then
// besides, about a bounded number of requests at a time. Only the answer to the question under way
// counts. It is about single requests, by their ids, so it may be late: what is not known any more
// does not become known again.
//
// Who may send to a node may ask it, and who acknowledges may answer: questions go where messages go, and
// answers where acks go, so that a broker's permissions need nothing for them. Both are signed as those are;
// what was recorded is of no use, since the subject of an answer is made up for its question.
type inquiry struct {
	r     *Router
	ready chan struct{}
	asked map[message.Node]*asking // owned by Serve
}

// asking is a question that has no answer yet.
type asking struct {
	token string // the end of the subject of its answer, made up for it
	last  message.ID
}

// heardAnswer is an answer, or the link's notice that nobody listens (nil).
type heardAnswer struct {
	token string
	*wire.Answer
}

// answersWaiting bounds the answers that wait to be written down. One that is dropped is asked for
// again.
const answersWaiting = 64

// Inquiry returns the service that finds out which requests will have no reply. It has to be started
// before the presence: others ask this node when they hear that it is there.
func (r *Router) Inquiry() Service {
	return &inquiry{r: r, ready: make(chan struct{}), asked: map[message.Node]*asking{}}
}

// answerMark is in the tokens of answers to questions, and in no others. One of an earlier run may come late.
const answerMark = "_"

// answerToken begins the tokens of answers to questions of this run.
func (r *Router) answerToken() string { return r.token + answerMark }

// Ready is closed when questions are heard.
func (q *inquiry) Ready() <-chan struct{} { return q.ready }

// Serve asks and answers until ctx ends.
func (q *inquiry) Serve(ctx context.Context) error {
	sub, err := q.r.opts.Transport.Subscribe(openSubject(q.r.opts.Self), q.answer)
	if err != nil {
		return fmt.Errorf("subscribe to questions: %w", err)
	}
	defer sub.Close()
	close(q.ready)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		up, linkChanged := q.r.opts.Transport.State()
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			q.askAll(up)
			timer.Reset(q.r.opts.AskEvery)
		case <-linkChanged:
			timer.Reset(0)
		case <-q.r.spoke:
			for _, n := range q.r.takeHeard() {
				q.ask(n, message.ID{})
			}
		case a := <-q.r.answers:
			q.take(a)
		}
	}
}

// askAll asks all nodes of which a reply is awaited, and has their presence listened for.
func (q *inquiry) askAll(up bool) {
	nodes, err := q.r.opts.Store.Awaited()
	if err != nil {
		q.failed("look for requests without a reply", err)
		return
	}
	q.r.listenTo(nodes)
	clear(q.asked)
	if !up {
		return // they are asked when there is a link
	}
	for _, n := range nodes {
		q.ask(n, message.ID{})
	}
}

// ask asks a node about its first requests behind the id after.
func (q *inquiry) ask(n message.Node, after message.ID) {
	delete(q.asked, n)
	ids, err := q.r.opts.Store.AwaitedFrom(n, after, wire.MaxAsked)
	if err != nil {
		q.failed("look for requests without a reply", err)
		return
	}
	if len(ids) == 0 {
		return
	}
	data, err := q.r.opts.Codec.EncodeQuestion(&wire.Question{From: q.r.opts.Self, To: n, IDs: ids})
	token := q.r.answerToken() + strings.ToLower(rand.Text())
	if err == nil {
		subject, reply := openSubject(n), ackSubject(q.r.opts.Self, token)
		err = q.r.opts.Transport.Publish(subject, reply, q.r.opts.Signatures.sign(forQuestion, subject, reply, 0, data))
	}
	if err != nil { // there is a next time
		q.r.opts.Log.Debug("question not sent", logattr.To(n), logattr.Err(err))
		return
	}
	q.asked[n] = &asking{token: token, last: ids[len(ids)-1]}
}

// hearAnswer takes an answer to the inquiry.
func (r *Router) hearAnswer(token string, d Delivery) {
	a := heardAnswer{token: token}
	if !d.NoResponders {
		_, err := r.opts.Signatures.open(forAnswer, d, func() (by message.Node, err error) {
			if a.Answer, err = r.opts.Codec.DecodeAnswer(d.Data); err == nil {
				by = a.By
			}
			return by, err
		})
		if err != nil {
			r.opts.Report.Report(errorkernel.Event{Class: refusedOr(err), Process: "inquiry", Err: fmt.Errorf("answer: %w", err), Subject: d.Subject})
			return
		}
	}
	select {
	case r.answers <- a:
	default:
	}
}

// take writes down what an answer says, and asks about further requests. A node that does not
// listen, of an earlier version perhaps, is left alone until the next time.
func (q *inquiry) take(a heardAnswer) {
	if a.Answer == nil {
		for n, asked := range q.asked {
			if asked.token == a.token {
				delete(q.asked, n)
			}
		}
		return
	}
	asked := q.asked[a.By]
	if asked == nil || asked.token != a.token || a.To != q.r.opts.Self {
		return
	}
	if err := q.end(a.By, a.Fates); err != nil {
		q.failed(fmt.Sprintf("end %d requests", len(a.Fates)), err)
		delete(q.asked, a.By)
		return
	}
	q.ask(a.By, asked.last)
}

// end ends requests to which no reply will come. Of those that nothing is known of any more nobody
// else can tell central.
func (q *inquiry) end(by message.Node, fates []wire.Fate) error {
	store := q.r.opts.Store
	ends := make([]kvstore.Fate, 0, len(fates))
	events := map[message.ID]errorkernel.Event{}
	methods := map[message.ID]message.Method{}
	for _, f := range fates {
		life, err := store.Sent(f.ID)
		if errors.Is(err, kvstore.ErrNotFound) || err == nil && life.Peer != by {
			continue
		}
		if err != nil {
			return err
		}
		methods[f.ID] = life.Method
		end := kvstore.Fate{ID: f.ID, Code: f.Code, Text: strings.TrimPrefix(f.Text+"; its reply does not come any more", "; ")}
		if f.Code == "" {
			end.Code = message.CodeInterrupted
			end.Text = fmt.Sprintf("%s no longer knows it: its store was lost, or an older copy of it put back, after the ACK", by)
			subject := message.Subject{Node: by, Method: life.Method, Kind: q.r.opts.Kind(life.Method)}
			ev := errorkernel.Event{Class: errorkernel.GivenUp, Process: "inquiry", Subject: subject.String(), ID: f.ID,
				From: q.r.opts.Self, Method: life.Method, Err: fmt.Errorf("%s: %s", end.Code, end.Text), At: time.Now()}
			end.Untold = errorkernel.Pack(ev)
			ev.Stored = true
			events[f.ID] = ev
		}
		ends = append(ends, end)
	}
	if len(ends) == 0 {
		return nil
	}
	ended, err := store.EndAwaited(by, ends)
	if err != nil {
		return err
	}
	over := make(map[message.ID]bool, len(ended))
	for _, id := range ended {
		over[id] = true
	}
	for _, end := range ends {
		if !over[end.ID] {
			continue
		}
		step := Step{ID: end.ID, What: StepAnswered, Peer: by, Method: methods[end.ID], Text: end.Text,
			Result: &message.Result{Code: end.Code, Text: end.Text, Exit: -1}}
		if ev, lost := events[end.ID]; lost {
			q.r.opts.Report.Report(ev)
			step.What, step.Result = StepGivenUp, nil
		}
		q.r.opts.Progress.step(step)
	}
	return nil
}

// answer says of which requests of another node no reply will go out from here.
func (q *inquiry) answer(d Delivery) {
	var in *wire.Question
	p, err := q.r.opts.Signatures.open(forQuestion, d, func() (from message.Node, err error) {
		if in, err = q.r.opts.Codec.DecodeQuestion(d.Data); err == nil {
			from = in.From
		}
		return from, err
	})
	if err == nil && (in.To != q.r.opts.Self || !IsAckSubject(in.From, d.Reply)) {
		err = fmt.Errorf("%w question: it is from %s for %s, and came on %s with %s for the answer", message.ErrInvalid, in.From, in.To, d.Subject, message.Quote(d.Reply))
	}
	if err != nil {
		q.r.opts.Report.Report(errorkernel.Event{Class: refusedOr(err), Process: "inquiry", Err: fmt.Errorf("question: %w", err), Subject: d.Subject})
		return
	}
	fates, err := q.r.opts.Store.Known(in.From, in.IDs)
	if err != nil {
		q.failed("look for requests of "+string(in.From), err)
		return
	}
	out := wire.Answer{By: q.r.opts.Self, To: in.From, Fates: make([]wire.Fate, len(fates))}
	for i, f := range fates {
		out.Fates[i] = wire.Fate{ID: f.ID, Code: f.Code, Text: f.Text}
	}
	data, err := q.r.opts.Codec.EncodeAnswer(&out)
	if err == nil {
		if p.signed {
			data = q.r.opts.Signatures.sign(forAnswer, d.Reply, "", 0, data)
		}
		err = q.r.opts.Transport.Publish(d.Reply, "", data)
	}
	if err != nil { // it will be asked again
		q.r.opts.Log.Debug("answer not sent", logattr.To(in.From), logattr.Err(err))
	}
}

func (q *inquiry) failed(what string, err error) {
	q.r.opts.Report.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "inquiry", Err: fmt.Errorf("%s: %w", what, err)})
}
