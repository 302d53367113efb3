package process_test

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/transport/memtransport"
	"steward/security"
)

// trust is what all nodes of a world trust, in place of a file. The zero value trusts nobody.
type trust struct {
	mu   sync.Mutex
	keys map[security.PublicKey][]message.Node // guarded by mu; its lists are never changed
}

func (t *trust) add(n message.Node, k *security.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys = map[security.PublicKey][]message.Node{}
	}
	t.keys[k.Public()] = append(slices.Clip(t.keys[k.Public()]), n)
}

func (t *trust) remove(k *security.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, k.Public())
}

// Nodes makes it a security.Source, as does Known.
func (t *trust) Nodes(k security.PublicKey) []message.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[k]
}

func (t *trust) Known(n message.Node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, nodes := range t.keys {
		if slices.Contains(nodes, n) {
			return true
		}
	}
	return false
}

func (w *world) newKey() *security.Key {
	w.t.Helper()
	k, err := security.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// signed runs a test in a world in which all nodes require signatures.
func signed(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		w.signs = "require"
		test(t, w)
	})
}

// seal signs as a node does. yours is the number of the receiver's start.
func seal(k *security.Key, purpose, subject, reply string, yours uint64, data []byte) []byte {
	return wire.Sign(bytes.Clone(data), subject, reply, wire.Signature{Mine: 1, Yours: yours, Key: k.Public()},
		func(text []byte) []byte { return k.Sign(purpose, text) })
}

const (
	forFrame = "steward frame 1"
	forAck   = "steward ack 1"
)

// numbers returns the numbers of the starts of a node and of the one that it wrote to, as it has
// signed them.
func numbers(t *testing.T, d sniffed) (mine, yours uint64) {
	t.Helper()
	sig, _, ok, err := wire.ReadSignature(d.Data, d.Subject, d.Reply)
	if err != nil || !ok {
		t.Fatalf("signed %v: %v", ok, err)
	}
	return sig.Mine, sig.Yours
}

// refused returns how much a node has refused for a reason.
func (n *simNode) refused(reason string) int { return int(n.up.proves.Refused()[reason]) }

func TestOnlyFramesOfTrustedKeysAreTaken(t *testing.T) {
	frame := func(w *world, b *simNode) []byte {
		return w.frame(wire.Frame{From: "a", To: "b", Method: once, Epoch: 1 << 40}, do(b, once, 1))
	}
	subject := message.Subject{Node: "b", Method: once, Kind: kind}.String()
	const reply = "a.ACK.x"
	for _, tt := range []struct {
		name, reason string
		make         func(w *world, a, b, c *simNode, number uint64) (subject string, data []byte)
	}{
		{"as it should be", "", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(a.key, forFrame, subject, reply, number, frame(w, b))
		}},
		{"not signed", "unsigned", func(w *world, _, b, _ *simNode, _ uint64) (string, []byte) { return subject, frame(w, b) }},
		{"by a key of nobody", "unknown-key", func(w *world, _, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(w.newKey(), forFrame, subject, reply, number, frame(w, b))
		}},
		{"by another node", "other-node", func(w *world, _, b, c *simNode, number uint64) (string, []byte) {
			return subject, seal(c.key, forFrame, subject, reply, number, frame(w, b))
		}},
		{"by the receiver", "other-node", func(w *world, _, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(b.key, forFrame, subject, reply, number, frame(w, b))
		}},
		{"for another purpose", "bad-signature", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(a.key, forAck, subject, reply, number, frame(w, b))
		}},
		{"for another receiver", "bad-signature", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(a.key, forFrame, message.Subject{Node: "c", Method: once, Kind: kind}.String(), reply, number, frame(w, b))
		}},
		{"for another method", "bad-signature", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			other := message.Subject{Node: "b", Method: repeat, Kind: kind}.String()
			return other, seal(a.key, forFrame, subject, reply, number, frame(w, b))
		}},
		{"with another answer", "bad-signature", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(a.key, forFrame, subject, "c.ACK.x", number, frame(w, b))
		}},
		{"with another text", "bad-signature", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			data := seal(a.key, forFrame, subject, reply, number, frame(w, b))
			data[len(data)/2] ^= 1
			return subject, data
		}},
		{"of another start", "stale", func(w *world, a, b, _ *simNode, number uint64) (string, []byte) {
			return subject, seal(a.key, forFrame, subject, reply, number+2, frame(w, b))
		}},
		{"of no start", "stale", func(w *world, a, b, _ *simNode, _ uint64) (string, []byte) {
			return subject, seal(a.key, forFrame, subject, reply, 0, frame(w, b))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signed(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				c := w.add("c")
				c.start()
				w.sniffing()
				a.send(do(b, once, 100))
				w.settled(time.Second)
				number, _ := numbers(t, w.sniffing()[1]) // of the first ack
				before := b.refused("stale")
				w.advance(20 * time.Second)

				on, data := tt.make(w, a, b, c, number)
				w.forge(on, reply, data)
				synctest.Wait()
				if tt.reason == "" {
					wantList(t, "runs", b.numbers(once, repeat), []int{100, 1})
					want(t, "reports", len(b.events.of(errorkernel.Unproven)), 0)
					return
				}
				wantList(t, "runs", b.numbers(once, repeat), []int{100})
				wanted := 1
				if tt.reason == "stale" {
					wanted += before
				}
				want(t, tt.reason, b.refused(tt.reason), wanted)
				if told := len(b.events.of(errorkernel.Unproven)) > 0; told == (tt.name == "of no start") { // that is usual
					t.Errorf("reported: %v", told)
				}
				a.send(do(b, once, 101))
				w.settled(time.Minute)
				wantList(t, "runs", b.numbers(once, repeat), []int{100, 101})
				want(t, "dead letters", len(a.dead()), 0)
			})
		})
	}
}

