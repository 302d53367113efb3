package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"steward/client"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

const (
	// outlookPatience is how long a publisher is asked how it stands.
	outlookPatience = 100 * time.Millisecond
	// lookAgain is how often a message whose end is awaited is looked at besides its steps, which a slow watcher
	// may miss, and which are told a moment before the end is on disk.
	lookAgain = 500 * time.Millisecond
	// laneBytes is how much of a lane is read at a time.
	laneBytes = 1 << 20
)

// find returns the message that an id, or its beginning, means.
func (s *Server) find(text string) (message.ID, error) {
	ids, err := s.opt.Store.Match(text, 2)
	switch {
	case errors.Is(err, message.ErrInvalid):
		return message.ID{}, refusal{http.StatusBadRequest, err, ""}
	case err != nil:
		return message.ID{}, err
	case len(ids) == 0:
		return message.ID{}, s.unknown(text)
	case len(ids) > 1:
		return message.ID{}, refusal{http.StatusBadRequest, fmt.Errorf("more than one message begins with %s: %s, %s", message.Quote(text), ids[0], ids[1]),
			"give more of the id"}
	}
	return ids[0], nil
}

// status answers where a message is, with wait=true when it has ended.
func (s *Server) status(a *answer, r *http.Request) error {
	id, err := s.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if r.URL.Query().Get("wait") == "true" {
		return s.eachEnd(r.Context(), []message.ID{id}, func(st *client.Status) error { return a.line(st) })
	}
	st, err := s.look(r.Context(), id)
	if err != nil {
		return err
	}
	return a.line(st)
}

// ends answers where messages are whose ids are in the body, each when it has ended.
func (s *Server) ends(a *answer, r *http.Request) error {
	if err := a.rc.SetReadDeadline(time.Now().Add(readPatience)); err != nil {
		return err
	}
	var ids []message.ID
	if err := json.NewDecoder(r.Body).Decode(&ids); err != nil {
		return refusal{http.StatusBadRequest, fmt.Errorf("no list of ids: %w", err), ""}
	}
	if err := a.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return s.eachEnd(r.Context(), ids, func(st *client.Status) error { return a.line(st) })
}

