package kvstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	"steward/message"
	"steward/message/wire"
)

// Life is what is known of one message at one node: of a message accepted here its way to
// the receiver and the result, of a message received here its run.
type Life struct {
	ID       message.ID
	Peer     message.Node // the receiver of a message accepted here, the sender of one received
	Method   message.Method
	State    message.State
	Code     message.Code
	Text     string
	Seq      uint64
	Attempts int // to deliver it, or to run it
	// WantsReply: the life ends with the reply and not with the ACK.
	WantsReply bool
	// Exit is the exit status of a command that failed, 0 for none, and Stderr the beginning of what it
	// wrote there.
	Exit                      int
	Stderr                    string
	File                      string // where the reply was stored here, below the data folder; empty if that is not known
	Delivered, Started, Ended time.Time
}

// A life on disk is the version of its format, one byte for the state, so that trimming need not
// decode it, and the rest. Every message has two of them written at either end, so the second
// version is written by hand; the first was CBOR.
type lifeRecord struct {
	_         struct{} `cbor:",toarray"`
	Peer      string
	Method    string
	Code      string
	Text      string
	Seq       uint64
	Attempts  int
	Reply     bool
	Delivered int64 // milliseconds since 1970, 0 = unset; so are the next two
	Started   int64
	Ended     int64
}

const lifeVersion = 2

// The bits of the third byte of a life.
const (
	lifeReply = 1 << iota
	lifeRun   // the exit status of a command, and what it wrote on stderr, stand at the end
	lifeFile  // where the reply was stored stands behind that
)

var states = []message.State{1: message.StateAccepted, message.StateDelivered, message.StateReceived,
	message.StateDone, message.StateFailed, message.StateExpired, message.StateRemoved}

func stateByte(s message.State) byte {
	for i, v := range states {
		if i > 0 && v == s {
			return byte(i)
		}
	}
	return 0
}

func encodeLife(l *Life) []byte {
	why := text(l.Text)
	b := make([]byte, 0, 48+len(l.Peer)+len(l.Method)+len(l.Code)+len(why))
	bits := byte(0)
	if l.WantsReply {
		bits |= lifeReply
	}
	ran := l.Exit != 0 || l.Stderr != ""
	if ran {
		bits |= lifeRun
	}
	if l.File != "" {
		bits |= lifeFile
	}
	b = append(b, lifeVersion, stateByte(l.State), bits)
	b = binary.AppendUvarint(b, l.Seq)
	for _, n := range [...]int64{int64(l.Attempts), unixMilli(l.Delivered), unixMilli(l.Started), unixMilli(l.Ended)} {
		b = binary.AppendVarint(b, n)
	}
	for _, s := range [...]string{string(l.Peer), string(l.Method), string(l.Code), why} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	if ran {
		said := text(l.Stderr)
		b = binary.AppendVarint(b, int64(l.Exit))
		b = append(binary.AppendUvarint(b, uint64(len(said))), said...)
	}
	if l.File != "" {
		b = append(binary.AppendUvarint(b, uint64(len(l.File))), l.File...)
	}
	return b
}

func decodeLife(id message.ID, b []byte) (Life, error) {
	if len(b) < 3 || int(b[1]) >= len(states) || b[1] == 0 {
		return Life{}, errRecord
	}
	switch b[0] {
	case lifeVersion:
	case recordVersion:
		return decodeLife1(id, b)
	default:
		return Life{}, errRecord
	}
	l := Life{ID: id, State: states[b[1]], WantsReply: b[2]&lifeReply != 0}
	r := fields{b: b[3:]}
	l.Seq = r.uvarint()
	l.Attempts = int(r.varint())
	l.Delivered, l.Started, l.Ended = fromMilli(r.varint()), fromMilli(r.varint()), fromMilli(r.varint())
	l.Peer, l.Method, l.Code, l.Text = message.Node(r.text()), message.Method(r.text()), message.Code(r.text()), r.text()
	if b[2]&lifeRun != 0 {
		l.Exit, l.Stderr = int(r.varint()), r.text()
	}
	if b[2]&lifeFile != 0 {
		l.File = r.text()
	}
	if r.bad || len(r.b) > 0 {
		return Life{}, errRecord
	}
	return l, nil
}

// fields reads what encodeLife wrote. After something that is not there it is bad.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) uvarint() uint64 {
	n, size := binary.Uvarint(f.b)
	if size <= 0 {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[size:]
	return n
}

