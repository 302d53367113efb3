package natstransport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"steward/errorkernel"
	"steward/internal/natstest"
	"steward/process"
	"steward/process/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 20 * time.Second

// open returns a transport that reconnects quickly and is closed with the test.
func open(t *testing.T, o Options) *Transport {
	t.Helper()
	o.ReconnectWait, o.ReconnectJitter = 10*time.Millisecond, 10*time.Millisecond
	tr, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := tr.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func pair(b *natstest.Broker, x, y *Transport) transporttest.Pair {
	return transporttest.Pair{
		A: x, B: y,
		Down: b.Stop,
		Up:   b.Restart,
		Close: func(ctx context.Context) error {
			return errors.Join(x.Close(ctx), y.Close(ctx))
		},
	}
}

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Pair {
		b := natstest.Start(t)
		o := Options{Servers: []string{b.URL()}}
		return pair(b, open(t, o), open(t, o))
	})
}

// current connects in process to whatever server runs now.
type current struct{ *natstest.Broker }

func TestTransportInProcess(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Pair {
		b := natstest.Start(t)
		return pair(b, open(t, Options{InProcess: current{b}}), open(t, Options{Servers: []string{b.URL()}}))
	})
}

// events is a reporter that passes on what it gets.
type events chan errorkernel.Event

func (e events) Report(ev errorkernel.Event) errorkernel.Action {
	select {
	case e <- ev:
	default:
	}
	return errorkernel.Continue
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("nothing came in %v", limit)
		panic("unreachable")
	}
}

func waitState(t *testing.T, tr *Transport, want bool) {
	t.Helper()
	for {
		up, changed := tr.State()
		if up == want {
			return
		}
		receive(t, changed)
	}
}

// logs is a log that can be read while it is written.
type logs struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	wrote chan struct{}
}

func newLogs() *logs { return &logs{wrote: make(chan struct{}, 1)} }

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logs) count(level, text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, "level="+level) && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// wait returns when text was logged at least n times.
func (l *logs) wait(t *testing.T, level, text string, n int) {
	t.Helper()
	for l.count(level, text) < n {
		receive(t, l.wrote)
	}
}

func TestOpenWorksWithoutABroker(t *testing.T) {
	b := natstest.Start(t)
	b.Stop()
	log := newLogs()
	report := make(events, 10)
	tr := open(t, Options{Servers: []string{"127.0.0.1:1", b.URL()}, Log: log.logger(), Report: report})
	got := make(chan process.Delivery, 1)
	if _, err := tr.Subscribe("a.x", func(d process.Delivery) { got <- d }); err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish("a.x", "", nil); !errors.Is(err, process.ErrOffline) {
		t.Errorf("got %v, want ErrOffline", err)
	}
	if tr.MaxPayload() != 1<<20 {
		t.Errorf("MaxPayload is %d before the first link", tr.MaxPayload())
	}
	// One warning for each server, however many attempts.
	log.wait(t, "DEBUG", "still no connection", 4)
	if n := log.count("WARN", "no connection to the broker"); n != 2 {
		t.Errorf("%d warnings, want one for each server", n)
	}
	if n := log.count("WARN", "connection refused"); n != 2 {
		t.Errorf("%d warnings say why, want 2", n)
	}
	b.Restart()
	waitState(t, tr, true)
	if err := tr.Publish("a.x", "", []byte("1")); err != nil {
		t.Fatal(err)
	}
	receive(t, got)
	b.Stop()
	waitState(t, tr, false)
	log.wait(t, "WARN", "connection to the broker lost", 1)
	if n := log.count("INFO", "connected to the broker"); n != 1 {
		t.Errorf("connected %d times", n)
	}
	select {
	case ev := <-report:
		t.Errorf("a broker out of reach was reported: %v", ev.Err)
	default:
	}
}

func TestServersAreTriedUntilOneAnswers(t *testing.T) {
	b := natstest.Start(t)
	for _, servers := range [][]string{
		{strings.TrimPrefix(b.URL(), "nats://")},
		{"127.0.0.1:1", " " + b.URL() + " ", ""},
		{"ws://127.0.0.1:1", b.URL()},
	} {
		waitState(t, open(t, Options{Servers: servers}), true)
	}
}

