package kvstore

import (
	"bytes"
	"cmp"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"steward/message"
	"steward/message/wire"
)

// maxScheduled bounds the messages that wait for a further run.
const maxScheduled = 10_000

// Again says when a message is to be run once more.
type Again struct {
	Due   time.Time
	Run   int       // how many runs there were
	First time.Time // when the first began
}

// scheduleRecord is a message between two of its runs. Its key is the method, when the next
// run is due, and the id.
type scheduleRecord struct {
	Peer     string `cbor:"1,keyasint"`
	Accepted int64  `cbor:"2,keyasint"` // milliseconds since 1970; so is First
	First    int64  `cbor:"3,keyasint"`
	Run      int    `cbor:"4,keyasint"`
	Every    int64  `cbor:"5,keyasint"` // milliseconds
	Message  []byte `cbor:"6,keyasint"`
}

func methodKey(m message.Method) []byte { return append([]byte(m), 0) }

func scheduleKey(m message.Method, due time.Time, id message.ID) []byte {
	return append(be.AppendUint64(methodKey(m), uint64(max(0, due.UnixMilli()))), id[:]...)
}

// splitScheduleKey takes apart what is behind the method.
func splitScheduleKey(k, prefix []byte) (due time.Time, id message.ID, err error) {
	if len(k) != len(prefix)+8+len(id) {
		return due, id, damaged("a schedule without an id")
	}
	k = k[len(prefix):]
	copy(id[:], k[8:])
	return time.UnixMilli(int64(be.Uint64(k))), id, nil
}

// again puts a message whose run has ended where it waits for the next one. An operator may
// have removed it while it ran, or there may be too many: then its life ends here, and its
// sender is told.
func (t *tx) again(id Stream, record []byte, f *Finished) error {
	m := f.Message
	f.Over = false
	_, life, err := t.received(id.Peer, m.ID)
	switch {
	case err == nil && life.Code == message.CodeRemoved:
		f.Over = true
		return t.endSchedule(id, m, message.Result{Code: life.Code, Text: life.Text, Run: f.Again.Run})
	case t.s.sizes.Scheduled >= maxScheduled:
		f.Over = true
		return t.endSchedule(id, m, message.Result{Code: message.CodeFailed, Run: f.Again.Run,
			Text: fmt.Sprintf("it is not run again: %d other messages with a schedule wait on %s", maxScheduled, t.s.opts.Self)})
	}
	w, err := splitIn(record)
	if err != nil {
		return err
	}
	v, err := marshal(&scheduleRecord{Peer: string(id.Peer), Accepted: w.accepted, First: f.Again.First.UnixMilli(), Run: f.Again.Run,
		Every: m.Schedule.Every.Milliseconds(), Message: w.message})
	if err != nil {
		return err
	}
	life = Life{Peer: id.Peer, Method: id.Method, State: message.StateReceived, Attempts: f.Again.Run, Started: f.Again.First}
	if err := t.putLife(bucketReceived, m.ID, &life); err != nil {
		return err
	}
	t.s.sizes.Scheduled++
	return t.btx.Bucket(bucketSchedules).Put(scheduleKey(id.Method, f.Again.Due, m.ID), v)
}

// endSchedule ends a message that has been run and would have been again, and tells its sender.
func (t *tx) endSchedule(id Stream, m *message.Message, res message.Result) error {
	// The replies of its runs are on another stream, and those under way may be late: it is a time
	// behind theirs that tells which one is the last word.
	res.Exit, res.Started = -1, time.Now()
	life := Life{Peer: id.Peer, Method: id.Method, State: message.EndOf(res.Code), Code: res.Code, Text: res.Text, Attempts: res.Run, Ended: time.Now()}
	if err := t.putLife(bucketReceived, m.ID, &life); err != nil {
		return err
	}
	if !m.WantsReply() {
		return nil
	}
	last := m.ReplyWith(message.MethodNone)
	last.ACKTimeout, last.Retries, last.Result = max(last.ACKTimeout, time.Second), 0, &res
	puts, _, err := t.s.encode([]message.Message{*last}, false)
	if err != nil {
		return err
	}
	return t.accept(puts, true)
}

