// Package transporttest is the contract of process.Transport as tests. Every
// implementation passes them.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// Pair is two nodes of one network, both with a link or about to have one.
type Pair struct {
	A, B process.Transport
	// Down takes the links of both away, as a broker that stops does. Up brings them back.
	// Neither waits for the transports to notice.
	Down, Up func()
	// Close ends both transports. It may be called twice.
	Close func(ctx context.Context) error
}

// limit is how long a test waits for what has to happen. Nothing waits that long when all
// is well.
const limit = 20 * time.Second

// Run tests the transports that open makes. open registers what cleans up after them with
// t.Cleanup; Run does not rely on Pair.Close for that.
func Run(t *testing.T, open func(t *testing.T) Pair) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, p Pair)
	}{
		{"DeliversInOrder", deliversInOrder},
		{"DeliversWhatWasSent", deliversWhatWasSent},
		{"DeliversToEverySubscription", deliversToEverySubscription},
		{"WildcardMatchesTheLastPart", wildcardMatchesTheLastPart},
		{"TellsWhenNobodyListens", tellsWhenNobodyListens},
		{"PublishOfflineFailsAndIsNeverSentLater", publishOfflineFails},
		{"SubscribesOffline", subscribesOffline},
		{"KeepsSubscriptionsThroughReconnects", keepsSubscriptions},
		{"RefusesLargeFrames", refusesLargeFrames},
		{"RefusesBadSubjects", refusesBadSubjects},
		{"ClosedSubscriptionIsSilent", closedSubscriptionIsSilent},
		{"BlockedHandlerHoldsUpItsOwnSubscriptionOnly", blockedHandler},
		{"HandlerMayPublishSubscribeAndClose", handlerMayUseTransport},
		{"HandlerOwnsItsData", handlerOwnsItsData},
		{"StateTellsOfChanges", stateTellsOfChanges},
		{"FlushObeysItsContext", flushObeysItsContext},
		{"ManyGoroutinesMayUseIt", manyGoroutines},
		{"CloseMayBeCalledTwice", closeTwice},
		{"CloseIsBoundedByItsContext", closeBounded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := open(t)
			waitState(t, p.A, true)
			waitState(t, p.B, true)
			tt.test(t, p)
		})
	}
}

func deliversInOrder(t *testing.T, p Pair) {
	const frames = 2000
	got := collect(t, p.B, "b.REQ.EventACK")
	for i := range frames {
		publish(t, p.A, "b.REQ.EventACK", "", fmt.Appendf(nil, "%d", i))
	}
	for i := range frames {
		if d := next(t, got); string(d.Data) != fmt.Sprint(i) {
			t.Fatalf("frame %d: got %q", i, d.Data)
		}
	}
}

func deliversWhatWasSent(t *testing.T, p Pair) {
	got := collect(t, p.B, "b.REQ.EventACK")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, data := range [][]byte{all, []byte("\r\nPUB b.REQ.EventACK 0\r\n"), {}, nil} {
		for _, reply := range []string{"ack.a.1", ""} {
			publish(t, p.A, "b.REQ.EventACK", reply, data)
			d := next(t, got)
			if d.Subject != "b.REQ.EventACK" || d.Reply != reply || !bytes.Equal(d.Data, data) || d.NoResponders || d.Local {
				t.Errorf("sent %q with reply %q, got %+v", data, reply, d)
			}
		}
	}
}

func deliversToEverySubscription(t *testing.T, p Pair) {
	var all []<-chan process.Delivery
	for _, tr := range []process.Transport{p.A, p.B, p.B} {
		all = append(all, collect(t, tr, "here.x"))
	}
	publish(t, p.A, "here.x", "", []byte("1"))
	for i, got := range all {
		if d := next(t, got); string(d.Data) != "1" {
			t.Errorf("subscription %d: got %q", i, d.Data)
		}
	}
}

func wildcardMatchesTheLastPart(t *testing.T, p Pair) {
	got := collect(t, p.B, "here.*")
	for _, subject := range []string{"here.ship1", "here", "here.ww.ship1", "other.ship1", "herex.ship1", "here.ship2"} {
		publish(t, p.A, subject, "", nil)
	}
	for _, want := range []string{"here.ship1", "here.ship2"} {
		if d := next(t, got); d.Subject != want {
			t.Errorf("got %s, want %s", d.Subject, want)
		}
	}
}

