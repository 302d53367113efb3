package kvstore

import (
	"bytes"
	"errors"

	"go.etcd.io/bbolt"

	"steward/message"
	"steward/message/wire"
)

// A request that its receiver has acknowledged waits for its reply, and nothing of it but its life is
// left at its sender. When the receiver loses its disk then, no reply will ever come. So these
// requests are kept by receiver, for the sender to ask about them (see [Store.Known]).

func peerPrefix(peer message.Node) []byte { return append([]byte(peer), 0) }

func awaitedKey(peer message.Node, id message.ID) []byte {
	key := make([]byte, 0, len(peer)+1+len(id))
	return append(append(append(key, peer...), 0), id[:]...)
}

var awaitedRecord = []byte{recordVersion} // its key says all

// await notes whether a reply to the message id is awaited from the disk of another node.
func (t *tx) await(id message.ID, l *Life) error {
	if l.Peer == t.s.opts.Self {
		return nil // it is in this very file
	}
	b := t.btx.Bucket(bucketAwaited)
	if l.State == message.StateDelivered {
		return b.Put(awaitedKey(l.Peer, id), awaitedRecord)
	}
	return b.Delete(awaitedKey(l.Peer, id))
}

// awaitAll is for a file of a version that did not keep the requests by receiver.
func (s *Store) awaitAll(btx *bbolt.Tx) error {
	t := newTx(s, btx)
	return btx.Bucket(bucketSent).ForEach(func(k, v []byte) error {
		if len(v) < 2 || int(v[1]) >= len(states) || states[v[1]] != message.StateDelivered {
			return nil
		}
		var id message.ID
		copy(id[:], k)
		l, err := decodeLife(id, v)
		if err != nil {
			return err
		}
		return t.await(id, &l)
	})
}

// Awaited returns the nodes from which replies are awaited.
func (s *Store) Awaited() ([]message.Node, error) {
	var nodes []message.Node
	err := s.view(func(tx *bbolt.Tx) error {
		nodes = nil
		c := tx.Bucket(bucketAwaited).Cursor()
		for k, _ := c.First(); k != nil; {
			i := bytes.IndexByte(k, 0)
			if i < 0 {
				return damaged("an awaited reply without a node")
			}
			nodes = append(nodes, message.Node(k[:i]))
			k, _ = c.Seek(append(bytes.Clone(k[:i]), 1)) // behind all of that node
		}
		return nil
	})
	return nodes, err
}

