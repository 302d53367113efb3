package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"

	"steward/message"
	"steward/message/wire"
	"steward/security"
)

// The threat model of doc/security.md, played against real nodes: an attacker is a client of the broker that
// knows the wire format. What it tries to have run leaves a canary; nothing may.

// The purposes of signatures, as doc/wire-format.md has them.
const (
	forFrame  = "steward frame 1"
	forAck    = "steward ack 1"
	forClaim  = "steward claim 1"
	forAnswer = "steward answer 1"
)

// attacked is a fleet and who attacks it.
type attacked struct {
	*fleet
	whole   *testing.T // fleet.t is that of the subtest that runs
	metrics map[string]string
	flags   map[string][]string      // further flags of nodes
	keys    map[string]*security.Key // of all nodes; the attacker has that of ship3 only, and one that nobody trusts
	stolen  *security.Key            // that of ship3
	strange *security.Key
	used    []string // the tokens of a closed fleet
	codec   *wire.Codec
	nc      *nats.Conn
	count   uint64            // what the attacker has made; for ids
	starts  map[string]uint64 // the numbers of the starts of nodes, as the attacker has learnt them
	seqs    map[string]uint64 // the last numbers of its streams

	mu    sync.Mutex
	heard []*nats.Msg // guarded by mu: what it has overheard
}

