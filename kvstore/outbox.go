package kvstore

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"steward/message"
	"steward/message/wire"
)

// Accept puts messages on the ring buffer, all or none, and returns their ids once they
// are on disk. It sets ID, From and Accepted of each. The error wraps [ErrFull] when there
// is no room for all of them, and [message.ErrInvalid] when one can never be delivered.
func (s *Store) Accept(msgs []message.Message) ([]message.ID, error) {
	return s.accept(msgs, false, false)
}

// Submit is Accept for who has more to do meanwhile: it returns at once, and the channel gets one value,
// nil once the messages are on disk under these ids. The order of calls is the order of
// the messages.
func (s *Store) Submit(msgs []message.Message) ([]message.ID, <-chan error) {
	puts, ids, err := s.encode(msgs, false)
	if err != nil {
		done := make(chan error, 1)
		done <- err
		return nil, done
	}
	return ids, s.submit(&op{apply: func(t *tx) error { return t.accept(puts, false) }})
}

// AcceptStamped is Accept for messages to which [Store.Stamp] has given their ids. Who notes
// an id before can see after a crash, with [Store.Sent], whether the messages were accepted.
func (s *Store) AcceptStamped(msgs []message.Message) ([]message.ID, error) {
	return s.accept(msgs, false, true)
}

// AcceptOwn is Accept for what the node itself has to say: replies and errors. It may use
// the part of the ring buffer that is kept free for them.
func (s *Store) AcceptOwn(msgs []message.Message) ([]message.ID, error) {
	return s.accept(msgs, true, false)
}

