package loopback

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"steward/message"
	"steward/process"
	"steward/process/transport/internal/mailbox"
	"steward/process/transport/memtransport"
	"steward/process/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Pair {
		n := memtransport.New(memtransport.Options{})
		a, b := n.Node("a"), n.Node("b")
		la, lb := wrap(t, a, "a"), wrap(t, b, "b")
		closeAll := func(ctx context.Context) error {
			return errors.Join(la.Close(ctx), lb.Close(ctx), n.Close(ctx))
		}
		t.Cleanup(func() {
			if err := closeAll(context.Background()); err != nil {
				t.Error(err)
			}
		})
		set := func(up bool) func() { return func() { a.SetLink(up); b.SetLink(up) } }
		return transporttest.Pair{A: la, B: lb, Down: set(false), Up: set(true), Close: closeAll}
	})
}

func wrap(t *testing.T, inner process.Transport, self message.Node) *Transport {
	t.Helper()
	tr, err := New(Options{Inner: inner, Mine: func(subject string) bool {
		s, err := message.ParseSubject(subject)
		return err == nil && s.Node == self
	}})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// own runs test in fake time with node a, whose link is down, and a node b with a link.
func own(t *testing.T, test func(t *testing.T, tr *Transport, a, b *memtransport.Node)) {
	synctest.Test(t, func(t *testing.T) {
		n := memtransport.New(memtransport.Options{})
		a, b := n.Node("a"), n.Node("b")
		a.SetLink(false)
		tr := wrap(t, a, "a")
		test(t, tr, a, b)
		if err := errors.Join(tr.Close(t.Context()), n.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

func subscribe(t *testing.T, tr process.Transport, pattern string, handle func(process.Delivery)) process.Subscription {
	t.Helper()
	sub, err := tr.Subscribe(pattern, handle)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func publish(t *testing.T, tr process.Transport, subject, reply string, data []byte) {
	t.Helper()
	if err := tr.Publish(subject, reply, data); err != nil {
		t.Fatal(err)
	}
}

const subject = "a.REQ.EventACK"

func TestOwnFramesNeedNoLink(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		var got []process.Delivery
		subscribe(t, tr, subject, func(d process.Delivery) { got = append(got, d) })
		data := []byte("hello")
		publish(t, tr, subject, "ack.a", data)
		copy(data, "XXXXX")
		synctest.Wait()
		if len(got) != 1 {
			t.Fatalf("got %d frames, want 1", len(got))
		}
		if d := got[0]; !d.Local || d.NoResponders || d.Subject != subject || d.Reply != "ack.a" || string(d.Data) != "hello" {
			t.Errorf("got %+v", d)
		}
		if err := tr.Publish("b.REQ.EventACK", "", nil); !errors.Is(err, process.ErrOffline) {
			t.Errorf("frame for another node: got %v, want ErrOffline", err)
		}
	})
}

func TestOwnFramesAreDeliveredOnceWithALink(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		a.SetLink(true)
		local, remote := 0, 0
		subscribe(t, tr, subject, func(d process.Delivery) {
			if d.Local {
				local++
			} else {
				remote++
			}
		})
		out := subscribe(t, b, subject, func(process.Delivery) { t.Error("an own frame left the node") })
		publish(t, tr, subject, "", nil)
		synctest.Wait()
		if local != 1 || remote != 0 {
			t.Errorf("got %d local and %d remote frames, want 1 and 0", local, remote)
		}
		out.Close()
		publish(t, b, subject, "", nil)
		synctest.Wait()
		if local != 1 || remote != 1 {
			t.Errorf("got %d local and %d remote frames, want 1 and 1", local, remote)
		}
	})
}

func TestNodesWhoseNamesBeginAlikeAreApart(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		a.SetLink(true)
		var got []string
		subscribe(t, b, "a.central.REQ.EventACK", func(d process.Delivery) { got = append(got, d.Subject) })
		publish(t, tr, "a.central.REQ.EventACK", "", nil)
		synctest.Wait()
		if len(got) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

func TestOwnSubjectNobodyListensOn(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		var got []process.Delivery
		subscribe(t, tr, "ack.a.*", func(d process.Delivery) { got = append(got, d) })
		gone := subscribe(t, tr, subject, func(process.Delivery) { t.Error("called after Close") })
		gone.Close()
		gone.Close()
		publish(t, tr, subject, "ack.a.1", []byte("x"))
		publish(t, tr, subject, "", []byte("x"))
		synctest.Wait()
		if len(got) != 1 {
			t.Fatalf("got %d notices, want 1", len(got))
		}
		if d := got[0]; !d.NoResponders || d.Subject != "ack.a.1" || len(d.Data) != 0 {
			t.Errorf("got %+v", d)
		}
	})
}

func TestHandlerIsCalledOneAtATimeFromBothWays(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		a.SetLink(true)
		release := make(chan struct{})
		calls, total := 0, 0
		subscribe(t, tr, subject, func(process.Delivery) {
			if calls++; calls != 1 {
				t.Errorf("%d calls at once", calls)
			}
			<-release
			total++
			calls--
		})
		for range 5 {
			publish(t, tr, subject, "", nil)
			publish(t, b, subject, "", nil)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		if total != 10 {
			t.Errorf("got %d frames, want 10", total)
		}
	})
}

func TestSlowHandlerDoesNotHoldUpThePublisher(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		release := make(chan struct{})
		total := 0
		subscribe(t, tr, subject, func(process.Delivery) { <-release; total++ })
		publish(t, tr, subject, "", nil)
		synctest.Wait() // in the handler
		for range 2 * mailbox.MaxDeliveries {
			publish(t, tr, subject, "", nil)
		}
		close(release)
		synctest.Wait()
		if want := mailbox.MaxDeliveries + 1; total != want {
			t.Errorf("got %d frames, want the %d that the queue holds", total, want)
		}
	})
}

func TestOwnFramesObeyTheRulesOfTheLink(t *testing.T) {
	own(t, func(t *testing.T, tr *Transport, a, b *memtransport.Node) {
		large := bytes.Repeat([]byte{'x'}, tr.MaxPayload()+1)
		if err := tr.Publish(subject, "", large); !errors.Is(err, process.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
		if err := tr.Publish(subject, "a b", nil); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := tr.Publish(subject, "", nil); !errors.Is(err, process.ErrOffline) {
			t.Errorf("after Close: got %v, want ErrOffline", err)
		}
	})
}

func TestRuleForOwnSubjectsMayClaimAnything(t *testing.T) {
	n := memtransport.New(memtransport.Options{})
	tr, err := New(Options{Inner: n.Node("a"), Mine: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "a b", "a.*", ">", strings.Repeat("a", 2000)} {
		if err := tr.Publish(bad, "", nil); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", bad, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	n := memtransport.New(memtransport.Options{})
	for _, o := range []Options{{}, {Inner: n.Node("a")}, {Mine: func(string) bool { return false }}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