func tellsWhenNobodyListens(t *testing.T, p Pair) {
	notices := collect(t, p.A, "ack.a.*")
	others := collect(t, p.B, "ack.a.*")
	publish(t, p.A, "nobody.REQ.EventACK", "ack.a.7", []byte("x"))
	d := next(t, notices)
	if !d.NoResponders || d.Subject != "ack.a.7" || len(d.Data) != 0 || d.Reply != "" {
		t.Errorf("got %+v", d)
	}
	// An empty frame of somebody else is not a notice, and nobody else gets ours.
	publish(t, p.A, "ack.a.8", "", nil)
	for who, got := range map[string]<-chan process.Delivery{"A": notices, "B": others} {
		if d := next(t, got); d.NoResponders || d.Subject != "ack.a.8" {
			t.Errorf("%s got %+v", who, d)
		}
	}
	// Without a reply subject there is nobody to tell.
	publish(t, p.A, "nobody.REQ.EventACK", "", []byte("x"))
	publish(t, p.A, "ack.a.9", "", nil)
	if d := next(t, notices); d.Subject != "ack.a.9" {
		t.Errorf("got %+v", d)
	}
	// As soon as somebody listens there is no notice.
	got := collect(t, p.B, "nobody.REQ.EventACK")
	publish(t, p.A, "nobody.REQ.EventACK", "ack.a.10", []byte("y"))
	if d := next(t, got); string(d.Data) != "y" {
		t.Errorf("got %+v", d)
	}
	publish(t, p.A, "ack.a.11", "", nil)
	if d := next(t, notices); d.Subject != "ack.a.11" {
		t.Errorf("got %+v", d)
	}
}

func publishOfflineFails(t *testing.T, p Pair) {
	got := collect(t, p.B, "b.REQ.EventACK")
	down(t, p)
	for range 10 {
		if err := p.A.Publish("b.REQ.EventACK", "ack.a.1", []byte("late")); !errors.Is(err, process.ErrOffline) {
			t.Fatalf("got %v, want ErrOffline", err)
		}
	}
	up(t, p)
	publish(t, p.A, "b.REQ.EventACK", "", []byte("now"))
	if d := next(t, got); string(d.Data) != "now" {
		t.Errorf("got %q first", d.Data)
	}
}

func subscribesOffline(t *testing.T, p Pair) {
	down(t, p)
	got := subscribe(t, p.B, "b.REQ.EventACK")
	gone, err := p.B.Subscribe("b.REQ.CommandACK", func(process.Delivery) { t.Error("called after Close") })
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	up(t, p)
	// No flush: a link is reported only when all subscriptions are in force.
	notices := collect(t, p.A, "ack.a.*")
	publish(t, p.A, "b.REQ.EventACK", "ack.a.1", []byte("1"))
	if d := next(t, got); string(d.Data) != "1" {
		t.Errorf("got %q", d.Data)
	}
	publish(t, p.A, "b.REQ.CommandACK", "ack.a.2", []byte("2"))
	if d := next(t, notices); !d.NoResponders || d.Subject != "ack.a.2" {
		t.Errorf("got %+v", d)
	}
}

func keepsSubscriptions(t *testing.T, p Pair) {
	got := collect(t, p.B, "b.REQ.EventACK")
	for i := range 3 {
		publish(t, p.A, "b.REQ.EventACK", "", fmt.Appendf(nil, "%d", i))
		if d := next(t, got); string(d.Data) != fmt.Sprint(i) {
			t.Fatalf("round %d: got %q", i, d.Data)
		}
		down(t, p)
		up(t, p)
	}
	publish(t, p.A, "b.REQ.EventACK", "", []byte("end"))
	if d := next(t, got); string(d.Data) != "end" {
		t.Errorf("got %q: something came twice", d.Data)
	}
}