// AcceptNoting is Accept for a part of a reply, and [Store.Begin] for the run that makes it,
// in one commit.
func (s *Store) AcceptNoting(part message.Message, lane Stream, arrival uint64, mark Mark) ([]message.ID, error) {
	puts, ids, err := s.encode([]message.Message{part}, false)
	if err != nil {
		return nil, err
	}
	err = s.do(func(t *tx) error {
		if err := t.accept(puts, false); err != nil {
			return err // before anything has changed
		}
		return t.begin(lane.key(), arrival, mark.record())
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

func (s *Store) accept(msgs []message.Message, own, stamped bool) ([]message.ID, error) {
	puts, ids, err := s.encode(msgs, stamped)
	if err != nil {
		return nil, err
	}
	if err := s.do(func(t *tx) error { return t.accept(puts, own) }); err != nil {
		return nil, err
	}
	return ids, nil
}

// put is a message ready to be written.
type put struct {
	stream     Stream
	id         message.ID
	wantsReply bool
	record     []byte
}

// encode gives messages their ids and makes them bytes, outside of the writer.
func (s *Store) encode(msgs []message.Message, stamped bool) ([]put, []message.ID, error) {
	puts := make([]put, len(msgs))
	ids := make([]message.ID, len(msgs))
	var known Stream
	for i := range msgs {
		m := &msgs[i]
		if (Stream{m.To, m.Method}) != known {
			if err := cmp.Or(m.To.Check(), m.Method.Check()); err != nil {
				return nil, nil, err
			}
			known = Stream{m.To, m.Method}
		}
		if !stamped {
			s.Stamp(m)
		} else if m.ID.IsZero() {
			return nil, nil, fmt.Errorf("%w message: it has no id", message.ErrInvalid)
		}
		raw, err := wire.EncodeMessage(m)
		if err != nil {
			return nil, nil, err
		}
		ids[i] = m.ID
		puts[i] = put{Stream{m.To, m.Method}, m.ID, m.AwaitsReply(), encodeOut(m, raw)}
	}
	return puts, ids, nil
}

// Stamp gives m its id, its sender and its time of acceptance, without storing it.
func (s *Store) Stamp(m *message.Message) {
	m.ID = message.NewID(s.opts.Now(), s.count.Add(1), s.run)
	m.From, m.Accepted = s.opts.Self, m.ID.Time()
}

func (t *tx) accept(puts []put, own bool) error {
	var n, size uint64
	for i := range puts {
		n++
		size += uint64(len(puts[i].record))
	}
	z := &t.s.sizes
	most, mostBytes := uint64(t.s.opts.MaxMessages), uint64(t.s.opts.MaxBytes)
	if own {
		most, mostBytes = most+most/8+64, mostBytes+mostBytes/8+wire.MaxFrame
	}
	if z.Messages+n > most || z.Bytes+size > mostBytes {
		return refusal{fmt.Errorf("%w: it holds %d of %d messages and %d of %d bytes",
			ErrFull, z.Messages, t.s.opts.MaxMessages, z.Bytes, t.s.opts.MaxBytes)}
	}
	for i := range puts {
		if err := t.put(&puts[i]); err != nil {
			return err
		}
	}
	return nil
}

// put puts a message behind the others of its stream, whether there is room or not.
func (t *tx) put(p *put) error {
	st, err := t.stream(p.stream.key())
	if err != nil {
		return err
	}
	seq := st.Next
	if err := st.bucket.Put(seqKey(seq), p.record); err != nil {
		return err
	}
	size := uint64(len(p.record))
	st.Next++
	st.Count++
	st.Bytes += size
	t.s.sizes.Messages++
	t.s.sizes.Bytes += size
	life := Life{Peer: p.stream.Peer, Method: p.stream.Method, State: message.StateAccepted, Seq: seq, WantsReply: p.wantsReply}
	return t.putLifeAt(false, bucketSent, p.id[:], &life) // the id is new
}

// StreamInfo is an outgoing stream as it stands.
type StreamInfo struct {
	Stream
	// Epoch is higher with each Open of the file, and the same for all streams. Its low half is
	// random: the sequence numbers of a file that came back from a backup were given to other
	// messages before.
	Epoch uint64
	// Next is the sequence number that the next accepted message gets; First the lowest
	// that still waits, or Next when none does.
	First, Next uint64
	Count       uint64
	Bytes       uint64
}

// Streams returns the outgoing streams in which something waits, sorted by receiver and method.
func (s *Store) Streams() ([]StreamInfo, error) {
	var infos []StreamInfo
	err := s.view(func(tx *bbolt.Tx) error {
		infos = nil
		return tx.Bucket(bucketStreams).ForEach(func(k, v []byte) error {
			info, err := s.streamInfo(tx, k, v)
			if err == nil && info.Count > 0 {
				infos = append(infos, info)
			}
			return err
		})
	})
	return infos, err
}

func (s *Store) streamInfo(tx *bbolt.Tx, k, v []byte) (StreamInfo, error) {
	id, err := parseStream(k)
	if err != nil {
		return StreamInfo{}, err
	}
	var st streamState
	if err := st.decode(v); err != nil {
		return StreamInfo{}, err
	}
	info := StreamInfo{Stream: id, Epoch: s.epoch, First: st.Next, Next: st.Next, Count: st.Count, Bytes: st.Bytes}
	if b := tx.Bucket(bucketOut).Bucket(k); b != nil {
		if first, _ := b.Cursor().First(); first != nil {
			info.First = be.Uint64(first)
		}
	}
	return info, nil
}

// Read returns the stream and those of its messages that wait, in order from the sequence
// number from on: at most n, and not more bytes than size unless the first alone has more.
func (s *Store) Read(id Stream, from uint64, n, size int) (StreamInfo, []Queued, error) {
	var info StreamInfo
	var queue []Queued
	err := s.view(func(tx *bbolt.Tx) error {
		info, queue = StreamInfo{Stream: id}, nil
		key := id.key()
		v := tx.Bucket(bucketStreams).Get(key)
		if v == nil {
			return nil
		}
		var err error
		if info, err = s.streamInfo(tx, key, v); err != nil {
			return err
		}
		c := tx.Bucket(bucketOut).Bucket(key).Cursor()
		for k, v := c.Seek(seqKey(from)); k != nil && len(queue) < n; k, v = c.Next() {
			if size -= len(v); size < 0 && len(queue) > 0 {
				break
			}
			q, err := decodeOut(be.Uint64(k), v)
			if err != nil {
				return fmt.Errorf("read %s to %s: %w", id.Method, id.Peer, err)
			}
			q.Message = bytes.Clone(q.Message)
			queue = append(queue, q)
		}
		return nil
	})
	return info, queue, err
}

// Settled is how a message of an outgoing stream left it.
type Settled struct {
	Seq uint64
	ID  message.ID
	// Code is CodeDone for an ACK, or why the message was given up, with Text for people.
	// What was given up becomes a dead letter. Where that is the last part of a reply, a
	// notice for the node that waits for it goes onto the stream of REQNone in the same commit.
	Code     message.Code
	Text     string
	Attempts int
	At       time.Time
	// WantsReply keeps the message's life open after its ACK until the reply is here.
	WantsReply bool
	// Untold, if not empty, is kept for [Store.Untold], unless the message was answered after all.
	Untold []byte
}

// Settle takes messages off a stream. The channel gets one value: nil once that is on
// disk. Messages that are no longer there are passed over.
func (s *Store) Settle(id Stream, settled []Settled) <-chan error {
	return s.submit(&op{frees: true, apply: func(t *tx) error {
		st, err := t.stream(id.key())
		if err != nil {
			return err
		}
		for i := range settled {
			if err := t.settle(st, id, &settled[i]); err != nil {
				return err
			}
		}
		return nil
	}})
}

// Remove is Settle for who has to know which messages were still there: it returns their ids
// once they are off the stream. It may be called by any number of goroutines.
func (s *Store) Remove(id Stream, settled []Settled) ([]message.ID, error) {
	var removed []message.ID
	err := <-s.submit(&op{frees: true, apply: func(t *tx) error {
		removed = nil
		st, err := t.stream(id.key())
		if err != nil {
			return err
		}
		for i := range settled {
			if st.bucket.Get(seqKey(settled[i].Seq)) == nil {
				continue
			}
			if err := t.settle(st, id, &settled[i]); err != nil {
				return err
			}
			removed = append(removed, settled[i].ID)
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// Left is a message that leaves the ring buffer, with how it does.
type Left struct {
	Stream
	Settled
	Origin  string // as in message.Message
	Message []byte // as wire.EncodeMessage wrote it
}

// leaves notes what leaves, for who wants to know.
func (t *tx) leaves(id Stream, e *Settled, origin, raw []byte) {
	if t.s.opts.Leaving == nil {
		return
	}
	if t.origin != string(origin) { // that of many messages, one after the other
		t.origin = string(origin)
	}
	t.left = append(t.left, Left{id, *e, t.origin, bytes.Clone(raw)})
}

func (t *tx) settle(st *stream, id Stream, e *Settled) error {
	key := seqKey(e.Seq)
	record := st.bucket.Get(key)
	if record == nil {
		return nil
	}
	life := Life{Peer: id.Peer, Method: id.Method, State: message.EndOf(e.Code), Code: e.Code, Text: e.Text,
		Seq: e.Seq, Attempts: e.Attempts, WantsReply: e.WantsReply, Ended: e.At}
	if e.Code == message.CodeDone {
		life.Delivered = e.At
		if e.WantsReply {
			life.State, life.Code, life.Ended = message.StateDelivered, "", time.Time{}
		}
	}
	// The reply may have been faster than the ACK. It has the last word, about a message that is
	// given up because no ACK came through, too: that one was run.
	answered := hasEnded(t.btx.Bucket(bucketSent).Get(e.ID[:]))
	if answered {
		old, err := t.life(bucketSent, e.ID)
		if err != nil {
			return err
		}
		old.Delivered, old.Attempts = life.Delivered, e.Attempts
		life = old
	}
	q, err := decodeOut(e.Seq, record)
	if err != nil {
		return err
	}
	origin, _, _ := splitOut(record)
	t.leaves(id, e, origin, q.Message)
	var notice *put
	if e.Code != message.CodeDone && !answered {
		notice = t.s.notice(id.Peer, id.Method, &q, e)
		letter := deadRecord{Peer: string(id.Peer), Method: string(id.Method), Message: q.Message,
			Code: string(e.Code), Text: e.Text, At: e.At.UnixMilli(), Attempts: e.Attempts}
		if err := t.bury(e.ID, &letter); err != nil {
			return err
		}
		if err := t.untold(uint64(e.At.UnixMilli()), e.ID, e.Untold); err != nil {
			return err
		}
	}
	size := uint64(len(record))
	if err := st.bucket.Delete(key); err != nil {
		return err
	}
	st.Count--
	st.Bytes -= size
	t.s.sizes.Messages--
	t.s.sizes.Bytes -= size
	if notice != nil {
		if err := t.put(notice); err != nil {
			return err
		}
	}
	if life.State == message.StateDelivered {
		if err := t.await(e.ID, &life); err != nil {
			return err
		}
	}
	return t.putLifeAt(answered, bucketSent, e.ID[:], &life)
}

// minNoticeTimeout bounds from below how often a notice is sent.
const minNoticeTimeout = time.Second

// notice is what takes the place of the last part of a reply that is given up, or nil: without
// it, the node that waits for the reply would never learn how its request ended. It has no body
// and is tried without end. It takes the room that the reply had, so that it is never refused
// for want of it. When it is given up itself, having been refused or removed, there is no other.
func (s *Store) notice(to message.Node, method message.Method, q *Queued, e *Settled) *put {
	reply, err := wire.DecodeMessage(q.Message)
	if err != nil || !reply.IsReply() || reply.Result == nil || reply.Result.More {
		return nil
	}
	if method == message.MethodNone && (q.Retries == 0 || e.Code != message.CodeUnreachable) {
		return nil
	}
	res := *reply.Result
	res.Text = strings.TrimPrefix(text(res.Text)+"; its reply was given up: "+string(e.Code)+": "+text(e.Text), "; ")
	m := message.Message{To: to, Method: message.MethodNone, ReplyMethod: message.MethodNone,
		ACKTimeout: max(q.ACKTimeout, minNoticeTimeout), RetryWait: q.RetryWait, Headers: reply.Headers,
		InReplyTo: reply.InReplyTo, RequestMethod: reply.RequestMethod, Part: reply.Part, Result: &res}
	puts, _, err := s.encode([]message.Message{m}, false)
	if err != nil {
		return nil // it is larger than a message may be, which the reply was not
	}
	return &puts[0]
}

// Sizes says what the ring buffer holds.
func (s *Store) Sizes() (messages, bytes int64, err error) {
	var z sizes
	err = s.view(func(tx *bbolt.Tx) error { return z.load(tx.Bucket(bucketMeta)) })
	return int64(z.Messages), int64(z.Bytes), err
}