func TestKeyThatIsTakenBackCountsAtOnce(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		a.send(do(b, once, 1))
		w.settled(time.Second)
		w.trust.remove(a.key)
		m := do(b, once, 2)
		m.Retries = 2
		ids := a.send(m)
		w.until(time.Minute, "given up", func() bool { return a.sent(ids[0]).State.Final() })
		life := a.sent(ids[0])
		want(t, "code", life.Code, message.CodeUnreachable)
		if !strings.Contains(life.Text, "which b does not trust") {
			t.Errorf("the sender learns: %s", life.Text)
		}
		ids = a.send(do(b, once, 3))
		w.advance(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateAccepted)
		wantList(t, "runs", b.numbers(once), []int{1})
		w.trust.add("a", a.key)
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1, 3})
	})
}

func TestWhatWaitsIsNotRunWhenItsSenderIsNoLongerTrusted(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		ids := a.send(answered(do(b, once, 1, "sleep=1m")), answered(do(b, once, 2)), answered(do(b, exact, 3)))
		w.until(time.Minute, "taken", func() bool { return a.sent(ids[1]).State == message.StateDelivered })
		w.trust.remove(a.key)
		w.advance(2 * time.Minute)
		wantList(t, "runs", b.numbers(once), []int{1})
		if denied := b.events.of(errorkernel.MethodFailed); len(denied) != 1 || !strings.Contains(denied[0].Err.Error(), "no key of a is trusted") {
			t.Errorf("reported: %v", denied)
		}
	})
}

func TestForgedAcksSettleNothing(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		make         func(w *world, a, b, c *simNode, subject string, ack []byte, echo uint64) []byte
	}{
		{"not signed", "unsigned", func(_ *world, _, _, _ *simNode, _ string, ack []byte, _ uint64) []byte { return ack }},
		{"by a key of nobody", "unknown-key", func(w *world, _, _, _ *simNode, subject string, ack []byte, echo uint64) []byte {
			return seal(w.newKey(), forAck, subject, "", echo, ack)
		}},
		{"by another node", "other-node", func(_ *world, _, _, c *simNode, subject string, ack []byte, echo uint64) []byte {
			return seal(c.key, forAck, subject, "", echo, ack)
		}},
		{"by the sender", "other-node", func(_ *world, a, _, _ *simNode, subject string, ack []byte, echo uint64) []byte {
			return seal(a.key, forAck, subject, "", echo, ack)
		}},
		{"for another frame", "bad-signature", func(_ *world, _, b, _ *simNode, _ string, ack []byte, echo uint64) []byte {
			return seal(b.key, forAck, "a.ACK.other", "", echo, ack)
		}},
		{"for another purpose", "bad-signature", func(_ *world, _, b, _ *simNode, subject string, ack []byte, echo uint64) []byte {
			return seal(b.key, forFrame, subject, "", echo, ack)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signed(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				c := w.add("c")
				c.start()
				w.net.Cut("a", "b", true)
				w.sniffing()
				ids := a.send(do(b, once, 1))
				synctest.Wait()
				sent := w.sniffing()
				f, err := w.codec.DecodeFrame(sent[0].Data)
				if err != nil {
					t.Fatal(err)
				}
				_, echo := numbers(t, sent[0])
				for _, ack := range []wire.Ack{
					{By: "b", To: "a", Method: once, Epoch: f.Epoch, Next: f.End},
					{By: "b", To: "a", Method: once, Epoch: f.Epoch, Next: f.End, Refused: []wire.Refusal{{Seq: f.First, Code: message.CodeDenied}}},
					{By: "b", To: "a", Method: once, Code: message.CodeInvalid, Text: "no such thing"},
					{By: "b", To: "a", Method: once, Epoch: f.Epoch},
				} {
					data, err := w.codec.EncodeAck(&ack)
					if err != nil {
						t.Fatal(err)
					}
					w.forge(sent[0].Reply, "", tt.make(w, a, b, c, sent[0].Reply, data, echo))
				}
				w.advance(time.Minute)
				want(t, "state", a.sent(ids[0]).State, message.StateAccepted)
				want(t, tt.reason, a.refused(tt.reason), 4)
				want(t, "reports", len(a.events.of(errorkernel.Unproven)), 4)
				w.net.Cut("a", "b", false)
				w.settled(time.Minute)
				want(t, "state", a.sent(ids[0]).State, message.StateDone)
				wantList(t, "runs", b.numbers(once), []int{1})
			})
		})
	}
}