func (f *fields) varint() int64 {
	n, size := binary.Varint(f.b)
	if size <= 0 {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[size:]
	return n
}

func (f *fields) text() string {
	n := f.uvarint()
	if n > uint64(len(f.b)) {
		f.b, f.bad = nil, true
		return ""
	}
	s := string(f.b[:n])
	f.b = f.b[n:]
	return s
}

func decodeLife1(id message.ID, b []byte) (Life, error) {
	var r lifeRecord
	if err := cbor.Unmarshal(b[2:], &r); err != nil {
		return Life{}, err
	}
	return Life{ID: id, Peer: message.Node(r.Peer), Method: message.Method(r.Method), State: states[b[1]],
		Code: message.Code(r.Code), Text: r.Text, Seq: r.Seq, Attempts: r.Attempts, WantsReply: r.Reply,
		Delivered: fromMilli(r.Delivered), Started: fromMilli(r.Started), Ended: fromMilli(r.Ended)}, nil
}

// mostText is how much of a reason the history keeps, in bytes.
const mostText = 1 << 10

// text bounds what the history keeps of a reason and makes it fit for CBOR.
func text(s string) string {
	if len(s) > mostText {
		s = s[:mostText] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func (t *tx) putLife(bucket []byte, id message.ID, l *Life) error {
	key := id[:]
	if bytes.Equal(bucket, bucketReceived) {
		key = receivedKey(t.btx.Bucket(bucket), l.Peer, id)
	}
	return t.putLifeAt(hasEnded(t.btx.Bucket(bucket).Get(key)), bucket, key, l)
}

// putLifeAt is putLife for who knows where the life stands, and whether that which is there, if any, has
// ended: it saves a search.
func (t *tx) putLifeAt(hadEnded bool, bucket, key []byte, l *Life) error {
	b := t.btx.Bucket(bucket)
	b.FillPercent = 0.9 // ids grow with time
	ended := t.s.sizes.ended(bucket)
	if hadEnded {
		*ended--
	}
	if l.State.Final() {
		*ended++
		t.ended++
	}
	return b.Put(key, encodeLife(l))
}

// receivedKey returns the key of the life of a message from a node: its id. A node gives its messages what ids it
// likes. When one uses that of a message of another node, the second life stands under the id and the name of its
// node, and the first one where it was: nobody can use up the ids of others, or have their messages forgotten.
func receivedKey(b *bbolt.Bucket, from message.Node, id message.ID) []byte {
	v := b.Get(id[:])
	if v != nil {
		if l, err := decodeLife(id, v); err != nil || l.Peer == from {
			return id[:]
		}
	}
	second := append(id[:], from...)
	if v == nil && b.Get(second) == nil { // the first one may be trimmed before the second
		return id[:]
	}
	return second
}

// received returns the life of a message from a node, and where it stands.
func (t *tx) received(from message.Node, id message.ID) (key []byte, l Life, err error) {
	b := t.btx.Bucket(bucketReceived)
	key = receivedKey(b, from, id)
	v := b.Get(key)
	if v == nil {
		return key, Life{}, ErrNotFound
	}
	l, err = decodeLife(id, v)
	return key, l, err
}

// hasEnded reports whether a life record is that of a message that has ended.
func hasEnded(v []byte) bool {
	return len(v) >= 2 && int(v[1]) < len(states) && states[v[1]].Final()
}

func (z *sizes) ended(bucket []byte) *uint64 {
	if bytes.Equal(bucket, bucketSent) {
		return &z.Sent
	}
	return &z.Received
}

func (t *tx) life(bucket []byte, id message.ID) (Life, error) {
	v := t.btx.Bucket(bucket).Get(id[:])
	if v == nil {
		return Life{}, ErrNotFound
	}
	return decodeLife(id, v)
}

// answered ends the life of a request with the result that its reply brought. The result
// is the truth even about a message that had been given up: its ACKs were lost, it was not.
// It counts only from the node that the request went to. A notice about a run of which the
// reply is known says no more than that its ACK was lost.
func (t *tx) answered(request message.ID, from message.Node, r *message.Result, file string, notice bool) error {
	l, err := t.life(bucketSent, request)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || l.Peer != from {
		return err
	}
	if l.isLost() {
		return nil // that was told; one from a store that is gone can only be late
	}
	if (r.More || notice) && l.State.Final() && !l.Started.IsZero() && !r.Started.After(l.Started) {
		return nil // overtaken by the last word, or by the reply itself
	}
	l.State, l.Code, l.Text = message.EndOf(r.Code), r.Code, r.Text
	l.Started, l.Ended, l.File = r.Started, t.s.opts.Now(), file
	if len(l.File) > mostText { // cut off, it would be another file
		l.File = ""
	}
	l.ran(r)
	if r.More && l.WantsReply { // else the runs that go well have nothing to say
		l.State, l.Code, l.Ended = message.StateDelivered, "", time.Time{}
	}
	if r.More {
		l.Text = fmt.Sprintf("run %d: %s", r.Run, strings.TrimSuffix(string(r.Code)+": "+r.Text, ": "))
	}
	if err := t.putLife(bucketSent, request, &l); err != nil {
		return err
	}
	if err := t.await(request, &l); err != nil {
		return err
	}
	return t.exhume(request[:])
}

// ran puts into a life what the history keeps of a command.
func (l *Life) ran(r *message.Result) {
	l.Exit, l.Stderr = max(0, r.Exit), text(string(r.Stderr[:min(len(r.Stderr), mostText)]))
	if r.StderrSize > mostText {
		l.Stderr = strings.TrimSuffix(l.Stderr, "…") + "…"
	}
}

// exhume takes a dead letter away, if there is one.
func (t *tx) exhume(id []byte) error {
	b := t.btx.Bucket(bucketDead)
	v := b.Get(id)
	if v == nil {
		return nil
	}
	t.s.sizes.Dead--
	t.s.sizes.DeadBytes -= uint64(len(v))
	return b.Delete(id)
}

// trimStep bounds the work of trimming in one commit, besides what the commit itself has ended.
const trimStep = 2048

// trim drops the oldest ended lives over the bound. Lives that have not ended stay, and take
// no room from those that have.
func (t *tx) trim(bucket []byte) error {
	n := t.s.sizes.ended(bucket)
	if *n <= uint64(t.s.opts.History) {
		return nil
	}
	over := *n - uint64(t.s.opts.History)
	b := t.btx.Bucket(bucket)
	c := b.Cursor()
	var old [][]byte
	k, v := c.Seek(t.s.trimmed[string(bucket)])
	for steps := 0; k != nil && steps < trimStep+2*t.ended && uint64(len(old)) < over; steps++ {
		if hasEnded(v) {
			old = append(old, bytes.Clone(k))
		}
		k, v = c.Next()
	}
	t.s.trimmed[string(bucket)] = bytes.Clone(k) // nil begins at the front again
	for _, k := range old {
		if err := b.Delete(k); err != nil {
			return err
		}
		*n--
	}
	return nil
}

// Sent returns the life of a message that was accepted here, or [ErrNotFound].
func (s *Store) Sent(id message.ID) (Life, error) { return s.lookup(bucketSent, id) }

// Received returns the life of a message that came from a stream, or [ErrNotFound].
func (s *Store) Received(id message.ID) (Life, error) { return s.lookup(bucketReceived, id) }

func (s *Store) lookup(bucket []byte, id message.ID) (Life, error) {
	var l Life
	err := s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucket).Get(id[:])
		if v == nil {
			return ErrNotFound
		}
		var err error
		l, err = decodeLife(id, v)
		return err
	})
	return l, err
}

