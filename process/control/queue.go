package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"steward/client"
	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
	"steward/process"
)

// filter reads what a client has written, with whole ids in place of beginnings.
func (s *Server) filter(r *http.Request) (f client.Filter, ids []message.ID, err error) {
	v := r.URL.Query()
	f = client.Filter{To: message.Node(v.Get("to")), Method: message.Method(v.Get("method")), IDs: v["id"],
		GivenUp: v.Get("givenUp") == "true", Removed: v.Get("removed") == "true", All: v.Get("all") == "true"}
	if text := v.Get("olderThan"); text != "" {
		if f.OlderThan, err = time.ParseDuration(text); err != nil || f.OlderThan < 0 {
			return f, nil, refusal{http.StatusBadRequest, fmt.Errorf("olderThan: %s is no age", message.Quote(text)), ""}
		}
	}
	if f.To == message.Local {
		f.To = s.opt.Info().Node
	}
	for _, text := range f.IDs {
		id, err := s.find(text)
		if err != nil {
			return f, nil, err
		}
		ids = append(ids, id)
	}
	return f, ids, nil
}

// fits reports whether a filter means a message, whose id is looked at apart.
func fits(f *client.Filter, id message.ID, to message.Node, m message.Method, now time.Time) bool {
	return (f.To == "" || f.To == to) && (f.Method == "" || f.Method == m) && (f.OlderThan == 0 || now.Sub(id.Time()) > f.OlderThan)
}

var errAll = refusal{http.StatusBadRequest, errors.New("it is not said which messages are meant"), "give ids, -to, -method or -older, or -all"}

// said returns an error unless somebody has said which messages are meant.
func said(f *client.Filter) error {
	if len(f.IDs) == 0 && f.To == "" && f.Method == "" && f.OlderThan == 0 && !f.All {
		return errAll
	}
	return nil
}

// streams answers what waits for which method of which node.
func (s *Server) streams(a *answer, r *http.Request) error {
	f, _, err := s.filter(r)
	if err != nil {
		return err
	}
	all, err := s.waiting(f.To, f.Method)
	if err != nil {
		return err
	}
	// Publishers that have no time for an answer keep nobody waiting for long, however many they are.
	ctx, cancel := context.WithTimeout(r.Context(), 5*outlookPatience)
	defer cancel()
	for _, st := range all {
		q := kvstore.Queued{ID: st.Oldest, Retries: st.Delivery.Retries}
		st.Delivery = s.delivery(ctx, kvstore.Stream{Peer: st.To, Method: st.Method}, &q)
		if err := a.line(st); err != nil {
			return err
		}
	}
	return nil
}

