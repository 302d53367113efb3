package memtransport

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"steward/process"
	"steward/process/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Pair {
		n := network(t, Options{})
		a, b := n.Node("a"), n.Node("b")
		set := func(up bool) func() { return func() { a.SetLink(up); b.SetLink(up) } }
		return transporttest.Pair{A: a, B: b, Down: set(false), Up: set(true), Close: n.Close}
	})
}

func network(t *testing.T, o Options) *Network {
	n := New(o)
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// bubble runs test in fake time, with a network that has nodes a and b.
func bubble(t *testing.T, o Options, test func(t *testing.T, n *Network, a, b *Node)) {
	synctest.Test(t, func(t *testing.T) {
		n := network(t, o)
		test(t, n, n.Node("a"), n.Node("b"))
	})
}

// record returns what arrived so far.
func record(t *testing.T, n *Node, pattern string) func() []string {
	t.Helper()
	var mu sync.Mutex
	var got []string
	if _, err := n.Subscribe(pattern, func(d process.Delivery) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(d.Data))
	}); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

func send(t *testing.T, n *Node, subject, data string) {
	t.Helper()
	if err := n.Publish(subject, "", []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFaultDecidesEachFate(t *testing.T) {
	fates := map[string]Fate{
		"dropped": {Drop: true, Copies: 3},
		"doubled": {Copies: 1},
		"late":    {Delay: time.Second},
		"twice":   {Delay: 2 * time.Second, Copies: 1},
	}
	fault := func(from, to string, d process.Delivery) Fate {
		if from != "a" || to != "b" || d.Subject != "b.x" {
			t.Errorf("asked about %s to %s on %s", from, to, d.Subject)
		}
		return fates[string(d.Data)]
	}
	bubble(t, Options{Fault: fault}, func(t *testing.T, n *Network, a, b *Node) {
		got := record(t, b, "b.x")
		for _, data := range []string{"twice", "late", "dropped", "doubled", "plain"} {
			send(t, a, "b.x", data)
		}
		expect(t, got(), "doubled", "doubled", "plain")
		<-time.After(time.Second)
		expect(t, got(), "doubled", "doubled", "plain", "late")
		<-time.After(time.Second)
		expect(t, got(), "doubled", "doubled", "plain", "late", "twice", "twice")
	})
}

func TestNoticesHaveAFateToo(t *testing.T) {
	fault := func(from, to string, d process.Delivery) Fate {
		if from != "" || to != "a" || !d.NoResponders {
			t.Errorf("asked about %q to %q: %+v", from, to, d)
		}
		return Fate{Drop: d.Subject == "ack.a.1"}
	}
	bubble(t, Options{Fault: fault}, func(t *testing.T, n *Network, a, b *Node) {
		var got []string
		if _, err := a.Subscribe("ack.a.*", func(d process.Delivery) { got = append(got, d.Subject) }); err != nil {
			t.Fatal(err)
		}
		for _, reply := range []string{"ack.a.1", "ack.a.2"} {
			if err := a.Publish("b.x", reply, nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		expect(t, got, "ack.a.2")
	})
}

func TestCutLosesFramesBetweenTwoNodesOnly(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network, a, b *Node) {
		c := n.Node("c")
		atB, atC := record(t, b, "here.*"), record(t, c, "here.*")
		n.Cut("b", "a", true)
		send(t, a, "here.a", "1")
		expect(t, atB())
		expect(t, atC(), "1")
		if up, _ := a.State(); !up {
			t.Error("the link went down with the cut")
		}
		n.Cut("a", "b", false)
		send(t, a, "here.a", "2")
		expect(t, atB(), "2")
		expect(t, atC(), "1", "2")
	})
}

func TestNodeWithoutLinkIsNotThere(t *testing.T) {
	late := func(string, string, process.Delivery) Fate { return Fate{Delay: time.Second} }
	bubble(t, Options{Fault: late}, func(t *testing.T, n *Network, a, b *Node) {
		got := record(t, b, "b.x")
		var notices int
		if _, err := a.Subscribe("ack.a", func(d process.Delivery) { notices++ }); err != nil {
			t.Fatal(err)
		}
		send(t, a, "b.x", "on its way when the link goes")
		b.SetLink(false)
		if err := b.Publish("a.x", "", nil); !errors.Is(err, process.ErrOffline) {
			t.Errorf("got %v, want ErrOffline", err)
		}
		if err := a.Publish("b.x", "ack.a", nil); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if notices != 1 {
			t.Errorf("got %d notices, want 1", notices)
		}
		b.SetLink(true)
		send(t, a, "b.x", "back")
		<-time.After(2 * time.Second)
		expect(t, got(), "back")
	})
}

func TestClosedNodeIsReplacedByANewOne(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network, a, b *Node) {
		before := record(t, b, "b.x")
		b.Close()
		b.Close()
		b.SetLink(true)
		if up, _ := b.State(); up {
			t.Error("a closed node has a link")
		}
		if _, err := b.Subscribe("b.x", func(process.Delivery) {}); err == nil {
			t.Error("subscribed at a closed node")
		}
		again := n.Node("b")
		if again == b {
			t.Fatal("got the closed node")
		}
		after := record(t, again, "b.x")
		send(t, a, "b.x", "1")
		expect(t, before())
		expect(t, after(), "1")
	})
}

func TestCloseDropsWhatIsOnItsWay(t *testing.T) {
	late := func(string, string, process.Delivery) Fate { return Fate{Delay: time.Hour} }
	bubble(t, Options{Fault: late}, func(t *testing.T, n *Network, a, b *Node) {
		got := record(t, b, "b.x")
		send(t, a, "b.x", "1")
		began := time.Now()
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("closing took %v", took)
		}
		<-time.After(2 * time.Hour)
		expect(t, got())
		if up, _ := n.Node("c").State(); up {
			t.Error("a closed network has nodes with a link")
		}
	})
}

func TestHandlersPassTheBallInFakeTime(t *testing.T) {
	lag := func(string, string, process.Delivery) Fate { return Fate{Delay: 300 * time.Millisecond} }
	bubble(t, Options{Fault: lag}, func(t *testing.T, n *Network, a, b *Node) {
		done := make(chan struct{})
		hits := 0
		pass := func(n *Node, to string) func(process.Delivery) {
			return func(process.Delivery) {
				if hits++; hits == 100 {
					close(done)
					return
				}
				if err := n.Publish(to, "", nil); err != nil {
					t.Error(err)
				}
			}
		}
		for _, s := range []struct {
			n        *Node
			own, far string
		}{{a, "a.x", "b.x"}, {b, "b.x", "a.x"}} {
			if _, err := s.n.Subscribe(s.own, pass(s.n, s.far)); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		send(t, a, "b.x", "")
		<-done
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("100 hops of 300 ms took %v", took)
		}
	})
}