// Due puts messages for a method whose next run is due back into their lanes, and returns those
// lanes, and when it has to be called again: zero for when one of them has ended. One that is due
// later than its schedule allows for, because the clock was set back, is due at once.
func (s *Store) Due(m message.Method, now time.Time) (lanes []Stream, next time.Time, err error) {
	prefix := methodKey(m)
	look := func(b *bbolt.Bucket) (key []byte, r scheduleRecord, err error) {
		k, v := b.Cursor().Seek(prefix)
		if k == nil || !bytes.HasPrefix(k, prefix) {
			return nil, r, nil
		}
		due, _, err := splitScheduleKey(k, prefix)
		if err == nil {
			err = unmarshal(v, &r)
		}
		if wait := due.Sub(now); wait > 0 && wait <= time.Duration(r.Every)*time.Millisecond {
			next = due
			return nil, r, err
		}
		return bytes.Clone(k), r, err
	}
	waiting := false
	err = s.view(func(tx *bbolt.Tx) error {
		next = time.Time{}
		k, _, err := look(tx.Bucket(bucketSchedules))
		waiting = k != nil
		return err
	})
	if err != nil || !waiting {
		return nil, next, err
	}
	err = s.do(func(t *tx) error {
		lanes, next = nil, time.Time{}
		b := t.btx.Bucket(bucketSchedules)
		for {
			k, r, err := look(b)
			if err != nil || k == nil {
				return err
			}
			id := Stream{Peer: message.Node(r.Peer), Method: m}
			l, err := t.lane(id.key())
			if err != nil {
				return err
			}
			record := encodeIn(inHead{accepted: r.Accepted, run: r.Run, first: r.First, message: r.Message})
			if _, err := l.put(record); err != nil {
				return err
			}
			if err := b.Delete(k); err != nil {
				return err
			}
			t.s.sizes.Scheduled--
			lanes = append(lanes, id)
		}
	})
	return lanes, next, err
}

// Scheduled is a message with a schedule that has come here.
type Scheduled struct {
	ID     message.ID
	Stream // the peer is its sender
	// ReplyTo is who is told, with a REQNone, that it has no further run.
	ReplyTo message.Node
}

// Unschedule has no further run made of the messages for which fits says yes: they end as
// removed, and their senders are told. For one that is run just now that holds from the end of
// that run on. It returns those messages. Without an id only messages that wait between two runs
// are looked at.
func (s *Store) Unschedule(id message.ID, fits func(Scheduled) bool, why string) (removed []Scheduled, err error) {
	err = <-s.submit(&op{frees: true, apply: func(t *tx) error {
		removed = nil
		b := t.btx.Bucket(bucketSchedules)
		type found struct {
			Scheduled
			key []byte
			m   *message.Message
			run int
		}
		var all []found
		err := b.ForEach(func(k, v []byte) error {
			i := bytes.IndexByte(k, 0)
			if i < 0 {
				return damaged("a schedule without a method")
			}
			_, of, err := splitScheduleKey(k, k[:i+1])
			if err != nil || !id.IsZero() && of != id {
				return err
			}
			var r scheduleRecord
			if err := unmarshal(v, &r); err != nil {
				return err
			}
			f := found{Scheduled{ID: of, Stream: Stream{message.Node(r.Peer), message.Method(k[:i])}}, bytes.Clone(k), nil, r.Run}
			if !fits(f.Scheduled) {
				return nil
			}
			if f.m, err = wire.DecodeMessage(r.Message); err != nil {
				return err
			}
			f.m.From, f.m.To, f.m.Method = f.Peer, s.opts.Self, f.Method
			if f.Peer == s.opts.Self {
				f.m.From = cmp.Or(message.Node(f.m.Headers[message.HeaderFrom]), f.m.From)
			}
			f.ReplyTo = f.m.From
			all = append(all, f)
			return nil
		})
		if err != nil {
			return err
		}
		for _, f := range all {
			if err := b.Delete(f.key); err != nil {
				return err
			}
			t.s.sizes.Scheduled--
			if err := t.endSchedule(f.Stream, f.m, message.Result{Code: message.CodeRemoved, Text: why, Run: f.run}); err != nil {
				return err
			}
			removed = append(removed, f.Scheduled)
		}
		if !id.IsZero() && len(all) == 0 {
			lane, err := t.unscheduleRunning(id, fits, why)
			if err != nil {
				return err
			}
			removed = append(removed, lane...)
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// unscheduleRunning marks the life of a message that is in a lane: again looks for that.
func (t *tx) unscheduleRunning(id message.ID, fits func(Scheduled) bool, why string) ([]Scheduled, error) {
	life, err := t.life(bucketReceived, id)
	if err != nil || life.State.Final() {
		return nil, nil // not known here, or over
	}
	sc := Scheduled{ID: id, Stream: Stream{life.Peer, life.Method}}
	b := t.btx.Bucket(bucketInbox).Bucket(sc.Stream.key())
	if b == nil || !fits(sc) {
		return nil, nil
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		w, err := decodeIn(sc.Stream, t.s.opts.Self, be.Uint64(k), v)
		if err != nil {
			return nil, err
		}
		if w.Message.ID == id && w.Message.Schedule != nil {
			life.Code, life.Text = message.CodeRemoved, why
			return []Scheduled{sc}, t.putLife(bucketReceived, id, &life)
		}
	}
	return nil, nil
}