func TestRefusedLoginIsReportedOnceAndTriedAgain(t *testing.T) {
	b := natstest.StartConfig(t, `authorization { user: ship1, password: secret }`)
	log := newLogs()
	report := make(events, 100)
	addr := strings.TrimPrefix(b.URL(), "nats://")
	tr := open(t, Options{Servers: []string{"nats://ship1:wrongpass@" + addr}, Log: log.logger(), Report: report})
	ev := receive(t, report)
	if ev.Class != errorkernel.LinkFailed || !strings.Contains(strings.ToLower(ev.Err.Error()), "authorization violation") {
		t.Errorf("got %+v", ev)
	}
	if strings.Contains(ev.Err.Error(), "wrongpass") || !strings.Contains(ev.Err.Error(), addr) {
		t.Errorf("got %v: want the address and no password", ev.Err)
	}
	log.wait(t, "DEBUG", "still no connection", 5)
	if len(report) > 0 {
		t.Error("reported again without a change")
	}
	if up, _ := tr.State(); up {
		t.Error("up without a login")
	}
	if n := log.count("", "wrongpass"); n > 0 {
		t.Error("the password was logged")
	}
	waitState(t, open(t, Options{Servers: []string{"nats://ship1:secret@" + addr}}), true)
}

func TestPermissionViolationIsReportedAndTheLinkStays(t *testing.T) {
	b := natstest.StartConfig(t, `authorization { users: [ { user: ship1, password: secret,
		permissions: { publish: ["a.>", "ack.>"], subscribe: ["a.>", "ack.>"] } } ] }`)
	report := make(events, 100)
	addr := strings.TrimPrefix(b.URL(), "nats://")
	tr := open(t, Options{Servers: []string{"nats://ship1:secret@" + addr}, Report: report})
	waitState(t, tr, true)
	for range 3 {
		if err := tr.Publish("other.REQ.EventACK", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if ev := receive(t, report); ev.Class != errorkernel.LinkFailed || ev.Subject != "other.REQ.EventACK" || !errors.Is(ev.Err, nats.ErrPermissionViolation) {
		t.Errorf("got %+v", ev)
	}
	if _, err := tr.Subscribe("third.REQ.EventACK", func(process.Delivery) {}); err != nil {
		t.Fatal(err)
	}
	if ev := receive(t, report); ev.Subject != "third.REQ.EventACK" {
		t.Errorf("got %+v", ev)
	}
	got := make(chan process.Delivery, 1)
	if _, err := tr.Subscribe("a.x", func(d process.Delivery) { got <- d }); err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish("a.x", "", []byte("1")); err != nil {
		t.Fatal(err)
	}
	receive(t, got)
	if len(report) > 0 {
		t.Errorf("reported again: %v", (<-report).Err)
	}
}

func TestSlowHandlerDropsFramesWithOneLine(t *testing.T) {
	b := natstest.Start(t)
	log := newLogs()
	slow := open(t, Options{Servers: []string{b.URL()}, Log: log.logger()})
	sender := open(t, Options{Servers: []string{b.URL()}})
	waitState(t, slow, true)
	waitState(t, sender, true)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	last := make(chan struct{}, 1)
	var total atomic.Int64
	if _, err := slow.Subscribe("b.x", func(d process.Delivery) {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		total.Add(1)
		if string(d.Data) == "last" {
			select {
			case last <- struct{}{}:
			default:
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	fence := make(chan struct{}, 10)
	if _, err := slow.Subscribe("b.fence", func(process.Delivery) { fence <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := slow.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	send := func(n int, data string) {
		for range n {
			if err := sender.Publish("b.x", "", []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := sender.Publish("b.fence", "", nil); err != nil {
			t.Fatal(err)
		}
		receive(t, fence)
	}
	send(1, "x")
	receive(t, entered)
	send(10_000, "x")
	log.wait(t, "WARN", "frames dropped", 1)
	close(release)
	send(0, "")
	for { // the queue may still be full for a moment
		send(1, "last")
		select {
		case <-last:
		case <-ctx.Done():
			t.Fatal("nothing arrives after the burst")
		default:
			continue
		}
		break
	}
	if n := total.Load(); n > 9000 {
		t.Errorf("%d frames were kept for a handler that is blocked", n)
	}
	if n := log.count("WARN", "frames dropped"); n != 1 {
		t.Errorf("%d lines about one burst", n)
	}
	if up, _ := slow.State(); !up {
		t.Error("the link is gone")
	}
}

// However many subscriptions a burst is for, and however small its frames: none is lost as long as
// each subscription has room.
func TestBurstForManySubscriptionsLosesNothing(t *testing.T) {
	const subscriptions, frames = 10, 4000
	b := natstest.Start(t)
	log := newLogs()
	busy := open(t, Options{Servers: []string{b.URL()}, Log: log.logger()})
	sender := open(t, Options{Servers: []string{b.URL()}})
	waitState(t, busy, true)
	waitState(t, sender, true)
	done := make(chan struct{}, subscriptions)
	begin := make(chan struct{})
	for i := range subscriptions {
		n := 0
		if _, err := busy.Subscribe(fmt.Sprintf("b.%d", i), func(d process.Delivery) {
			<-begin
			if string(d.Data) != fmt.Sprint(n) {
				t.Errorf("got %s, want %d", d.Data, n)
			}
			if n++; n == frames {
				done <- struct{}{}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := busy.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for n := range frames {
		for i := range subscriptions {
			if err := sender.Publish(fmt.Sprintf("b.%d", i), "", []byte(fmt.Sprint(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(sender.Flush(ctx), busy.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	close(begin)
	for range subscriptions {
		receive(t, done)
	}
	if n := log.count("WARN", "frames dropped"); n > 0 {
		t.Errorf("%d lines about dropped frames", n)
	}
}

func TestNoticeIsOnlyWhatABrokerSays(t *testing.T) {
	b := natstest.Start(t)
	tr := open(t, Options{Servers: []string{b.URL()}})
	waitState(t, tr, true)
	got := make(chan process.Delivery, 10)
	if _, err := tr.Subscribe("a.x", func(d process.Delivery) { got <- d }); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := tr.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	header := nats.Header{"Status": []string{"503"}}
	if err := nc.PublishMsg(&nats.Msg{Subject: "a.x", Header: header, Data: []byte("data")}); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, got); d.NoResponders || string(d.Data) != "data" {
		t.Errorf("got %+v", d)
	}
}

func TestGarbageFromAPeerDoesNoHarm(t *testing.T) {
	b := natstest.Start(t)
	tr := open(t, Options{Servers: []string{b.URL()}})
	waitState(t, tr, true)
	got := make(chan process.Delivery, 100)
	if _, err := tr.Subscribe("a.x", func(d process.Delivery) { got <- d }); err != nil {
		t.Fatal(err)
	}
	if err := tr.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "CONNECT {\"headers\":true,\"verbose\":false}\r\n")
	headers := []string{"NATS/1.0\r\n\r\n", "NATS/1.0 5\r\n\r\n", "NATS/1.0 503", "NATS/1.0    \r\n\r\n", "x", "\r\n\r\n", "NATS/1.0\r\n:\r\n\r\n", "NATS/1.0 503 \xff\r\n\r\n"}
	for _, h := range headers {
		fmt.Fprintf(conn, "HPUB a.x %d %d\r\n%sdata\r\n", len(h), len(h)+4, h)
	}
	for range headers {
		if d := receive(t, got); d.NoResponders || string(d.Data) != "data" {
			t.Errorf("got %+v", d)
		}
	}
	if up, _ := tr.State(); !up {
		t.Error("the link is gone")
	}
}

func (c current) InProcessConn() (net.Conn, error) {
	s := c.Server()
	if s == nil {
		return nil, errors.New("stopped")
	}
	return s.InProcessConn()
}