func refusesLargeFrames(t *testing.T, p Pair) {
	got := collect(t, p.B, "b.REQ.EventACK")
	most := p.A.MaxPayload()
	if most < 1024 {
		t.Fatalf("MaxPayload is %d", most)
	}
	large := bytes.Repeat([]byte{'x'}, most+1)
	if err := p.A.Publish("b.REQ.EventACK", "", large); !errors.Is(err, process.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	publish(t, p.A, "b.REQ.EventACK", "", large[:most])
	if d := next(t, got); len(d.Data) != most {
		t.Errorf("got %d bytes, want %d", len(d.Data), most)
	}
}

func refusesBadSubjects(t *testing.T, p Pair) {
	for _, bad := range []string{"", " ", "a b", "a\tb", "a\r\nPUB b 0\r\n\r\n", "a\x00", "a..b", ".a", "a.", ">", "a.>", "a.*.b", strings.Repeat("a", 5000)} {
		if err := p.A.Publish(bad, "", nil); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("publish to %q: got %v, want ErrInvalid", bad, err)
		}
		if bad != "" {
			if err := p.A.Publish("b.REQ.EventACK", bad, nil); !errors.Is(err, message.ErrInvalid) {
				t.Errorf("reply to %q: got %v, want ErrInvalid", bad, err)
			}
		}
		if _, err := p.A.Subscribe(bad, func(process.Delivery) {}); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("subscribe to %q: got %v, want ErrInvalid", bad, err)
		}
	}
	if err := p.A.Publish("here.*", "", nil); !errors.Is(err, message.ErrInvalid) {
		t.Errorf("publish to a wildcard: got %v, want ErrInvalid", err)
	}
	if up, _ := p.A.State(); !up {
		t.Error("the link is gone")
	}
}

func closedSubscriptionIsSilent(t *testing.T, p Pair) {
	called := make(chan process.Delivery, 10)
	sub, err := p.B.Subscribe("b.REQ.EventACK", func(d process.Delivery) { called <- d })
	if err != nil {
		t.Fatal(err)
	}
	after := collect(t, p.B, "b.REQ.EventACK")
	publish(t, p.A, "b.REQ.EventACK", "", []byte("1"))
	next(t, called)
	next(t, after)
	sub.Close()
	sub.Close()
	flush(t, p.B)
	publish(t, p.A, "b.REQ.EventACK", "", []byte("2"))
	next(t, after)
	down(t, p)
	up(t, p)
	publish(t, p.A, "b.REQ.EventACK", "", []byte("3"))
	next(t, after)
	select {
	case d := <-called:
		t.Errorf("got %q after Close", d.Data)
	default:
	}
}

func blockedHandler(t *testing.T, p Pair) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	var calls int // at once; the race detector sees to it that there is one
	sub, err := p.B.Subscribe("b.slow.EventACK", func(process.Delivery) {
		calls++
		if calls != 1 {
			t.Errorf("%d calls at once", calls)
		}
		entered <- struct{}{}
		<-release
		calls--
	})
	if err != nil {
		t.Fatal(err)
	}
	quick := collect(t, p.B, "b.quick.EventACK")
	publish(t, p.A, "b.slow.EventACK", "", nil)
	publish(t, p.A, "b.slow.EventACK", "", nil)
	receive(t, entered)
	for i := range 10 {
		publish(t, p.A, "b.quick.EventACK", "", fmt.Appendf(nil, "%d", i))
		if d := next(t, quick); string(d.Data) != fmt.Sprint(i) {
			t.Errorf("got %q", d.Data)
		}
	}
	// Neither does it hold up the link, and a call under way stays the only one.
	down(t, p)
	up(t, p)
	publish(t, p.A, "b.slow.EventACK", "", nil)
	for range 50 { // time enough for a wrong call to begin
		publish(t, p.A, "b.quick.EventACK", "", nil)
		next(t, quick)
	}
	select {
	case <-entered:
		t.Error("a second call while the first one runs")
	default:
	}
	close(release)
	receive(t, entered)
	sub.Close()
}