// Note writes the end of a message that never was on the ring buffer: one that was sent
// without an ACK.
func (s *Store) Note(m *message.Message, code message.Code, why string) error {
	life := Life{Peer: m.To, Method: m.Method, State: message.EndOf(code), Code: code, Text: why, Attempts: 1, Ended: s.opts.Now()}
	raw, err := wire.EncodeMessage(m)
	if err != nil {
		return err
	}
	return s.do(func(t *tx) error {
		t.leaves(Stream{m.To, m.Method}, &Settled{ID: m.ID, Code: code, Text: why, Attempts: 1, At: life.Ended}, []byte(m.Origin), raw)
		return t.putLife(bucketSent, m.ID, &life)
	})
}

// deadRecord is a dead letter.
type deadRecord struct {
	Peer     string `cbor:"1,keyasint"`
	Method   string `cbor:"2,keyasint"`
	Message  []byte `cbor:"3,keyasint"`
	Code     string `cbor:"4,keyasint"`
	Text     string `cbor:"5,keyasint,omitempty"`
	At       int64  `cbor:"6,keyasint"` // milliseconds since 1970
	Attempts int    `cbor:"7,keyasint,omitempty"`
}

// maxDead bounds the number of dead letters. Their bytes are bounded as those of the ring
// buffer are. The oldest go first.
const maxDead = 100_000

func (t *tx) bury(id message.ID, letter *deadRecord) error {
	letter.Text = text(letter.Text)
	v, err := marshal(letter)
	if err != nil {
		return err
	}
	if err := t.exhume(id[:]); err != nil {
		return err
	}
	b := t.btx.Bucket(bucketDead)
	if err := b.Put(id[:], v); err != nil {
		return err
	}
	z := &t.s.sizes
	z.Dead++
	z.DeadBytes += uint64(len(v))
	for z.Dead > 1 && (z.Dead > maxDead || z.DeadBytes > uint64(t.s.opts.MaxBytes)) {
		oldest, _ := b.Cursor().First()
		if oldest == nil {
			return damaged("%d dead letters are missing", z.Dead)
		}
		if err := t.exhume(bytes.Clone(oldest)); err != nil {
			return err
		}
	}
	return nil
}

// DeadLetter is a message that was given up, with the reason.
type DeadLetter struct {
	Message  *message.Message
	Code     message.Code
	Text     string
	At       time.Time
	Attempts int
}

// DeadLetters calls fn for each dead letter, oldest first, until fn returns false. fn must
// not call the store.
func (s *Store) DeadLetters(fn func(DeadLetter) bool) error {
	_, err := s.read(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketDead).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			letter, err := s.decodeDead(v)
			if err != nil {
				return err
			}
			if !fn(letter) {
				return nil
			}
		}
		return nil
	})
	return err
}