// A frame that somebody else has made is refused by its receiver with a signature. That must not
// harm the stream of the node whose name it bears.
func TestRefusalOfAForgedFrameSettlesNothing(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		b.stop()
		w.sniffing()
		ids := a.send(do(b, once, 1))
		synctest.Wait()
		sent := w.sniffing()[0]
		w.lose(1000, func(from, _ string, d process.Delivery) bool { return from == "a" })
		b.start()
		synctest.Wait()
		w.sniffing()
		for at := range sent.Data {
			bad := bytes.Clone(sent.Data)
			bad[at] ^= 4
			w.forge(sent.Subject, sent.Reply, bad)
			synctest.Wait()
		}
		answers := len(w.sniffing())
		if answers < len(sent.Data) {
			t.Errorf("%d answers", answers)
		}
		want(t, "state", a.sent(ids[0]).State, message.StateAccepted)
		want(t, "runs", len(b.ran(once)), 0)
		w.faults(nil)
		w.settled(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
		wantList(t, "runs", b.numbers(once), []int{1})
	})
}

// What was recorded does not run again, whatever the receiver has forgotten.
func TestRecordedFramesRunNoSecondTime(t *testing.T) {
	for _, tt := range []struct {
		name   string
		forget func(b *simNode, backup []byte)
	}{
		{"store lost", func(b *simNode, _ []byte) { b.wipe() }},
		{"older store put back", func(b *simNode, backup []byte) { b.restore(backup) }},
		{"store kept", func(*simNode, []byte) {}},
	} {
		for _, senderLives := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				signed(t, func(t *testing.T, w *world) {
					a, b := w.pair()
					b.stop()
					backup := b.backup()
					b.start()
					w.sniffing()
					unacked := do(b, once, 4)
					unacked.ACKTimeout = 0
					a.send(append(series(b, once, 1, 3), unacked, unacked, do(b, exact, 5), do(b, manyOnce, 6))...)
					w.settled(time.Second)
					recorded := w.sniffing()
					runs := len(w.ran())
					b.stop()
					tt.forget(b, backup)
					b.start()
					if !senderLives {
						a.restart()
					}
					synctest.Wait()
					replay := func() {
						t.Helper()
						for _, d := range recorded {
							if d.from == "a" && isFrame("", "", d.Delivery) {
								w.forge(d.Subject, d.Reply, d.Data)
								synctest.Wait()
							}
						}
						want(t, "runs", len(w.ran()), runs)
					}
					replay()
					if b.refused("stale") < 5 {
						t.Errorf("%d refused", b.refused("stale"))
					}
					told := len(a.events.of(errorkernel.Unproven))
					if told == 0 {
						t.Error("nothing is reported by the node in whose name it was")
					}
					// Nothing of that harms what is sent now.
					a.send(do(b, once, 10))
					w.settled(time.Minute)
					want(t, "runs", len(w.ran()), runs+1)
					runs++
					w.advance(time.Minute)
					replay()
					if len(b.events.of(errorkernel.Unproven)) == 0 {
						t.Error("nothing is reported by the node that got it")
					}
					m := do(b, once, 11)
					m.ACKTimeout = 0
					a.send(m)
					synctest.Wait()
					want(t, "runs", len(w.ran()), runs+1)
				})
			})
		}
	}
}

