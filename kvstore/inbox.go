package kvstore

import (
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"steward/message"
)

// Arrival is one frame as it goes into the inbox: the fields of wire.Frame with its
// messages checked.
type Arrival struct {
	Stream           Stream // the peer is the sender
	Epoch            uint64
	Base, First, End uint64
	Items            []Item
	// Begin, when not nil, marks the first message that is stored (or all, when Begin.All)
	// as begun in the same commit. It counts only if the lane was empty.
	Begin *Begin
	// Most, when not nil, is how much of it may be stored now. The rest is for later, as when the lane is full.
	Most *Load
}

// Load is a number of messages, and their bytes. As a bound, the last message may go beyond the bytes.
type Load struct{ Messages, Bytes int64 }

// Item is one message of an [Arrival].
type Item struct {
	Seq      uint64
	ID       message.ID
	Accepted time.Time // see Waiting
	Message  []byte    // as wire.EncodeMessage wrote it
	// Refuse, when not empty, takes the message off the stream without accepting it.
	Refuse message.Code
	Text   string
}

// Begin is the mark of a run that is about to start.
type Begin struct {
	All  bool
	Undo []byte // see Mark
}

// Taken is what became of an [Arrival].
type Taken struct {
	Next      uint64       // everything of the stream below it has been settled here
	Gap, Busy bool         // see wire.Ack
	Newer     uint64       // see wire.Ack; then nothing else is set
	Stored    []message.ID // the messages that are new in the inbox
	Bytes     int64        // of those
	Refused   []Refused
	// Begun is the arrival number that was marked as begun, 0 for none.
	Begun uint64
}

// Refused is a message that was taken off a stream without being accepted.
type Refused struct {
	_    struct{} `cbor:",toarray"`
	Seq  uint64
	Code string
	Text string
}

// posRecord is how far an incoming stream has come: in the highest epoch that was seen.
type posRecord struct {
	Epoch   uint64    `cbor:"1,keyasint"`
	Next    uint64    `cbor:"2,keyasint"`
	Refused []Refused `cbor:"3,keyasint,omitempty"` // from the sender's base on
}

// maxRefused bounds the refusals remembered per stream. A sender has at most a window of
// messages between its base and the end of a frame.
const maxRefused = 8192