func handlerMayUseTransport(t *testing.T, p Pair) {
	got := collect(t, p.A, "ack.a.*")
	var sub process.Subscription
	ready := make(chan struct{})
	sub, err := p.B.Subscribe("b.REQ.EventACK", func(d process.Delivery) {
		<-ready
		s, err := p.B.Subscribe("b.more.EventACK", func(d process.Delivery) {
			if err := p.B.Publish(d.Reply, "", []byte("second")); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
			return
		}
		_ = s
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := p.B.Flush(ctx); err != nil {
			t.Error(err)
		}
		sub.Close()
		if err := p.B.Publish(d.Reply, "", []byte("first")); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	flush(t, p.B)
	publish(t, p.A, "b.REQ.EventACK", "ack.a.1", nil)
	if d := next(t, got); string(d.Data) != "first" || d.Subject != "ack.a.1" {
		t.Errorf("got %+v", d)
	}
	publish(t, p.A, "b.more.EventACK", "ack.a.2", nil)
	if d := next(t, got); string(d.Data) != "second" || d.Subject != "ack.a.2" {
		t.Errorf("got %+v", d)
	}
}

func handlerOwnsItsData(t *testing.T, p Pair) {
	var all []<-chan process.Delivery
	for range 2 {
		out := make(chan process.Delivery, 10)
		if _, err := p.B.Subscribe("b.REQ.EventACK", func(d process.Delivery) {
			out <- process.Delivery{Data: bytes.Clone(d.Data)}
			clear(d.Data)
			out <- d
		}); err != nil {
			t.Fatal(err)
		}
		all = append(all, out)
	}
	flush(t, p.B)
	data := []byte("first")
	publish(t, p.A, "b.REQ.EventACK", "", data)
	copy(data, "XXXXX")
	publish(t, p.A, "b.REQ.EventACK", "", []byte("second"))
	for _, got := range all {
		first, kept := next(t, got), process.Delivery{}
		if kept = next(t, got); string(first.Data) != "first" {
			t.Errorf("got %q", first.Data)
		}
		if d := next(t, got); string(d.Data) != "second" {
			t.Errorf("got %q", d.Data)
		}
		if !bytes.Equal(kept.Data, make([]byte, len("first"))) {
			t.Errorf("data of the first frame became %q", kept.Data)
		}
	}
}

func stateTellsOfChanges(t *testing.T, p Pair) {
	up1, changed := p.A.State()
	if !up1 {
		t.Fatal("no link")
	}
	select {
	case <-changed:
		t.Fatal("closed without a change")
	default:
	}
	p.Down()
	receive(t, changed)
	up2, changed := p.A.State()
	if up2 {
		t.Error("up after the link went down")
	}
	p.Up()
	receive(t, changed)
	if up3, _ := p.A.State(); !up3 {
		t.Error("down after the link came up")
	}
}

func flushObeysItsContext(t *testing.T, p Pair) {
	flush(t, p.A)
	if err := p.A.Flush(context.Background()); err != nil {
		t.Errorf("flush without a deadline: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.A.Flush(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	down(t, p)
	if err := p.A.Flush(context.Background()); !errors.Is(err, process.ErrOffline) {
		t.Errorf("got %v, want ErrOffline", err)
	}
}

func manyGoroutines(t *testing.T, p Pair) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			subject := fmt.Sprintf("b.REQ%d.EventACK", g)
			out := make(chan process.Delivery, 100)
			sub, err := p.B.Subscribe(subject, func(d process.Delivery) { out <- d })
			if err != nil {
				t.Error(err)
				return
			}
			defer sub.Close()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := p.B.Flush(ctx); err != nil {
				t.Error(err)
			}
			for i := range 50 {
				p.A.State()
				if err := p.A.Publish(subject, "", fmt.Appendf(nil, "%d", i)); err != nil {
					t.Error(err)
				}
			}
			for i := range 50 {
				select {
				case d := <-out:
					if string(d.Data) != fmt.Sprint(i) {
						t.Errorf("%s: got %q, want %d", subject, d.Data, i)
					}
				case <-ctx.Done():
					t.Errorf("%s: frame %d is missing", subject, i)
					return
				}
			}
		})
	}
	wg.Wait()
}

func closeTwice(t *testing.T, p Pair) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	got := subscribe(t, p.B, "b.REQ.EventACK")
	_, changed := p.A.State()
	for range 2 {
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	receive(t, changed)
	if up, _ := p.A.State(); up {
		t.Error("up after Close")
	}
	if err := p.A.Publish("b.REQ.EventACK", "", nil); !errors.Is(err, process.ErrOffline) {
		t.Errorf("publish after Close: got %v, want ErrOffline", err)
	}
	if err := p.A.Flush(ctx); !errors.Is(err, process.ErrOffline) {
		t.Errorf("flush after Close: got %v, want ErrOffline", err)
	}
	if _, err := p.A.Subscribe("b.REQ.EventACK", func(process.Delivery) {}); err == nil {
		t.Error("subscribed after Close")
	}
	if len(got) > 0 {
		t.Error("got a frame that nobody sent")
	}
}

func closeBounded(t *testing.T, p Pair) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	if _, err := p.B.Subscribe("b.REQ.EventACK", func(process.Delivery) {
		entered <- struct{}{}
		<-release
	}); err != nil {
		t.Fatal(err)
	}
	flush(t, p.B)
	publish(t, p.A, "b.REQ.EventACK", "", nil)
	receive(t, entered)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	close(release)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Errorf("after the handler has ended: %v", err)
	}
}