// ran returns all runs, and what was appended.
func (w *world) ran() []string {
	var all []string
	for _, n := range w.nodes {
		for _, r := range n.ran(once, repeat, manyOnce) {
			all = append(all, r.id.String())
		}
		for _, entries := range n.disk.files {
			for _, e := range entries {
				all = append(all, e.id.String())
			}
		}
	}
	return all
}

// The number of a start costs one more round trip for each start of one of the two, and none else.
func TestProofOfTimeCostsOneRoundTripForEachStart(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		frames := func(method message.Method, n int) int {
			t.Helper()
			w.sniffing()
			a.send(do(b, method, n))
			w.settled(time.Second)
			count := 0
			for _, d := range w.sniffing() {
				if isFrame(d.from, d.to, d.Delivery) {
					count++
				}
			}
			return count
		}
		want(t, "frames of the first", frames(once, 1), 2)
		want(t, "frames of the second", frames(once, 2), 1)
		want(t, "frames for another method", frames(repeat, 3), 1)
		b.restart()
		synctest.Wait()
		want(t, "frames after a start of the receiver", frames(once, 4), 2)
		want(t, "frames for another method", frames(repeat, 5), 1)
		a.restart()
		synctest.Wait()
		want(t, "frames after a start of the sender", frames(once, 6), 2)
		want(t, "frames for another method", frames(repeat, 7), 1)
		wantList(t, "runs", b.numbers(once, repeat), upTo(7))
		for _, n := range w.nodes {
			want(t, "reports of "+string(n.name), len(n.events.of(errorkernel.Unproven)), 0)
		}
	})
}

// The answer that asks for the number, recorded and sent again, keeps nobody from sending.
func TestRecordedAcksDoNoHarm(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.sniffing()
		for i := range 5 {
			a.send(do(b, once, i+1))
			w.settled(time.Second)
			b.restart()
			synctest.Wait()
		}
		var acks []sniffed
		for _, d := range w.sniffing() {
			if isAck(d.from, d.to, d.Delivery) {
				acks = append(acks, d)
			}
		}
		a.send(do(b, once, 6))
		w.settled(time.Second)
		w.sniffing()
		for _, d := range acks {
			w.forge(d.Subject, "", d.Data)
		}
		a.send(do(b, once, 7))
		w.settled(time.Second)
		frames := 0
		for _, d := range w.sniffing() {
			if isFrame(d.from, d.to, d.Delivery) {
				frames++
			}
		}
		want(t, "frames", frames, 1)
		wantList(t, "runs", b.numbers(once), upTo(7))
	})
}

func TestUnackedMessagesAreTakenOnceEach(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		send := func(n int) {
			m := do(b, once, n)
			m.ACKTimeout = 0
			a.send(m)
		}
		w.sniffing()
		for n := range 5 {
			send(n + 1)
		}
		synctest.Wait()
		runs := b.numbers(once)
		slices.Sort(runs)
		wantList(t, "runs", runs, upTo(5))
		send(6)
		synctest.Wait()
		for _, d := range w.sniffing() {
			w.forge(d.Subject, d.Reply, d.Data)
		}
		synctest.Wait()
		want(t, "runs", len(b.numbers(once)), 6)

		a.restart()
		synctest.Wait()
		send(7)
		synctest.Wait()
		want(t, "runs after a start of the sender", len(b.numbers(once)), 7)
		b.restart()
		a.send(do(b, repeat, 8)) // tells the number
		w.settled(time.Second)
		send(9)
		synctest.Wait()
		want(t, "runs after a start of the receiver", len(b.numbers(once)), 8)
	})
}

// A fleet is changed over while it runs: off, sign, require, one node after the other.
func TestSignaturesAreTurnedOnOneNodeAfterTheOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.trust.remove(a.key)
		w.trust.remove(b.key)
		n := 0
		both := func(step string) {
			t.Helper()
			n++
			m := do(a, once, n)
			m.ACKTimeout = 0
			b.send(m)
			a.send(answered(do(b, once, n)))
			w.settled(time.Minute)
			synctest.Wait()
			wantList(t, step+": runs of b", b.numbers(once), upTo(n))
			wantList(t, step+": runs of a", a.numbers(once), upTo(n))
			for _, x := range w.nodes {
				want(t, step+": reports of "+string(x.name), len(x.events.of(errorkernel.Unproven))+len(x.events.of(errorkernel.Refused)), 0)
			}
		}
		turn := func(x *simNode, signs string) {
			t.Helper()
			x.stop()
			x.signs = signs
			x.start()
			synctest.Wait()
			both(string(x.name) + " is set to " + signs)
		}
		both("without")
		turn(a, "sign")
		turn(b, "sign")
		w.trust.add("a", a.key)
		both("a is trusted")
		w.trust.add("b", b.key)
		both("b is trusted")
		turn(b, "require")
		turn(a, "require")
	})
}