// AwaitedFrom returns requests to which a reply from peer is awaited, by their ids, from behind the
// id after: at most n.
func (s *Store) AwaitedFrom(peer message.Node, after message.ID, n int) ([]message.ID, error) {
	var ids []message.ID
	err := s.view(func(tx *bbolt.Tx) error {
		ids = nil
		prefix := peerPrefix(peer)
		c := tx.Bucket(bucketAwaited).Cursor()
		for k, _ := c.Seek(awaitedKey(peer, after)); bytes.HasPrefix(k, prefix) && len(ids) < n; k, _ = c.Next() {
			var id message.ID
			if copy(id[:], k[len(prefix):]) != len(id) {
				return damaged("an awaited reply without an id")
			}
			if id != after {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids, err
}

// Fate is what is to be said of a request to which no reply will come.
type Fate struct {
	ID message.ID
	// Code and Text say how its run ended. From [Store.Known] an empty code says that nothing is
	// known of the request.
	Code message.Code
	Text string
	// Untold, if not empty, is kept for [Store.Untold].
	Untold []byte
}

// Known returns, of the requests of a node that were acknowledged here, those to which no reply
// will come: because they are not known here any more, or because they have ended and nothing
// is left to be sent to that node. Nothing is said about the others.
func (s *Store) Known(by message.Node, ids []message.ID) ([]Fate, error) {
	var fates []Fate
	err := s.view(func(tx *bbolt.Tx) error {
		fates = nil
		var z sizes
		if err := z.load(tx.Bucket(bucketMeta)); err != nil {
			return err
		}
		// Of what is not there the end may have been trimmed, with its reply still on the way.
		trimmed := z.Received >= uint64(s.opts.History)
		waits, err := sendsTo(tx, by)
		if err != nil {
			return err
		}
		for _, id := range ids {
			received := tx.Bucket(bucketReceived)
			v := received.Get(receivedKey(received, by, id))
			var l Life
			if v != nil {
				if l, err = decodeLife(id, v); err != nil {
					return err
				}
			}
			switch {
			case v == nil || l.Peer != by:
				if !trimmed || !waits {
					fates = append(fates, Fate{ID: id})
				}
			case l.State.Final() && !waits:
				fates = append(fates, Fate{ID: id, Code: l.Code, Text: l.Text})
			}
		}
		return nil
	})
	return fates, err
}

// sendsTo reports whether anything waits on the ring buffer for a node.
func sendsTo(tx *bbolt.Tx, to message.Node) (bool, error) {
	prefix := peerPrefix(to)
	c := tx.Bucket(bucketStreams).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		var st streamState
		if err := st.decode(v); err != nil || st.Count > 0 {
			return true, err
		}
	}
	return false, nil
}

// EndAwaited ends requests with what their receiver knows of them, and returns those. It passes over
// what has ended meanwhile, and what has a reply in the inbox.
func (s *Store) EndAwaited(peer message.Node, fates []Fate) (ended []message.ID, err error) {
	here, err := s.repliesHere(peer, fates)
	if err != nil {
		return nil, err
	}
	err = <-s.submit(&op{frees: true, apply: func(t *tx) error {
		ended = nil
		now := t.s.opts.Now()
		for i := range fates {
			f := &fates[i]
			if here[f.ID] {
				continue
			}
			l, err := t.life(bucketSent, f.ID)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if l.Peer != peer || l.State != message.StateDelivered {
				// An earlier version, which knows of no such bucket, has ended it.
				if err := t.btx.Bucket(bucketAwaited).Delete(awaitedKey(peer, f.ID)); err != nil {
					return err
				}
				continue
			}
			l.State, l.Code, l.Text, l.Ended = message.EndOf(f.Code), f.Code, f.Text, now
			if err := t.putLifeAt(false, bucketSent, f.ID[:], &l); err != nil {
				return err
			}
			if err := t.await(f.ID, &l); err != nil {
				return err
			}
			if err := t.untold(uint64(max(0, now.UnixMilli())), f.ID, f.Untold); err != nil {
				return err
			}
			ended = append(ended, f.ID)
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

// isLost reports whether the life of a request was ended because its receiver did not know it any
// more: no run that was interrupted has no beginning.
func (l *Life) isLost() bool {
	return l.Code == message.CodeInterrupted && l.Started.IsZero()
}

// repliesHere returns those requests of which a reply, or a part of one, waits in the inbox.
func (s *Store) repliesHere(peer message.Node, fates []Fate) (map[message.ID]bool, error) {
	asked := make(map[message.ID]bool, len(fates))
	for i := range fates {
		asked[fates[i].ID] = true
	}
	here := map[message.ID]bool{}
	err := s.view(func(tx *bbolt.Tx) error {
		clear(here)
		prefix := peerPrefix(peer)
		c := tx.Bucket(bucketLanes).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			var l laneState
			if err := l.decode(v); err != nil {
				return err
			}
			lane := tx.Bucket(bucketInbox).Bucket(k)
			if l.Count == 0 || lane == nil {
				continue
			}
			err := lane.ForEach(func(_, v []byte) error {
				h, err := splitIn(v)
				if err != nil {
					return err
				}
				m, err := wire.DecodeMessage(h.message)
				if err == nil && asked[m.InReplyTo] {
					here[m.InReplyTo] = true
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return here, err
}