// eachEnd calls do for each message when it has ended.
func (s *Server) eachEnd(ctx context.Context, ids []message.ID, do func(*client.Status) error) error {
	var watched message.ID // all of them
	if len(ids) == 1 {
		watched = ids[0]
	}
	steps, stop := s.opt.Progress.Watch(watched)
	defer stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	open := map[message.ID]bool{}
	look := func(id message.ID) error {
		ended, err := s.ended(id)
		if err != nil || !ended {
			return err
		}
		delete(open, id)
		st, err := s.look(ctx, id)
		if err != nil {
			return err
		}
		return do(st)
	}
	for _, id := range ids {
		if open[id] {
			continue // it is named twice
		}
		open[id] = true
		if err := look(id); err != nil {
			return err
		}
	}
	for len(open) > 0 {
		select {
		case step := <-steps:
			if open[step.ID] {
				if err := look(step.ID); err != nil {
					return err
				}
			}
		case <-again.C:
			for id := range open {
				if err := look(id); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ended reports whether a message has ended as far as this node has to do with it: what look says, for less.
func (s *Server) ended(id message.ID) (bool, error) {
	for _, of := range []func(message.ID) (kvstore.Life, error){s.opt.Store.Sent, s.opt.Store.Received} {
		if l, err := of(id); !errors.Is(err, kvstore.ErrNotFound) {
			return err == nil && l.State.Final(), err
		}
	}
	_, err := s.opt.Store.DeadLetter(id) // the history has forgotten it
	if errors.Is(err, kvstore.ErrNotFound) {
		return false, s.unknown(id.String())
	}
	return err == nil, err
}

func (s *Server) unknown(text string) error {
	return refusal{http.StatusNotFound, fmt.Errorf("this node, %s, knows no message %s", s.opt.Info().Node, message.Quote(text)),
		"ask the node that accepted it, or the one that ran it; what has ended long ago is in their audit logs"}
}

// look puts together what is known of a message.
func (s *Server) look(ctx context.Context, id message.ID) (*client.Status, error) {
	st := &client.Status{ID: id, Node: s.opt.Info().Node, Accepted: id.Time()}
	sent, err := s.opt.Store.Sent(id)
	if err == nil {
		st.Sent, st.Ended = lifeOf(&sent), sent.State.Final()
		st.File = s.stored(sent.File)
		err = s.lookAtDelivery(ctx, &sent, st)
	}
	if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
		return nil, err
	}
	received, err := s.opt.Store.Received(id)
	if err == nil {
		st.Received = lifeOf(&received)
		if st.Sent == nil {
			st.Ended = received.State.Final()
		}
		err = s.lookAtRun(&received, st)
	}
	if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
		return nil, err
	}
	letter, err := s.opt.Store.DeadLetter(id)
	switch {
	case errors.Is(err, kvstore.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		st.GivenUp = true
		st.Message, st.Bytes = textOf(letter.Message)
		if st.Sent == nil { // the history has forgotten it
			st.Ended = true
			st.Sent = &client.Life{Peer: letter.Message.To, Method: letter.Message.Method, State: message.EndOf(letter.Code),
				Code: letter.Code, Text: letter.Text, Attempts: letter.Attempts, Ended: timeOf(letter.At)}
		}
	}
	return st, nil
}

// stored is the whole path of a file in the data folder, or nothing when it is not there any more.
func (s *Server) stored(file string) string {
	if file == "" {
		return ""
	}
	path := filepath.Join(s.opt.Info().DataFolder, filepath.FromSlash(file))
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// lookAtDelivery adds what a message that waits for its delivery is, and how that stands.
func (s *Server) lookAtDelivery(ctx context.Context, l *kvstore.Life, st *client.Status) error {
	if l.State != message.StateAccepted {
		return nil
	}
	id := kvstore.Stream{Peer: l.Peer, Method: l.Method}
	_, queue, err := s.opt.Store.Read(id, l.Seq, 1, 1)
	if err != nil || len(queue) == 0 || queue[0].ID != l.ID {
		return err
	}
	m, err := decode(id, &queue[0])
	if err != nil {
		return err
	}
	st.Message, st.Bytes = textOf(m)
	ctx, cancel := context.WithTimeout(ctx, outlookPatience)
	defer cancel()
	st.Delivery = s.delivery(ctx, id, &queue[0])
	return nil
}

// delivery says how a message that waits stands.
func (s *Server) delivery(ctx context.Context, id kvstore.Stream, q *kvstore.Queued) *client.Delivery {
	o, ok := s.opt.Queue.Outlook(ctx, id, q.ID)
	if !ok {
		return nil
	}
	return &client.Delivery{Attempts: o.Attempts, Retries: q.Retries, Next: timeOf(o.Next), Reason: o.Reason, Denied: o.Denied, Linked: o.Linked}
}

// lookAtRun adds what a message that waits here for its method is, and when its run began.
func (s *Server) lookAtRun(l *kvstore.Life, st *client.Status) error {
	if l.State.Final() {
		return nil
	}
	lane := kvstore.Stream{Peer: l.Peer, Method: l.Method}
	var mark *kvstore.Mark // of the run that the message belongs to
	for after := uint64(0); ; {
		waiting, err := s.opt.Store.ReadLane(lane, after, 1024, laneBytes)
		if err != nil || len(waiting) == 0 {
			return err
		}
		for _, w := range waiting {
			if w.Mark != nil {
				mark = w.Mark
			}
			if after = w.Arrival; w.Message.ID != l.ID {
				continue
			}
			if mark != nil && w.Arrival <= mark.Last {
				st.Received.Started, st.Received.Attempts = timeOf(mark.Started), mark.Attempt
			}
			st.Message, st.Bytes = textOf(w.Message)
			return nil
		}
	}
}

func lifeOf(l *kvstore.Life) *client.Life {
	return &client.Life{Peer: l.Peer, Method: l.Method, State: l.State, Code: l.Code, Text: l.Text, Exit: l.Exit, Stderr: l.Stderr, Attempts: l.Attempts, Reply: l.WantsReply,
		Delivered: timeOf(l.Delivered), Started: timeOf(l.Started), Ended: timeOf(l.Ended)}
}

// timeOf is t, or nil when it is not set.
func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// textOf is a message as it can be sent, and how much of it that does not show.
func textOf(m *message.Message) (json.RawMessage, int) {
	return wire.AppendText(nil, m), len(m.Body)
}

func decode(id kvstore.Stream, q *kvstore.Queued) (*message.Message, error) {
	m, err := wire.DecodeMessage(q.Message)
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", q.ID, err)
	}
	m.ID, m.To, m.Method = q.ID, id.Peer, id.Method
	return m, nil
}

// nodes answers which nodes are known here, and for whom something waits.
func (s *Server) nodes(a *answer, _ *http.Request) error {
	hellos, err := s.opt.Hellos()
	if err != nil {
		return err
	}
	peers := map[message.Node]*client.Peer{}
	peer := func(n message.Node) *client.Peer {
		if peers[n] == nil {
			peers[n] = &client.Peer{Node: n}
		}
		return peers[n]
	}
	for _, h := range hellos {
		p := peer(h.Node)
		p.Hello, p.Version, p.Text = timeOf(h.At), h.Version, h.Text
		p.Heard = p.Hello
	}
	for n, at := range s.opt.Heard() {
		if p := peer(n); p.Heard == nil || at.After(*p.Heard) {
			p.Heard = timeOf(at)
		}
	}
	keys, err := s.opt.Keys()
	if err != nil {
		return err
	}
	for n, k := range keys {
		peer(n).Key = k
	}
	streams, err := s.waiting("", "")
	if err != nil {
		return err
	}
	for _, st := range streams {
		p := peer(st.To)
		p.Waiting += st.Messages
		if p.Oldest == nil || st.Accepted.Before(*p.Oldest) {
			p.Oldest = timeOf(st.Accepted)
		}
	}
	for _, p := range slices.SortedFunc(maps.Values(peers), func(x, y *client.Peer) int { return cmp.Compare(x.Node, y.Node) }) {
		if err := a.line(p); err != nil {
			return err
		}
	}
	return nil
}

// waiting returns the streams in which something waits, sorted.
func (s *Server) waiting(to message.Node, m message.Method) ([]client.Stream, error) {
	infos, err := s.opt.Store.Streams()
	if err != nil {
		return nil, err
	}
	var all []client.Stream
	for _, info := range infos {
		if to != "" && to != info.Peer || m != "" && m != info.Method {
			continue
		}
		_, first, err := s.opt.Store.Read(info.Stream, info.First, 1, 1)
		if err != nil {
			return nil, err
		}
		if len(first) == 0 {
			continue // delivered meanwhile
		}
		all = append(all, client.Stream{To: info.Peer, Method: info.Method, Messages: info.Count, Bytes: info.Bytes,
			Oldest: first[0].ID, Accepted: first[0].ID.Time().UTC(), Delivery: &client.Delivery{Retries: first[0].Retries}})
	}
	return all, nil
}