func TestWrongSignaturesAreRefusedEvenWhenNoneIsRequired(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.signs = "sign"
		a, b := w.pair()
		subject := message.Subject{Node: "b", Method: once, Kind: kind}.String()
		frame := func(from message.Node, n int) []byte {
			return w.frame(wire.Frame{From: from, To: "b", Method: once, Epoch: 1 << 40}, do(b, once, n))
		}
		bad := seal(a.key, forFrame, subject, "a.ACK.x", 0, frame("a", 1))
		bad[20] ^= 1
		w.forge(subject, "a.ACK.x", bad)
		strange := w.newKey()
		w.forge(subject, "a.ACK.x", seal(strange, forFrame, subject, "a.ACK.x", 0, frame("a", 2)))
		bad = seal(strange, forFrame, subject, "new.ACK.x", 0, frame("new", 3))
		bad[20] ^= 1
		w.forge(subject, "new.ACK.x", bad)
		synctest.Wait()
		want(t, "runs", len(b.ran(once)), 0)
		want(t, "reports", len(b.events.of(errorkernel.Unproven)), 3)
		want(t, "bad", b.refused("bad-signature"), 2)
		want(t, "of another", b.refused("other-node"), 1)
		w.forge(subject, "new.ACK.x", seal(strange, forFrame, subject, "new.ACK.x", 0, frame("new", 4)))
		w.forge(subject, "newer.ACK.x", frame("newer", 5))
		synctest.Wait()
		runs := b.numbers(once)
		slices.Sort(runs)
		wantList(t, "runs", runs, []int{4, 5})
	})
}

func TestNodeWithoutSignaturesLearnsThatOneRequiresThem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		b.signs = "require"
		a.start()
		b.start()
		m := do(b, once, 1)
		m.Retries = 2
		ids := a.send(m)
		w.until(time.Minute, "given up", func() bool { return a.sent(ids[0]).State.Final() })
		if text := a.sent(ids[0]).Text; !strings.Contains(text, "it is not signed, and b takes nothing without a signature") {
			t.Error(text)
		}
		if len(a.events.of(errorkernel.Refused)) == 0 || len(b.events.of(errorkernel.Unproven)) == 0 {
			t.Error("not reported on both sides")
		}
		// The other way round there is no answer that could be believed.
		m = do(a, once, 2)
		m.Retries = 2
		ids = b.send(m)
		w.until(time.Minute, "given up", func() bool { return b.sent(ids[0]).State.Final() })
		if text := b.sent(ids[0]).Text; !strings.Contains(text, "its answer is not believed: it is not signed") {
			t.Error(text)
		}
		want(t, "runs", len(b.ran(once)), 0)
	})
}

// Frames and acks that get lost, doubled and late are never taken for forged. (What is doubled and
// late, over a start, may have been recorded.)
func TestFaultsOfTheLinkForgeNothing(t *testing.T) {
	signed(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		var count atomic.Int64
		w.faults(func(_, _ string, d process.Delivery) memtransport.Fate {
			n := int(count.Add(1))
			return memtransport.Fate{Drop: n%5 == 0, Copies: n % 2, Delay: time.Duration(n%7) * 100 * time.Millisecond}
		})
		for i := range 30 {
			a.send(answered(do(b, repeat, i+1)))
			w.advance(100 * time.Millisecond)
			if i == 10 {
				b.restart()
			}
			if i == 20 {
				a.restart()
			}
		}
		w.settled(5 * time.Minute)
		runs := b.numbers(repeat)
		slices.Sort(runs)
		wantList(t, "runs", slices.Compact(runs), upTo(30))
		for _, n := range w.nodes {
			for _, reason := range []string{"unsigned", "unknown-key", "bad-signature", "other-node"} {
				want(t, reason+" on "+string(n.name), n.refused(reason), 0)
			}
		}
	})
}
