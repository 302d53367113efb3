package process_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"steward/errorkernel"
	"steward/message"
	"steward/message/wire"
	"steward/process"
)

// frame makes a frame of one message.
func (w *world) frame(f wire.Frame, m message.Message) []byte {
	w.t.Helper()
	if m.ID.IsZero() {
		m.ID = message.NewID(time.Now(), 7, 7)
	}
	raw, err := wire.EncodeMessage(&m)
	if err != nil {
		w.t.Fatal(err)
	}
	if f.Epoch != 0 {
		f.Base, f.First, f.End = 1, 1, 2
	}
	f.Sent, f.Entries = time.Now().UnixMilli(), []wire.Entry{{Seq: f.First, Message: raw}}
	data, err := w.codec.EncodeFrame(&f)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

func TestForgedFramesAreRefused(t *testing.T) {
	subject := message.Subject{Node: "b", Method: once, Kind: kind}.String()
	for _, tt := range []struct {
		name    string
		subject string
		frame   wire.Frame
	}{
		{"from the node itself", subject, wire.Frame{From: "b", To: "b", Method: once, Epoch: 5}},
		{"from the node itself, unacked", subject, wire.Frame{From: "b", To: "b", Method: once}},
		{"for another node", subject, wire.Frame{From: "a", To: "c", Method: once, Epoch: 5}},
		{"for another method", subject, wire.Frame{From: "a", To: "b", Method: repeat, Epoch: 5}},
		{"from one who may not", subject, wire.Frame{From: "evil", To: "b", Method: once, Epoch: 5}},
		{"from one who may not, unacked", message.Subject{Node: "b", Method: once, Kind: kind.WithoutACK()}.String(),
			wire.Frame{From: "evil", To: "b", Method: once}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				b.allowed = func(n message.Node) bool { return n != "evil" }
				a.start()
				b.start()
				w.forge(tt.subject, "evil.ACK.x", w.frame(tt.frame, do(b, once, 1)))
				synctest.Wait()
				want(t, "runs", len(b.ran(once, repeat)), 0)
				if len(b.events.of(errorkernel.Refused)) == 0 {
					t.Error("nothing was reported")
				}
				a.send(do(b, once, 2))
				w.settled(time.Second)
				wantList(t, "runs", b.numbers(once), []int{2})
			})
		})
	}
}

// Who may send to a node cannot make it publish, in its own name, what the sender may not.
func TestAnswersGoToAcksOfTheSenderAlone(t *testing.T) {
	subject := message.Subject{Node: "b", Method: once, Kind: kind}.String()
	for _, reply := range []string{
		message.Subject{Node: "c", Method: once, Kind: kind}.String(), "c.ACK.x", "c.HERE", "c.NAME", "a.HERE", "a.ACKS.x", "$SYS.REQ.SERVER.PING", "x",
	} {
		t.Run(reply, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.add("a"), w.add("b")
				a.start()
				b.start()
				sent := 0
				if _, err := w.net.Node("victim").Subscribe(reply, func(process.Delivery) { sent++ }); err != nil {
					t.Fatal(err)
				}
				w.forge(subject, reply, w.frame(wire.Frame{From: "a", To: "b", Method: once, Epoch: 5}, do(b, once, 1)))
				w.forge(subject, reply, w.frame(wire.Frame{From: "a", To: "c", Method: once, Epoch: 5}, do(b, once, 2)))
				if reply != "c.ACK.x" { // nobody knows whose frame it is; acks that were not asked for do no harm
					w.forge(subject, reply, noise(10))
				}
				synctest.Wait()
				want(t, "frames to it", sent, 0)
				want(t, "runs", len(b.ran(once)), 1)
			})
		})
	}
}

func TestGarbageStopsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a"), w.add("b")
		for _, n := range w.nodes {
			n.allowed = func(n message.Node) bool { return n == "a" || n == "b" } // one bit makes it A
			n.start()
		}
		w.sniffing()
		a.send(answered(do(b, once, 1)), do(b, exact, 2))
		w.settled(time.Second)
		good := w.sniffing()
		for i, d := range good {
			for _, data := range [][]byte{nil, {}, {'S'}, {'S', 1, 0}, {'S', 1, 1, 1, 2, 3}, {'S', 9, 0, 1}, noise(1000),
				d.Data[:len(d.Data)/2], append(bytes.Clone(d.Data), 0), bytes.Repeat([]byte{0xff}, 100)} {
				w.forge(d.Subject, "stranger.ACK.x", data)
			}
			for at := range d.Data {
				bad := bytes.Clone(d.Data)
				bad[at] ^= byte(1 << (uint(at+i) % 8))
				w.forge(d.Subject, d.Reply, bad)
				synctest.Wait()
			}
		}
		for _, subject := range []string{"a.HERE", "b.HERE", "a.ACK.", "a.ACK.none", "b.ACK.x"} {
			if err := w.net.Node("stranger").Publish(subject, "", noise(10)); err != nil {
				t.Log(err) // the link refuses some
			}
		}
		a.send(answered(do(b, once, 3)), do(b, exact, 4))
		w.settled(10 * time.Minute)
		runs := b.numbers(once)
		want(t, "last run", runs[len(runs)-1], 3)
		for _, n := range w.nodes {
			want(t, "panics of "+string(n.name), len(n.events.of(errorkernel.ProcessPanic)), 0)
			want(t, "failures of "+string(n.name), len(n.events.of(errorkernel.ProcessFailed)), 0)
		}
	})
}

func TestAcksOfOthersAreIgnored(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*wire.Ack)
	}{
		{"another node", func(a *wire.Ack) { a.By = "c" }},
		{"for another node", func(a *wire.Ack) { a.To = "c" }},
		{"another method", func(a *wire.Ack) { a.Method = repeat }},
		{"another epoch", func(a *wire.Ack) { a.Epoch++ }},
		{"no epoch", func(a *wire.Ack) { a.Epoch = 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.pair()
				w.net.Cut("a", "b", true)
				w.sniffing()
				ids := a.send(do(b, once, 1))
				synctest.Wait()
				sent := w.sniffing()
				want(t, "frames", len(sent), 1)
				f, err := w.codec.DecodeFrame(sent[0].Data)
				if err != nil {
					t.Fatal(err)
				}
				ack := wire.Ack{By: "b", To: "a", Method: once, Epoch: f.Epoch, Next: f.End}
				tt.change(&ack)
				data, err := w.codec.EncodeAck(&ack)
				if err != nil {
					t.Fatal(err)
				}
				w.forge(sent[0].Reply, "", data)
				w.advance(time.Minute)
				want(t, "state", a.sent(ids[0]).State, message.StateAccepted)
				w.net.Cut("a", "b", false)
				w.settled(time.Minute)
				want(t, "state", a.sent(ids[0]).State, message.StateDone)
			})
		})
	}
}

func TestRefusedFrameIsReportedAtItsSender(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.net.Cut("a", "b", true)
		w.sniffing()
		ids := a.send(do(b, once, 1))
		synctest.Wait()
		reply := w.sniffing()[0].Reply
		data, err := w.codec.EncodeAck(&wire.Ack{By: "b", To: "a", Method: once, Code: message.CodeInvalid, Text: "no such thing"})
		if err != nil {
			t.Fatal(err)
		}
		w.forge(reply, "", data)
		synctest.Wait()
		want(t, "reports", len(a.events.of(errorkernel.Refused)), 1)
		w.net.Cut("a", "b", false)
		w.settled(time.Minute)
		want(t, "state", a.sent(ids[0]).State, message.StateDone)
	})
}

func TestAcksWithAPositionThatNeverWasDoNoHarm(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.pair()
		w.net.Cut("a", "b", true)
		w.sniffing()
		a.send(series(b, once, 1, 3)...)
		synctest.Wait()
		sent := w.sniffing()[0]
		f, err := w.codec.DecodeFrame(sent.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, next := range []uint64{0, 1, 1 << 40, 1<<64 - 1} {
			data, err := w.codec.EncodeAck(&wire.Ack{By: "b", To: "a", Method: once, Epoch: f.Epoch, Next: next, Gap: true, Busy: true})
			if err != nil {
				t.Fatal(err)
			}
			w.forge(sent.Reply, "", data)
			synctest.Wait()
		}
		w.net.Cut("a", "b", false)
		w.settled(time.Minute)
		wantList(t, "runs", b.numbers(once), upTo(3))
	})
}