// Take puts frames into the inbox, in order, and returns what became of each once that is
// on disk: from then on they can be acknowledged.
func (s *Store) Take(arrivals []Arrival) ([]Taken, error) {
	taken := make([]Taken, len(arrivals))
	err := s.do(func(t *tx) error {
		for i := range arrivals {
			var err error
			if taken[i], err = t.take(&arrivals[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return taken, err
}

func (t *tx) take(a *Arrival) (Taken, error) {
	key := a.Stream.key()
	pos := new(posRecord)
	if v := t.btx.Bucket(bucketPos).Get(key); v != nil {
		if err := unmarshal(v, pos); err != nil {
			return Taken{}, err
		}
	}
	switch {
	case a.Epoch < pos.Epoch:
		return Taken{Newer: pos.Epoch}, nil
	case a.Epoch > pos.Epoch:
		*pos = posRecord{Epoch: a.Epoch, Next: a.Base}
	}
	if a.Base > pos.Next {
		pos.Next = a.Base // the sender gave some up
	}
	for len(pos.Refused) > 0 && pos.Refused[0].Seq < a.Base {
		pos.Refused = pos.Refused[1:] // the sender knows
	}
	var out Taken
	if a.First > pos.Next {
		out.Gap = true
	} else if a.End > pos.Next {
		if err := t.store(key, a, pos, &out); err != nil {
			return Taken{}, err
		}
	}
	out.Next = pos.Next
	out.Refused = slices.Clone(pos.Refused)
	v, err := marshal(pos)
	if err != nil {
		return Taken{}, err
	}
	return out, t.btx.Bucket(bucketPos).Put(key, v)
}

// store puts the messages of a from pos on into the lane.
func (t *tx) store(key []byte, a *Arrival, pos *posRecord, out *Taken) error {
	l, err := t.lane(key)
	if err != nil {
		return err
	}
	wasEmpty := l.Count == 0
	var first, last uint64
	next := a.End
	for i := range a.Items {
		it := &a.Items[i]
		if it.Seq < pos.Next {
			continue
		}
		if it.Refuse != "" {
			if len(pos.Refused) >= maxRefused {
				out.Busy, next = true, it.Seq
				break
			}
			pos.Refused = append(pos.Refused, Refused{Seq: it.Seq, Code: text(string(it.Refuse)), Text: text(it.Text)})
			continue
		}
		place, _, err := t.received(a.Stream.Peer, it.ID)
		if err == nil {
			continue // was here before, in another epoch
		}
		if l.Count > 0 && (l.Count >= uint64(t.s.opts.LaneMessages) || l.Bytes >= uint64(t.s.opts.LaneBytes)) {
			out.Busy, next = true, it.Seq
			break
		}
		if a.Most != nil && (int64(len(out.Stored)) >= a.Most.Messages || out.Bytes >= a.Most.Bytes) {
			out.Busy, next = true, it.Seq
			break
		}
		arrived, err := l.put(encodeIn(inHead{accepted: it.Accepted.UnixMilli(), message: it.Message}))
		if err != nil {
			return err
		}
		life := Life{Peer: a.Stream.Peer, Method: a.Stream.Method, State: message.StateReceived, Seq: it.Seq}
		if err := t.putLifeAt(false, bucketReceived, place, &life); err != nil {
			return err
		}
		out.Stored = append(out.Stored, it.ID)
		out.Bytes += int64(len(it.Message))
		if first == 0 {
			first = arrived
		}
		last = arrived
	}
	pos.Next = next
	if a.Begin != nil && wasEmpty && first != 0 {
		if !a.Begin.All {
			last = first
		}
		out.Begun = first
		return t.begin(key, first, &markRecord{Last: last, Attempt: 1, Started: t.s.opts.Now().UnixMilli(), Undo: a.Begin.Undo})
	}
	return nil
}

// put appends a record to a lane and returns its arrival number.
func (l *lane) put(record []byte) (arrival uint64, err error) {
	l.Next++
	if err := l.bucket.Put(seqKey(l.Next), record); err != nil {
		return 0, err
	}
	l.Count++
	l.Bytes += uint64(len(record))
	return l.Next, nil
}

// markKey names a run by its lane and the arrival number of its first message.
func markKey(lane []byte, arrival uint64) []byte {
	return be.AppendUint64(append(append([]byte(nil), lane...), 0), arrival)
}

// markRecord is on disk while a run is under way. Its key is the arrival number of the
// first message of the run.
type markRecord struct {
	Last    uint64 `cbor:"1,keyasint"`
	Attempt int    `cbor:"2,keyasint"`
	Started int64  `cbor:"3,keyasint"` // milliseconds since 1970
	Undo    []byte `cbor:"4,keyasint,omitempty"`
	Parts   uint32 `cbor:"5,keyasint,omitempty"`
}

// Mark says that a run of messages was begun.
type Mark struct {
	Last    uint64 // the arrival number of the last message of the run
	Attempt int
	Started time.Time
	Undo    []byte // what the method needs to take the run back, or to go on with it
	Parts   uint32 // of the reply, so far
}

func (m *Mark) record() *markRecord {
	return &markRecord{Last: m.Last, Attempt: m.Attempt, Started: m.Started.UnixMilli(), Undo: m.Undo, Parts: m.Parts}
}

func (t *tx) begin(key []byte, arrival uint64, m *markRecord) error {
	v, err := marshal(m)
	if err != nil {
		return err
	}
	return t.btx.Bucket(bucketRunning).Put(markKey(key, arrival), v)
}

// Begin marks a run of the messages from the arrival numbers first to mark.Last, before
// it starts. It returns once the mark is on disk.
func (s *Store) Begin(id Stream, first uint64, mark Mark) error {
	return s.do(func(t *tx) error {
		return t.begin(id.key(), first, mark.record())
	})
}

// Lanes returns the incoming streams of which something waits in the inbox.
func (s *Store) Lanes() ([]Stream, error) {
	var lanes []Stream
	err := s.view(func(tx *bbolt.Tx) error {
		lanes = nil
		return tx.Bucket(bucketLanes).ForEach(func(k, v []byte) error {
			var l laneState
			if err := l.decode(v); err != nil || l.Count == 0 {
				return err
			}
			id, err := parseStream(k)
			lanes = append(lanes, id)
			return err
		})
	})
	return lanes, err
}

// ReadLane returns messages that wait in a lane, in order of arrival, from behind the
// arrival number after: at most n, and not more bytes than size unless the first alone has
// more. The first message of a run that has begun carries its mark.
func (s *Store) ReadLane(id Stream, after uint64, n, size int) ([]Waiting, error) {
	var waiting []Waiting
	err := s.view(func(tx *bbolt.Tx) error {
		waiting = nil
		key := id.key()
		b := tx.Bucket(bucketInbox).Bucket(key)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.Seek(seqKey(after + 1)); k != nil && len(waiting) < n; k, v = c.Next() {
			if size -= len(v); size < 0 && len(waiting) > 0 {
				break
			}
			w, err := decodeIn(id, s.opts.Self, be.Uint64(k), v)
			if err != nil {
				return err
			}
			if v := tx.Bucket(bucketRunning).Get(markKey(key, w.Arrival)); v != nil {
				var r markRecord
				if err := unmarshal(v, &r); err != nil {
					return err
				}
				w.Mark = &Mark{Last: r.Last, Attempt: r.Attempt, Started: time.UnixMilli(r.Started), Undo: r.Undo, Parts: r.Parts}
			}
			waiting = append(waiting, w)
		}
		return nil
	})
	return waiting, err
}

// Finished is the end of one message of a lane.
type Finished struct {
	Arrival uint64
	Message *message.Message
	Result  message.Result
	// File is where a reply was stored, below the data folder; empty for anything else.
	File string
	// Reply goes onto the ring buffer in the same commit; nil for none.
	Reply *message.Message
	// Again keeps the message for a further run; nil ends its life.
	Again *Again
	// Untold, if not empty, is kept for [Store.Untold].
	Untold []byte
	// Over is set by Finish when there is no further run after all. The sender of the message is
	// told with a REQNone of its own.
	Over bool
}

// Finish takes messages out of a lane with their end and their replies, and takes away the
// mark of the run that began with the arrival number mark, in one commit. The error wraps
// [ErrFull] when there is no room for the replies; then nothing has changed.
func (s *Store) Finish(id Stream, mark uint64, finished []Finished) error {
	var replies []message.Message
	var arrivals []uint64 // of what they answer
	for _, f := range finished {
		if f.Reply != nil {
			replies, arrivals = append(replies, *f.Reply), append(arrivals, f.Arrival)
		}
	}
	puts, _, err := s.encode(replies, false)
	if err != nil {
		return err
	}
	return <-s.submit(&op{frees: true, apply: func(t *tx) error {
		key := id.key()
		l, err := t.lane(key)
		if err != nil {
			return err
		}
		// What has left the lane before has been answered before.
		var fresh []put
		for i := range puts {
			if l.bucket.Get(seqKey(arrivals[i])) != nil {
				fresh = append(fresh, puts[i])
			}
		}
		if len(fresh) > 0 {
			if err := t.accept(fresh, true); err != nil {
				return err // before anything has changed
			}
		}
		for i := range finished {
			if err := t.finish(l, id, &finished[i]); err != nil {
				return err
			}
		}
		return t.btx.Bucket(bucketRunning).Delete(markKey(key, mark))
	}})
}

func (t *tx) finish(l *lane, id Stream, f *Finished) error {
	k := seqKey(f.Arrival)
	record := l.bucket.Get(k)
	if record == nil {
		return nil
	}
	size := uint64(len(record))
	if err := t.untold(uint64(max(0, time.Now().UnixMilli())), f.Message.ID, f.Untold); err != nil {
		return err
	}
	if f.Again != nil {
		if err := t.again(id, record, f); err != nil {
			return err
		}
	}
	if err := l.bucket.Delete(k); err != nil {
		return err
	}
	l.Count--
	l.Bytes -= size
	if f.Again != nil {
		return nil
	}
	life := Life{Peer: id.Peer, Method: id.Method, State: message.EndOf(f.Result.Code), Code: f.Result.Code, Text: f.Result.Text,
		Attempts: f.Result.Attempt, Started: f.Result.Started, Ended: t.s.opts.Now()}
	life.ran(&f.Result)
	if err := t.putLife(bucketReceived, f.Message.ID, &life); err != nil {
		return err
	}
	if m := f.Message; m.IsReply() && m.Result != nil {
		return t.answered(m.InReplyTo, id.Peer, m.Result, f.File, id.Method == message.MethodNone)
	}
	return nil
}
