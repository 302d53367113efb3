package kvstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"steward/message"
	"steward/message/wire"
)

// Retried says under which id a dead letter was accepted anew.
type Retried struct {
	Stream
	Old, New message.ID
}

// What one commit of Retry may hold.
const (
	retryMessages = 1024
	retryBytes    = 4 << 20
)

// Retry accepts dead letters anew, as messages with ids of their own, and takes them away, in one
// commit: a crash neither loses one nor doubles it. The order of ids is that of the messages; what is no
// dead letter any more is passed over. Those that are too many for one commit are returned as rest; of the
// others all are accepted, or none. The life of each says what it was sent again as, and
// the audit log what it was before.
// The error wraps [ErrFull] when there is no room.
func (s *Store) Retry(ids []message.ID) (retried []Retried, rest []message.ID, err error) {
	var msgs []message.Message
	var old []message.ID
	err = s.view(func(tx *bbolt.Tx) error {
		msgs, old, rest = nil, nil, nil
		size := 0
		for i, id := range ids {
			v := tx.Bucket(bucketDead).Get(id[:])
			if v == nil {
				continue
			}
			if size += len(v); len(msgs) > 0 && size > retryBytes || len(msgs) == retryMessages {
				rest = ids[i:]
				break
			}
			letter, err := s.decodeDead(v)
			if err != nil {
				return err
			}
			letter.Message.Origin = "retry of " + id.String()
			msgs, old = append(msgs, *letter.Message), append(old, id)
		}
		return nil
	})
	if err != nil || len(msgs) == 0 {
		return nil, rest, err
	}
	puts, _, err := s.encode(msgs, false)
	if err != nil {
		return nil, rest, err
	}
	err = s.do(func(t *tx) error {
		retried = nil
		var fresh []put
		for i := range puts {
			if t.btx.Bucket(bucketDead).Get(old[i][:]) != nil {
				fresh = append(fresh, puts[i])
				retried = append(retried, Retried{Stream: puts[i].stream, Old: old[i], New: puts[i].id})
			}
		}
		if err := t.accept(fresh, false); err != nil {
			return err // before anything has changed
		}
		for _, r := range retried {
			if err := t.exhume(r.Old[:]); err != nil {
				return err
			}
			if err := t.sentAgain(r.Old, r.New); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, rest, err
	}
	return retried, rest, nil
}

// sentAgain notes in a life that has ended what its message was sent again as.
func (t *tx) sentAgain(old, as message.ID) error {
	l, err := t.life(bucketSent, old)
	if errors.Is(err, ErrNotFound) {
		return nil // the history has forgotten it
	}
	if err != nil {
		return err
	}
	l.Text = linked(l.Text, "sent again as "+as.String())
	return t.putLife(bucketSent, old, &l)
}

// linked appends to a reason what must not be cut off.
func linked(why, more string) string {
	const room = 64
	if most := mostText - room; len(why) > most {
		why = why[:most] + "…"
	}
	return strings.TrimPrefix(strings.ToValidUTF8(why, "\uFFFD")+"; "+more, "; ")
}

// Forget takes dead letters away and returns the ids of those that were there. What their lives
// say stays.
func (s *Store) Forget(ids []message.ID) ([]message.ID, error) {
	var gone []message.ID
	err := <-s.submit(&op{frees: true, apply: func(t *tx) error {
		gone = nil
		for _, id := range ids {
			if t.btx.Bucket(bucketDead).Get(id[:]) == nil {
				continue
			}
			if err := t.exhume(id[:]); err != nil {
				return err
			}
			gone = append(gone, id)
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// DeadLetter returns the dead letter of that id, or [ErrNotFound].
func (s *Store) DeadLetter(id message.ID) (DeadLetter, error) {
	var letter DeadLetter
	err := s.view(func(tx *bbolt.Tx) (err error) {
		v := tx.Bucket(bucketDead).Get(id[:])
		if v == nil {
			return ErrNotFound
		}
		letter, err = s.decodeDead(v)
		return err
	})
	return letter, err
}

func (s *Store) decodeDead(v []byte) (DeadLetter, error) {
	var r deadRecord
	if err := unmarshal(v, &r); err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter: %w", err)
	}
	m, err := wire.DecodeMessage(r.Message)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter: %w", err)
	}
	m.From, m.To, m.Method = s.opts.Self, message.Node(r.Peer), message.Method(r.Method)
	return DeadLetter{Message: m, Code: message.Code(r.Code), Text: r.Text, At: fromMilli(r.At), Attempts: r.Attempts}, nil
}

// Match returns ids that the store knows and whose text begins with prefix, sorted, n at most.
func (s *Store) Match(prefix string, n int) ([]message.ID, error) {
	least, err := message.FirstID(prefix)
	if err != nil {
		return nil, err
	}
	var ids []message.ID
	err = s.view(func(tx *bbolt.Tx) error {
		ids = nil
		for _, bucket := range [][]byte{bucketSent, bucketReceived, bucketDead} {
			c := tx.Bucket(bucket).Cursor()
			found := 0
			for k, _ := c.Seek(least[:]); k != nil && found < n; k, _ = c.Next() {
				var id message.ID
				if copy(id[:], k) != len(id) || !strings.HasPrefix(id.String(), prefix) {
					break
				}
				ids = append(ids, id)
				found++
			}
		}
		return nil
	})
	slices.SortFunc(ids, func(a, b message.ID) int { return bytes.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	return ids[:min(n, len(ids))], err
}