// queued answers which messages wait, or were given up, in their order: all, or the first n.
func (s *Server) queued(a *answer, r *http.Request) error {
	f, ids, err := s.filter(r)
	if err != nil {
		return err
	}
	most, err := number(r.URL.Query().Get("n"))
	if err != nil {
		return err
	}
	show := func(q *client.Queued) error {
		if err := a.line(q); err != nil {
			return err
		}
		if most--; most == 0 {
			return errEnough
		}
		return nil
	}
	switch {
	case f.GivenUp || f.Removed:
		err = s.eachGivenUp(f, ids, show)
	case len(ids) > 0:
		err = s.eachOf(ids, f, show)
	default:
		err = s.eachWaiting(r.Context(), f, show)
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

var errEnough = errors.New("enough")

func (s *Server) eachOf(ids []message.ID, f client.Filter, do func(*client.Queued) error) error {
	for _, id := range ids {
		life, err := s.opt.Store.Sent(id)
		if errors.Is(err, kvstore.ErrNotFound) || err == nil && !fits(&f, id, life.Peer, life.Method, time.Now()) {
			continue
		}
		if err != nil {
			return err
		}
		stream := kvstore.Stream{Peer: life.Peer, Method: life.Method}
		_, queue, err := s.opt.Store.Read(stream, life.Seq, 1, 1)
		if err != nil {
			return err
		}
		if len(queue) == 0 || queue[0].ID != id {
			continue
		}
		if err := show(stream, &queue[0], do); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) eachWaiting(ctx context.Context, f client.Filter, do func(*client.Queued) error) error {
	all, err := s.waiting(f.To, f.Method)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, st := range all {
		stream := kvstore.Stream{Peer: st.To, Method: st.Method}
		for from := uint64(0); ctx.Err() == nil; {
			info, queue, err := s.opt.Store.Read(stream, from, 256, 1<<20)
			if err != nil {
				return err
			}
			if len(queue) == 0 {
				break
			}
			for i := range queue {
				if !fits(&f, queue[i].ID, st.To, st.Method, now) {
					continue
				}
				if err := show(info.Stream, &queue[i], do); err != nil {
					return err
				}
			}
			from = queue[len(queue)-1].Seq + 1
		}
	}
	return ctx.Err()
}

func show(stream kvstore.Stream, q *kvstore.Queued, do func(*client.Queued) error) error {
	m, err := decode(stream, q)
	if err != nil {
		return err
	}
	text, body := textOf(m)
	return do(&client.Queued{ID: q.ID, To: stream.Peer, Method: stream.Method, Accepted: q.ID.Time().UTC(), Message: text, Bytes: body})
}

// eachGivenUp reads its letters one by one: while the store is looked through, no client may be waited for.
func (s *Server) eachGivenUp(f client.Filter, ids []message.ID, do func(*client.Queued) error) error {
	letters, err := s.givenUp(f, ids)
	if err != nil {
		return err
	}
	for _, l := range letters {
		d, err := s.opt.Store.DeadLetter(l.id)
		if errors.Is(err, kvstore.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		q := &client.Queued{ID: l.id, To: l.Peer, Method: l.Method, Accepted: l.id.Time().UTC(), GivenUp: timeOf(d.At),
			Code: d.Code, Text: d.Text, Attempts: d.Attempts}
		q.Message, q.Bytes = textOf(d.Message)
		if err := do(q); err != nil {
			return err
		}
	}
	return nil
}

// letter is a message that was given up, or removed.
type letter struct {
	kvstore.Stream
	id      message.ID
	removed bool
}

// givenUp returns those that were given up or removed, whichever f means, and fit, oldest first. Of ids, unless there are none, all
// are meant.
func (s *Server) givenUp(f client.Filter, ids []message.ID) (letters []letter, err error) {
	now := time.Now()
	take := func(d kvstore.DeadLetter) bool {
		removed := d.Code == message.CodeRemoved
		meant := len(ids) > 0 || removed && f.Removed || !removed && f.GivenUp
		if m := d.Message; meant && fits(&f, m.ID, m.To, m.Method, now) {
			letters = append(letters, letter{kvstore.Stream{Peer: m.To, Method: m.Method}, m.ID, removed})
		}
		return true
	}
	if len(ids) == 0 {
		err = s.opt.Store.DeadLetters(take)
		return letters, err
	}
	for _, id := range ids {
		d, err := s.opt.Store.DeadLetter(id)
		if err == nil {
			take(d)
		} else if !errors.Is(err, kvstore.ErrNotFound) {
			return nil, err
		}
	}
	return letters, nil
}

// by says who wants a message removed.
const by = "an operator of this node"

// remove takes messages off the queue, or forgets those that were given up.
func (s *Server) remove(a *answer, r *http.Request) error {
	f, ids, err := s.filter(r)
	if err == nil {
		err = said(&f)
	}
	if err != nil {
		return err
	}
	if f.GivenUp || f.Removed {
		return s.forget(a, f, ids)
	}
	if len(ids) == 0 {
		ids = []message.ID{{}} // any
	}
	for _, id := range ids {
		cleared, err := s.opt.Queue.Clear(r.Context(), process.QueueFilter{ID: id, To: f.To, Method: f.Method, OlderThan: f.OlderThan}, by)
		for _, c := range cleared {
			if err := a.line(client.Removed{To: c.To, Method: c.Method, Messages: c.Messages}); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) forget(a *answer, f client.Filter, ids []message.ID) error {
	letters, err := s.givenUp(f, ids)
	if err != nil {
		return err
	}
	const atATime = 1024
	for part := range slices.Chunk(letters, atATime) {
		streams := map[message.ID]kvstore.Stream{}
		for _, l := range part {
			streams[l.id] = l.Stream
		}
		gone, err := s.opt.Store.Forget(slices.Collect(maps.Keys(streams)))
		if err != nil {
			return err
		}
		counts := map[kvstore.Stream]int{}
		for _, id := range gone {
			counts[streams[id]]++
			s.opt.Log.Info("message that was given up is forgotten", logattr.ID(id))
		}
		for st, n := range counts {
			if err := a.line(client.Removed{To: st.Peer, Method: st.Method, Messages: n, GivenUp: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// retry has messages that were given up sent again. What somebody has removed was a mistake more often than not: it is left out, and
// answered as that, unless it is named.
func (s *Server) retry(a *answer, r *http.Request) error {
	f, ids, err := s.filter(r)
	if err == nil {
		err = said(&f)
	}
	if err != nil {
		return err
	}
	named := f.Removed || len(ids) > 0
	f.GivenUp, f.Removed = true, true
	letters, err := s.givenUp(f, ids)
	if err != nil {
		return err
	}
	found := make([]message.ID, 0, len(letters))
	for _, l := range letters {
		if !l.removed || named {
			found = append(found, l.id)
		} else if err := a.line(client.Retried{ID: l.id, To: l.Peer, Method: l.Method, LeftOut: true}); err != nil {
			return err
		}
	}
	slices.SortFunc(found, func(x, y message.ID) int { return bytes.Compare(x[:], y[:]) }) // as they were accepted
	retried, err := s.opt.Queue.Retry(r.Context(), found)
	for _, d := range retried {
		if err := a.line(client.Retried{ID: d.Old, NewID: d.New, To: d.Peer, Method: d.Method}); err != nil {
			return err
		}
	}
	if errors.Is(err, kvstore.ErrFull) {
		err = refusal{http.StatusServiceUnavailable, err, "steward queue shows what waits; those that are not listed are kept as they were"}
	}
	return err
}