// trusting makes keys for all nodes, and each trusts all.
func trusting(t *testing.T, f *fleet, nodes ...string) *attacked {
	a := &attacked{fleet: f, whole: t, metrics: map[string]string{}, flags: map[string][]string{}, keys: map[string]*security.Key{}, codec: wire.NewCodec(),
		starts: map[string]uint64{}, seqs: map[string]uint64{}}
	for _, n := range nodes {
		if err := os.MkdirAll(filepath.Join(f.dir, n, "etc"), 0o700); err != nil {
			t.Fatal(err)
		}
		k, err := security.CreateKey(filepath.Join(f.dir, n, "etc", "node.key"))
		if err != nil {
			t.Fatal(err)
		}
		a.keys[n] = k
	}
	for _, n := range nodes {
		for m, k := range a.keys {
			if m == n {
				continue
			}
			if _, err := security.Trust(filepath.Join(f.dir, n, "etc", "trusted_nodes"), message.Node(m), k.Public()); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.stolen = a.keys["ship3"]
	var err error
	if a.strange, err = security.NewKey(); err != nil {
		t.Fatal(err)
	}
	return a
}

// start is that of fleet, for processes that outlive a subtest. It returns when what the node counts can be read.
func (a *attacked) start(name string) {
	a.t.Helper()
	sub := a.t
	a.t = a.whole
	defer func() { a.t = sub }()
	a.args = append([]string{"-signatures=require"}, a.flags[name]...)
	addr := a.metrics[name]
	if addr == "" {
		a.fleet.start(name)
		return
	}
	a.args = append(a.args, "-promHostAndPort="+addr)
	a.fleet.start(name)
	a.until(name+" serves its metrics", func() bool {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
}

// connect is a client of the broker, which it is told what was refused.
func (a *attacked) connect(opts ...nats.Option) *nats.Conn {
	a.t.Helper()
	nc, err := nats.Connect("nats://"+a.broker, append(opts, nats.NoReconnect())...)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(nc.Close)
	return nc
}

// overhear has the attacker listen to whatever there is on a subject.
func (a *attacked) overhear(subject string) {
	a.t.Helper()
	_, err := a.nc.Subscribe(subject, func(m *nats.Msg) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.heard = append(a.heard, m)
	})
	if err == nil {
		err = a.nc.Flush()
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// last returns what was heard last on a subject, nil for nothing.
func (a *attacked) last(subject string) *nats.Msg {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range slices.Backward(a.heard) {
		if m.Subject == subject {
			return m
		}
	}
	return nil
}

// seal signs as a node does.
func seal(k *security.Key, purpose, subject, reply string, yours uint64, data []byte) []byte {
	return wire.Sign(bytes.Clone(data), subject, reply, wire.Signature{Mine: 1, Yours: yours, Key: k.Public()},
		func(text []byte) []byte { return k.Sign(purpose, text) })
}

// frame makes a frame of one message, that number seq of a stream.
func (a *attacked) frame(from, to string, method message.Method, seq uint64, m message.Message) []byte {
	a.t.Helper()
	a.count++
	if m.ID.IsZero() {
		m.ID = message.NewID(time.Now(), uint32(a.count), 666)
	}
	m.Accepted, m.Method = time.Now(), method
	m.From, m.To = message.Node(from), message.Node(to)
	raw, err := wire.EncodeMessage(&m)
	if err != nil {
		a.t.Fatal(err)
	}
	data, err := a.codec.EncodeFrame(&wire.Frame{From: m.From, To: m.To, Method: method, Epoch: 1 << 50, Base: seq, First: seq, End: seq + 1,
		Sent: time.Now().UnixMilli(), Entries: []wire.Entry{{Seq: seq, Message: raw}}})
	if err != nil {
		a.t.Fatal(err)
	}
	return data
}

// ask publishes and returns the answer, which has to come: so it is known that the other one is done with it.
func (a *attacked) ask(subject, reply string, data []byte) *wire.Ack {
	a.t.Helper()
	sub, err := a.nc.SubscribeSync(reply)
	if err == nil {
		err = a.nc.PublishRequest(subject, reply, data)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it may be over with the connection
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		a.t.Fatalf("no answer to what was published on %s: %v", subject, err)
	}
	ack, err := a.codec.DecodeAck(m.Data)
	if err != nil {
		a.t.Fatal(err)
	}
	if sig, _, ok, err := wire.ReadSignature(m.Data, m.Subject, ""); err == nil && ok {
		a.starts[string(ack.By)] = sig.Mine
	}
	return ack
}

// ackOf returns a subject for answers of its own.
func (a *attacked) ackOf(node string) string {
	a.count++
	return fmt.Sprintf("%s.ACK.evil%d", node, a.count)
}

// asShip3 sends a message with the stolen key, as the real ship3 would, and returns the ack.
func (a *attacked) asShip3(to string, method message.Method, kind message.Kind, m message.Message) *wire.Ack {
	a.t.Helper()
	subject := message.Subject{Node: message.Node(to), Method: method, Kind: kind}.String()
	a.seqs[subject]++
	data := a.frame("ship3", to, method, a.seqs[subject], m)
	for range 2 { // the first may ask for the number of the start
		reply := a.ackOf("ship3")
		ack := a.ask(subject, reply, seal(a.stolen, forFrame, subject, reply, a.starts[to], data))
		if ack.Code != "" || ack.Next != 0 {
			return ack
		}
	}
	a.t.Fatalf("%s does not take what ship3 sends", to)
	return nil
}

// canary returns the path of a file and a command that makes it.
func (a *attacked) canary() (path string, m message.Message) {
	a.count++
	path = filepath.Join(a.dir, fmt.Sprintf("canary%d", a.count))
	return path, message.Message{Data: []string{"touch", path}, ReplyMethod: message.MethodNone, ACKTimeout: time.Second, MethodTimeout: time.Minute}
}

// unharmed wants that no canary was made, and that an honest command still runs.
func (a *attacked) unharmed() {
	a.t.Helper()
	a.count++
	text := fmt.Sprintf("honest%d", a.count)
	a.send([]map[string]any{{"toNode": "ship1", "method": "REQCliCommand", "data": []string{"echo", text}, "fileName": text,
		"ACKTimeout": 1, "retries": 0, "replyACKTimeout": 1, "replyRetries": 0}})
	a.until("an honest command runs", func() bool { return slices.Equal(a.lines("central", "var/ship1/"+text), []string{text}) })
	found, err := filepath.Glob(filepath.Join(a.dir, "canary*"))
	if err != nil || len(found) > 0 {
		a.t.Errorf("the attacker had its way: %q, %v", found, err)
	}
}

// told waits for a line of a node in central's error log.
func (a *attacked) told(node, class, text string) {
	a.t.Helper()
	a.until(fmt.Sprintf("central is told by %s of %s: %s", node, class, text), func() bool {
		return slices.ContainsFunc(a.lines("central", "var/errorLog/"+node+"/error.log"), func(line string) bool {
			return strings.Contains(line, "class="+class) && strings.Contains(line, text)
		})
	})
}

// denied wants that a frame was refused as not proven.
func (a *attacked) denied(what string, ack *wire.Ack) {
	a.t.Helper()
	if ack.Code != message.CodeDenied || ack.Next != 0 {
		a.t.Fatalf("%s: the answer is %+v", what, ack)
	}
}

// attack is a step of a suite.
type attack struct {
	name string
	run  func(*attacked)
}

// play runs one attack after the other, and wants each to leave the fleet unharmed.
func (a *attacked) play(attacks []attack) {
	for _, attack := range attacks {
		a.whole.Run(attack.name, func(t *testing.T) {
			began := time.Now()
			a.t = t
			attack.run(a)
			a.unharmed()
			t.Log(time.Since(began))
		})
		a.t = a.whole
	}
}

// TestNothingForgedCountsOnABrokerThatAnybodyReaches: whoever sits on the network or runs the broker hears all
// and publishes what it likes. signatures=require is all that there is against it. It has the
// machine for itself: a flood would disturb what others measure.
func TestNothingForgedCountsOnABrokerThatAnybodyReaches(t *testing.T) {
	a := trusting(t, emptyFleet(t, 4*time.Minute), "central", "ship1", "ship2", "ship3")
	a.start("broker")
	a.until("the broker takes connections", func() bool {
		nc, err := nats.Connect("nats://" + a.broker)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	a.nc = a.connect()
	a.overhear("*.*.*") // frames and acks; who hears questions about names as well only makes starts slower
	var free ports
	for _, n := range []string{"central", "ship1"} {
		var err error
		if a.metrics[n], err = free.free(); err != nil {
			t.Fatal(err)
		}
		a.start(n)
	}
	a.unharmed()
	a.play([]attack{
		{"forged senders", (*attacked).forgeSenders},
		{"altered frames", (*attacked).alterFrames},
		{"forged acks", (*attacked).forgeAcks},
		{"forged answers", (*attacked).forgeAnswers},
		{"forged names", (*attacked).forgeNames},
		{"malformed frames", (*attacked).malform},
		{"a hostile node", (*attacked).beHostile},
		{"paths", (*attacked).escape},
		{"recorded frames", (*attacked).replay},
		{"a flood", (*attacked).flood},
		{"a key that is taken back", (*attacked).goOnAfterUntrust},
	})
}

func (a *attacked) forgeSenders() {
	_, evil := a.canary()
	for _, method := range []message.Method{"REQCliCommand", "REQnCliCommand"} {
		for _, kind := range []message.Kind{message.CommandACK, message.CommandNACK} {
			subject := message.Subject{Node: "ship1", Method: method, Kind: kind}.String()
			for _, k := range []*security.Key{nil, a.strange, a.stolen} {
				reply := a.ackOf("central")
				data := a.frame("central", "ship1", method, 1, evil)
				if k != nil {
					data = seal(k, forFrame, subject, reply, 0, data)
				}
				a.denied(fmt.Sprintf("%s, key %v", subject, k != nil), a.ask(subject, reply, data))
			}
		}
	}
	a.told("ship1", "unproven", "frame that says to be from central: it is not signed")
	a.told("ship1", "unproven", "frame that says to be from central: it is signed with the key "+a.strange.Public().String())
	a.told("ship1", "unproven", "it says to be from central, and is signed with the key "+a.stolen.Public().String())
}

// recorded returns the last frame of central for ship1 and a method.
func (a *attacked) recorded(method message.Method, kind message.Kind) *nats.Msg {
	a.t.Helper()
	m := a.last(message.Subject{Node: "ship1", Method: method, Kind: kind}.String())
	if m == nil {
		a.t.Fatalf("no frame for %s was overheard", method)
	}
	return m
}

// record has central send a command that appends a line to the returned file, and records its frame.
func (a *attacked) record(method string) (ran string, frame *nats.Msg) {
	a.t.Helper()
	a.count++
	ran = filepath.Join(a.dir, fmt.Sprintf("ran%d", a.count))
	a.send([]map[string]any{{"toNode": "ship1", "method": method, "data": []string{"sh", "-c", "echo 1 >> " + ran}, "replyMethod": "REQNone",
		"ACKTimeout": 1, "retries": 0}})
	a.until("the command has run", func() bool { return len(a.numbers(ran)) == 1 })
	return ran, a.recorded(message.Method(method), message.CommandACK)
}

func (a *attacked) alterFrames() {
	ran, frame := a.record("REQnCliCommandCont")
	signed := frame.Data[:len(frame.Data)-112]
	trailer := frame.Data[len(frame.Data)-112:]
	var altered [][]byte
	for at := 3; at < len(frame.Data); at++ { // what stands before is for malform
		bad := bytes.Clone(frame.Data)
		bad[at] ^= 1 << (at % 8)
		altered = append(altered, bad)
	}
	body := bytes.Clone(signed)
	body[2] &^= 2
	f, err := a.codec.DecodeFrame(body)
	if err != nil {
		a.t.Fatal(err)
	}
	f.Base, f.First, f.End = f.Base+1000, f.First+1000, f.End+1000
	for i := range f.Entries {
		f.Entries[i].Seq += 1000
	}
	for _, codec := range []*wire.Codec{a.codec, {Plain: true}} {
		moved, err := codec.EncodeFrame(f)
		if err != nil {
			a.t.Fatal(err)
		}
		moved[2] |= 2
		altered = append(altered, append(moved, trailer...))
	}
	altered = append(altered, append(bytes.Clone(signed), append([]byte{0}, trailer...)...), body)
	for i, bad := range altered {
		a.denied(fmt.Sprintf("change %d", i), a.ask(frame.Subject, frame.Reply, bad))
	}
	a.denied("another subject for the answer", a.ask(frame.Subject, a.ackOf("central"), frame.Data))
	other := message.Subject{Node: "ship1", Method: "REQnCliCommandCont", Kind: message.CommandNACK}.String()
	a.denied("another kind", a.ask(other, frame.Reply, frame.Data))
	a.told("ship1", "unproven", "it was changed on the way")
	if n := a.numbers(ran); len(n) != 1 {
		a.t.Errorf("the command ran %d times", len(n))
	}
}

func (a *attacked) forgeAcks() {
	subject := message.Subject{Node: "ship2", Method: "REQToFileAppend", Kind: message.EventACK}.String()
	a.send([]map[string]any{{"toNode": "ship2", "method": "REQToFileAppend", "data": []string{"precious"}, "fileName": "kept", "ACKTimeout": 1, "retries": 0}})
	a.until("the frame is overheard", func() bool { return a.last(subject) != nil })
	frame := a.last(subject)
	sig, _, _, err := wire.ReadSignature(frame.Data, frame.Subject, frame.Reply)
	if err != nil {
		a.t.Fatal(err)
	}
	f, err := a.codec.DecodeFrame(frame.Data)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, ack := range []wire.Ack{
		{By: "ship2", To: "central", Method: f.Method, Epoch: f.Epoch, Next: f.End},
		{By: "ship2", To: "central", Method: f.Method, Epoch: f.Epoch, Next: f.End, Refused: []wire.Refusal{{Seq: f.First, Code: message.CodeDenied}}},
		{By: "ship2", To: "central", Method: f.Method, Epoch: f.Epoch, Newer: f.Epoch + 1},
	} {
		data, err := a.codec.EncodeAck(&ack)
		if err != nil {
			a.t.Fatal(err)
		}
		altered := seal(a.stolen, forAck, frame.Reply, "", sig.Yours, data)
		altered[5] ^= 1
		other := seal(a.stolen, forAck, frame.Reply, "", sig.Yours, data)
		for _, bad := range [][]byte{data, seal(a.strange, forAck, frame.Reply, "", sig.Yours, data), other, altered} {
			if err := a.nc.Publish(frame.Reply, bad); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	a.told("central", "unproven", "it is not signed")
	a.told("central", "unproven", a.strange.Public().String())
	a.told("central", "unproven", "it says to be from ship2, and is signed with the key "+a.stolen.Public().String())
	a.told("central", "unproven", "it was changed on the way")
	a.start("ship2")
	a.until("what was acknowledged by nobody else arrives", func() bool { return slices.Equal(a.lines("ship2", "var/central/kept"), []string{"precious"}) })
	a.stop("ship2")
}

// held has central send a command to ship1 that waits until open is called, and returns its id.
func (a *attacked) held(method string) (id string, open func()) {
	a.t.Helper()
	a.count++
	gate := filepath.Join(a.dir, fmt.Sprintf("gate%d", a.count))
	id = a.send([]map[string]any{{"toNode": "ship1", "method": method, "fileName": filepath.Base(gate), "ACKTimeout": 1, "retries": 0,
		"replyACKTimeout": 1, "replyRetries": 0, "methodTimeout": 300,
		"data": []string{"sh", "-c", "echo > " + gate + ".runs; while ! test -e " + gate + "; do sleep 0.05; done; echo free"}}})[0]
	a.until("the command runs", func() bool { _, err := os.Stat(gate + ".runs"); return err == nil })
	return id, func() {
		a.t.Helper()
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			a.t.Fatal(err)
		}
		a.until("its reply is there", func() bool {
			return slices.Equal(a.lines("central", "var/ship1/"+filepath.Base(gate)), []string{"free"})
		})
	}
}

// state is what central knows of a message that it has accepted.
func (a *attacked) state(id string) string {
	a.t.Helper()
	cmd := command(a.t, "steward", "status", "-json", "-socketFolder="+filepath.Join(a.dir, "central", "tmp"), id)
	out, err := cmd.Output()
	var st struct {
		Sent struct{ State string }
	}
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil || st.Sent.State == "" {
		a.t.Fatalf("status of %s: %v: %s", id, err, out)
	}
	return st.Sent.State
}

func (a *attacked) publish(subject, reply string, data []byte) {
	a.t.Helper()
	if err := a.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data}); err != nil {
		a.t.Fatal(err)
	}
}

// questioned has central ask ship1 about its requests, which is done when that says that it is there, and
// returns the question. Whoever is on the broker can say so: it is not signed.
func (a *attacked) questioned() *nats.Msg {
	a.t.Helper()
	before := a.last("ship1.OPEN.EventACK")
	a.publish("ship1.HERE", "", nil)
	var question *nats.Msg
	a.until("central asks", func() bool {
		question = a.last("ship1.OPEN.EventACK")
		return question != before
	})
	return question
}

func (a *attacked) forgeAnswers() {
	text, open := a.held("REQnCliCommand")
	id, err := message.ParseID(text)
	if err != nil {
		a.t.Fatal(err)
	}
	a.until("its ACK is written down", func() bool { return a.state(text) == "delivered" }) // before, there is nothing to ask about
	question := a.questioned()
	var was *nats.Msg
	a.until("ship1 answers", func() bool { was = a.last(question.Reply); return was != nil })
	again := a.questioned()
	for _, fate := range []wire.Fate{{ID: id}, {ID: id, Code: message.CodeFailed, Text: "no"}} {
		data, err := a.codec.EncodeAnswer(&wire.Answer{By: "ship1", To: "central", Fates: []wire.Fate{fate}})
		if err != nil {
			a.t.Fatal(err)
		}
		for _, bad := range [][]byte{data, seal(a.strange, forAnswer, again.Reply, "", 0, data), seal(a.stolen, forAnswer, again.Reply, "", 0, data), was.Data} {
			a.publish(again.Reply, "", bad)
		}
	}
	a.told("central", "unproven", "answer: it is not signed")
	a.told("central", "unproven", "answer: it is signed with the key "+a.strange.Public().String())
	a.told("central", "unproven", "answer: it says to be from ship1, and is signed with the key "+a.stolen.Public().String())
	a.told("central", "unproven", "answer: its signature does not fit")

	// Nor does a reply of another node end it.
	code := a.asShip3("central", "REQToFile", message.EventACK, message.Message{InReplyTo: id, RequestMethod: "REQnCliCommand",
		Result: &message.Result{Code: message.CodeFailed}, ReplyMethod: message.MethodNone, FileName: "forged", Body: []byte("forged\n")}).Code
	if code != "" {
		a.t.Fatalf("the reply was refused with %s", code)
	}
	a.until("the reply is written", func() bool { return len(a.lines("central", "var/ship3/forged")) == 1 })
	if s := a.state(text); s != "delivered" {
		a.t.Errorf("the request is %s", s)
	}

	// Nor is it forgotten by ship1 when another node uses its id.
	if ack := a.asShip3("ship1", "REQPing", message.EventACK, message.Message{ID: id, ReplyMethod: message.MethodNone, MethodTimeout: time.Minute, FileName: "same"}); ack.Code != "" {
		a.t.Fatalf("a message with the same id: the answer is %+v", ack)
	}
	a.until("it has run", func() bool { return len(a.lines("ship1", "var/ship3/same")) > 0 })
	question = a.questioned()
	a.until("ship1 answers", func() bool { return a.last(question.Reply) != nil })
	answer, err := a.codec.DecodeAnswer(a.last(question.Reply).Data)
	if err != nil || len(answer.Fates) != 0 {
		a.t.Errorf("ship1 says that %+v, %v", answer, err)
	}
	open()
	a.until("the request is done", func() bool { return a.state(text) == "done" })
}

func (a *attacked) forgeNames() {
	claim, err := wire.EncodeClaim(&wire.Claim{Token: "zzzz", Held: 1 << 50, Host: "evil", PID: 666})
	if err != nil {
		a.t.Fatal(err)
	}
	claims := func(subject, reply string) {
		for _, data := range [][]byte{claim, seal(a.strange, forClaim, subject, reply, 0, claim), seal(a.stolen, forClaim, subject, reply, 0, claim)} {
			if err := a.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data}); err != nil {
				a.t.Error(err)
			}
		}
	}
	claims("ship1.NAME", "ship1.NAME.evil")
	for _, why := range []string{"it is not signed", "it is signed with the key " + a.strange.Public().String(),
		"it says to be from ship1, and is signed with the key " + a.stolen.Public().String()} {
		a.told("ship1", "unproven", "a claim to the name of this node, ship1, by process id 666 on host evil, is not believed: "+why)
	}
	a.unharmed()

	// And at its start, when it asks whether the name is free.
	answered := make(chan struct{}, 100)
	sub, err := a.nc.Subscribe("ship1.NAME", func(m *nats.Msg) {
		claims(m.Reply, "")
		answered <- struct{}{}
	})
	if err == nil {
		err = a.nc.Flush()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.stop("ship1")
	a.start("ship1")
	select {
	case <-answered:
	case <-a.ctx.Done():
		a.t.Fatal("ship1 has not asked")
	}
	a.unharmed()
	if err := sub.Unsubscribe(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *attacked) malform() {
	_, evil := a.canary()
	const method = "REQTailFile"
	subject := message.Subject{Node: "ship1", Method: method, Kind: message.EventACK}.String()
	bomb, err := zstd.NewWriter(nil)
	if err != nil {
		a.t.Fatal(err)
	}
	good := a.frame("ship3", "ship1", method, 1, evil)
	plain, err := (&wire.Codec{Plain: true}).EncodeFrame(&wire.Frame{From: "ship3", To: "ship1", Method: method, Epoch: 1 << 50, Base: 9, First: 8, End: 7})
	if err != nil {
		a.t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"garbage":            bytes.Repeat([]byte{0xff}, 1000),
		"no body":            {'S', 1, 0},
		"cut off":            good[:len(good)/2],
		"a zstd bomb":        bomb.EncodeAll(make([]byte, 64<<20), []byte{'S', 1, 1}),
		"no zstd":            {'S', 1, 1, 1, 2, 3},
		"an array of 2^60":   {'S', 1, 0, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0},
		"nested":             append([]byte{'S', 1, 0}, bytes.Repeat([]byte{0x81}, 100_000)...),
		"numbers backwards":  plain,
		"an unknown version": append([]byte{'S', 9}, good[2:]...),
		"an unknown flag":    append([]byte{'S', 1, good[2] | 0x80}, good[3:]...),
		"no magic":           append([]byte{'T'}, good[1:]...),
	} {
		for _, signed := range []bool{false, true} {
			reply := a.ackOf("ship3")
			bad := data
			if signed { // by a node that is trusted: only the decoder is in the way
				bad = seal(a.stolen, forFrame, subject, reply, 0, data)
			}
			if ack := a.ask(subject, reply, bad); ack.Code == "" {
				a.t.Errorf("%s, signed %v: the answer is %+v", name, signed, ack)
			}
		}
	}
	a.told("ship1", "refused", "invalid frame")
	a.told("ship1", "refused", "written in a format of a newer version")

	// What is larger than the broker allows costs who sends it the connection, and nobody else anything.
	conn, err := net.Dial("tcp", a.broker)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nPUB %s 16777216\r\n", subject); err != nil {
		a.t.Fatal(err)
	}
	if deadline, ok := a.ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline) // a connection of TCP takes it
	}
	if said, _ := io.ReadAll(conn); !strings.Contains(string(said), "Maximum Payload Violation") {
		a.t.Errorf("the broker says %s", said)
	}
}

// beHostile is ship3 with its own key, which does what its lists do not allow.
func (a *attacked) beHostile() {
	_, evil := a.canary()
	evil.Headers = map[string]string{message.HeaderFrom: "central"}
	for _, method := range []message.Method{"REQCliCommand", "REQnCliCommand", "REQnCliCommandCont"} {
		ack := a.asShip3("ship1", method, message.CommandACK, evil)
		if len(ack.Refused) != 1 || ack.Refused[0].Code != message.CodeDenied {
			a.t.Errorf("%s: the answer is %+v", method, ack)
		}
		a.told("ship1", "refused", fmt.Sprintf("ship3 may not use %s here", method))
	}
	start := evil
	start.Operation = &message.Operation{Cmd: "startProc"}
	if ack := a.asShip3("ship1", "REQOpCommand", message.CommandACK, start); len(ack.Refused) != 1 {
		a.t.Errorf("startProc: the answer is %+v", ack)
	}
	a.told("ship1", "refused", "ship3 may not use REQOpCommand here")

	// By another name, on a subject that is listened to.
	subject := message.Subject{Node: "ship1", Method: "REQPing", Kind: message.EventACK}.String()
	for _, method := range []message.Method{"REQCliCommand", "shellCommand", "reqclicommand", "REQping"} {
		reply := a.ackOf("ship3")
		ack := a.ask(subject, reply, seal(a.stolen, forFrame, subject, reply, a.starts["ship1"], a.frame("ship3", "ship1", method, 1, evil)))
		if ack.Code != message.CodeInvalid {
			a.t.Errorf("%s: the answer is %+v", method, ack)
		}
	}
	a.told("ship1", "refused", "and came on "+subject)

	// As a reply: a request of ship1 asks for a file, and gets a command. A reply is decided by the same lists.
	reply := evil
	reply.InReplyTo, reply.RequestMethod, reply.Result = message.NewID(time.Now(), 1, 1), "REQPing", &message.Result{}
	if ack := a.asShip3("central", "REQCliCommand", message.CommandACK, reply); len(ack.Refused) != 1 || ack.Refused[0].Code != message.CodeDenied {
		a.t.Errorf("a command as a reply: the answer is %+v", ack)
	}
	a.told("central", "refused", "ship3 may not use REQCliCommand here")
}

// escape tries to write outside of the data folder of ship1, or in the name of another node.
func (a *attacked) escape() {
	outside := filepath.Join(a.dir, "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		a.t.Fatal(err)
	}
	// A command that central has allowed itself, say, left a link.
	if err := os.MkdirAll(filepath.Join(a.dir, "ship1", "var"), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(a.dir, "ship1", "var", "link")); err != nil {
		a.t.Fatal(err)
	}
	before := a.tree("ship1")
	type place struct{ directory, fileName string }
	var places []place
	for _, d := range []string{"..", "../..", "a/../../..", "../var/../../central", `..\..`, `a\..\..`, "/..", "/" + outside, "a\x00b", "link", "link/..", "link/../../outside",
		"./.././", "errorLog/ship1/..", strings.Repeat("n", 300)} {
		places = append(places, place{d, "canary"})
	}
	for _, n := range []string{"..", ".", "../canary", "../../../canary", "/canary", `..\canary`, "a/b", "a\x00", outside + "/canary", strings.Repeat("n", 300)} {
		places = append(places, place{"dir", n}, place{"", n})
	}
	for _, p := range places {
		for _, method := range []message.Method{"REQToFile", "REQToFileAppend", "REQErrorLog", "REQHello", "REQPing", "REQPong"} {
			for _, isReply := range []bool{false, true} {
				m := message.Message{Directory: p.directory, FileName: p.fileName, Data: []string{"evil"}, ReplyMethod: message.MethodNone, MethodTimeout: time.Minute,
					Headers: map[string]string{message.HeaderFrom: "../central"}}
				kind := message.EventACK
				if isReply {
					m.InReplyTo, m.RequestMethod, m.Result, m.Body = message.NewID(time.Now(), 1, 1), "REQCliCommand", &message.Result{}, []byte("evil\n")
				}
				if method == "REQHello" {
					kind = message.EventNACK // it has no other
				}
				a.asShip3("ship1", method, kind, m)
			}
		}
	}
	// A name for its own ends, to know that all before it have been.
	for _, method := range []message.Method{"REQToFile", "REQToFileAppend", "REQErrorLog", "REQPing", "REQPong"} {
		a.asShip3("ship1", method, message.EventACK, message.Message{Directory: "end", FileName: string(method), Data: []string{"end"}, ReplyMethod: message.MethodNone, MethodTimeout: time.Minute})
	}
	for _, method := range []string{"REQToFile", "REQToFileAppend", "REQPing", "REQPong"} {
		a.until(method+" is through", func() bool { return len(a.lines("ship1", "var/end/ship3/"+method)) > 0 })
	}
	for _, path := range a.tree("ship1") {
		rel := strings.Split(path, "/")
		if !slices.Contains(before, path) && !(rel[0] == "var" && slices.Contains(rel[1:len(rel)-1], "ship3")) {
			a.t.Errorf("written: ship1/%s", path)
		}
	}
	if found := a.tree("outside"); len(found) > 0 {
		a.t.Errorf("written: outside/%q", found)
	}
	a.told("ship1", "method-failed", "it leaves the data folder")
}

// tree returns the files below a folder of the fleet, those that a node itself makes at any time left out.
func (a *attacked) tree(folder string) []string {
	a.t.Helper()
	root := filepath.Join(a.dir, folder)
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator))))
		}
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// replay sends what was recorded once more: to the same receiver, after its store is gone, and elsewhere.
func (a *attacked) replay() {
	ran, frame := a.record("REQCliCommand")
	if ack := a.ask(frame.Subject, frame.Reply, frame.Data); ack.Code != "" {
		a.t.Errorf("to the same receiver: the answer is %+v", ack)
	}
	for _, subject := range []string{"ship1.REQnCliCommand.CommandACK", "ship1.REQCliCommand.CommandNACK"} {
		a.denied(subject, a.ask(subject, frame.Reply, frame.Data))
	}
	a.publish("central.REQCliCommand.CommandACK", frame.Reply, frame.Data) // whose answer to itself needs no broker
	a.told("central", "unproven", "frame that says to be from central: its signature does not fit")
	a.stop("ship1")
	if err := os.RemoveAll(filepath.Join(a.dir, "ship1", "lib")); err != nil {
		a.t.Fatal(err)
	}
	a.start("ship1")
	// Each time it is counted. It is told as long as central has nothing on the way to ship1; what is refused soon after
	// a start is usual else.
	a.until("ship1 counts it", func() bool {
		a.publish(frame.Subject, frame.Reply, frame.Data) // nobody may hear it yet
		return a.refused("ship1", "stale") > 0
	})
	a.told("central", "unproven", "ship1 got, and did not take, a frame for REQCliCommand that is from this node, and is not under way now")
	if ack := a.ask(frame.Subject, frame.Reply, frame.Data); ack.Code != "" || ack.Next != 0 {
		a.t.Errorf("to an empty store: the answer is %+v", ack)
	}
	a.unharmed()
	if n := a.numbers(ran); len(n) != 1 {
		a.t.Errorf("the command ran %d times", len(n))
	}
}

// metric reads a metric of a node.
func (a *attacked) metric(node, name string) float64 {
	a.t.Helper()
	resp, err := http.Get("http://" + a.metrics[node] + "/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				a.t.Fatal(err)
			}
			return v
		}
	}
	a.t.Fatalf("%s has no metric %s", node, name)
	return 0
}

func (a *attacked) refused(node, reason string) float64 {
	a.t.Helper()
	return a.metric(node, `steward_signatures_refused_total{reason="`+reason+`"}`)
}

// flood sends bad frames in ever new words while honest work goes on.
func (a *attacked) flood() {
	const frames = 4000
	log := "var/errorLog/ship1/error.log"
	lines, memory := len(a.lines("central", log)), a.metric("ship1", "go_memstats_sys_bytes")
	before := a.refused("ship1", "unsigned") + a.refused("ship1", "other-node")
	subject := message.Subject{Node: "ship1", Method: "REQPong", Kind: message.EventACK}.String()
	for i := range frames {
		from := fmt.Sprintf("ship%d", 1000+i)
		reply := from + ".ACK.x"
		data := a.frame(from, "ship1", "REQPong", 1, message.Message{Data: []string{strings.Repeat("x", 4<<10)}})
		if i%2 == 0 {
			data = seal(a.stolen, forFrame, subject, reply, 0, data)
		}
		a.publish(subject, reply, data)
		if i%(frames/4) == 0 {
			a.unharmed()
		}
	}
	reply := a.ackOf("central")
	a.denied("the last one", a.ask(subject, reply, a.frame("central", "ship1", "REQPong", 1, message.Message{})))
	if n := a.refused("ship1", "unsigned") + a.refused("ship1", "other-node") - before; n < frames/2 {
		a.t.Errorf("%v refusals of %d are counted", n, frames)
	}
	a.unharmed()
	if n := len(a.lines("central", log)) - lines; n > 100 {
		a.t.Errorf("%d lines in the error log", n)
	}
	if grown := a.metric("ship1", "go_memstats_sys_bytes") - memory; grown > 64<<20 {
		a.t.Errorf("the node has grown by %v bytes", grown)
	}
}

// goOnAfterUntrust is the stolen ship3, of which ship1 hears while it runs.
func (a *attacked) goOnAfterUntrust() {
	say := message.Message{Data: []string{"line"}, FileName: "stolen", ReplyMethod: message.MethodNone, MethodTimeout: time.Minute}
	if ack := a.asShip3("ship1", "REQToFileAppend", message.EventACK, say); ack.Code != "" {
		a.t.Fatalf("before: the answer is %+v", ack)
	}
	a.until("it is written", func() bool { return len(a.lines("ship1", "var/ship3/stolen")) == 1 })
	out, err := command(a.t, "steward", "keys", "untrust", "-configFolder="+filepath.Join(a.dir, "ship1", "etc"), "ship3").CombinedOutput()
	if err != nil {
		a.t.Fatalf("%v: %s", err, out)
	}
	a.denied("after", a.asShip3("ship1", "REQToFileAppend", message.EventACK, say))
	a.told("ship1", "unproven", "frame that says to be from ship3: it is signed with the key "+a.stolen.Public().String()+", which ship1 does not trust")
	if n := len(a.lines("ship1", "var/ship3/stolen")); n != 1 {
		a.t.Errorf("%d lines are written", n)
	}
}
