package nameguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"steward/errorkernel"
	"steward/internal/natstest"
	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/transport/memtransport"
	"steward/process/transport/natstransport"
	"steward/process/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func guarded(t *testing.T, inner process.Transport, self message.Node, host string, report errorkernel.Reporter, claims ...Claims) *Transport {
	t.Helper()
	opts := Options{Inner: inner, Self: self, Host: host, PID: 4711, Report: report, Log: slog.New(slog.DiscardHandler)}
	if l, ok := inner.(*natstransport.Transport); ok {
		opts.Opened = l.Opened
	}
	if len(claims) > 0 {
		opts.Claims = claims[0]
	}
	tr, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// reports collects what is reported.
type reports struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (r *reports) Report(ev errorkernel.Event) errorkernel.Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ev.Class != errorkernel.NameTaken {
		ev.Err = fmt.Errorf("class %v: %w", ev.Class, ev.Err)
	}
	r.list = append(r.list, ev.Err.Error())
	return errorkernel.Continue
}

// all returns what was reported so far.
func (r *reports) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.list...)
}

// The contract of a transport, over a network in memory and over a real broker.

func TestTransportInMemory(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Pair {
		n := memtransport.New(memtransport.Options{})
		a, b := n.Node("a"), n.Node("b")
		set := func(up bool) func() { return func() { a.SetLink(up); b.SetLink(up) } }
		return pair(t, a, b, set(false), set(true), n.Close)
	})
}

func TestTransportOverNATS(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Pair {
		b := natstest.Start(t)
		var links []*natstransport.Transport
		for range 2 {
			l, err := natstransport.Open(natstransport.Options{Servers: []string{b.URL()}, ReconnectWait: 10 * time.Millisecond, ReconnectJitter: 10 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			links = append(links, l)
		}
		return pair(t, links[0], links[1], b.Stop, b.Restart, func(ctx context.Context) error {
			return errors.Join(links[0].Close(ctx), links[1].Close(ctx))
		})
	})
}

func pair(t *testing.T, a, b process.Transport, down, up func(), end func(context.Context) error) transporttest.Pair {
	ga, gb := guarded(t, a, "a", "h1", new(reports)), guarded(t, b, "b", "h2", new(reports))
	closeAll := func(ctx context.Context) error { return errors.Join(ga.Close(ctx), gb.Close(ctx), end(ctx)) }
	t.Cleanup(func() {
		if err := closeAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return transporttest.Pair{A: ga, B: gb, Down: down, Up: up, Close: closeAll}
}

// sea is a network in fake time with nodes named ship1, and one that sends to them.
type sea struct {
	t       *testing.T
	net     *memtransport.Network
	central *memtransport.Node
	fate    func(from, to string, d process.Delivery) memtransport.Fate // set before use
	ships   map[string]*ship
	probes  int
}

// ship is one node named ship1.
type ship struct {
	*Transport
	link    *memtransport.Node
	reports *reports
	mu      sync.Mutex
	got     []string // guarded by mu: what arrived for the subscription that each has
}

const subject = "ship1.REQCliCommand.CommandACK"

// atSea runs test in fake time.
func atSea(t *testing.T, test func(t *testing.T, s *sea)) {
	synctest.Test(t, func(t *testing.T) {
		s := &sea{t: t, ships: map[string]*ship{}}
		s.net = memtransport.New(memtransport.Options{Fault: func(from, to string, d process.Delivery) memtransport.Fate {
			if s.fate == nil {
				return memtransport.Fate{}
			}
			return s.fate(from, to, d)
		}})
		s.central = s.net.Node("central")
		t.Cleanup(func() {
			for _, ship := range s.ships {
				if err := ship.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
			if err := s.net.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		test(t, s)
	})
}

// sail starts a node named ship1 on a host, with something to prove its claims.
func (s *sea) sail(host string, claims ...Claims) *ship {
	s.t.Helper()
	ship := &ship{link: s.net.Node(host), reports: new(reports)}
	ship.Transport = guarded(s.t, ship.link, "ship1", host, ship.reports, claims...)
	if _, err := ship.Subscribe(subject, func(d process.Delivery) {
		ship.mu.Lock()
		defer ship.mu.Unlock()
		ship.got = append(ship.got, string(d.Data))
	}); err != nil {
		s.t.Fatal(err)
	}
	s.ships[host] = ship
	return ship
}

// sink ends a node as a crash does.
func (s *sea) sink(ship *ship) {
	ship.link.Close()
	if err := ship.Close(context.Background()); err != nil {
		s.t.Error(err)
	}
}

// only checks that of all ships that one alone is on the air, or none.
func (s *sea) only(want *ship) {
	s.t.Helper()
	synctest.Wait()
	s.probes++
	probe := fmt.Sprintf("probe %d", s.probes)
	if err := s.central.Publish(subject, "", []byte(probe)); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
	for host, ship := range s.ships {
		up, _ := ship.State()
		err := ship.Publish("central.REQPing.EventACK", "", nil)
		flush := ship.Flush(context.Background())
		ship.mu.Lock()
		heard := len(ship.got) > 0 && ship.got[len(ship.got)-1] == probe
		ship.mu.Unlock()
		if ship == want && (!up || err != nil || flush != nil || !heard) {
			s.t.Errorf("%s is not on the air: up %v, publish %v, flush %v, heard %v", host, up, err, flush, heard)
		}
		if ship != want && (up || !errors.Is(err, process.ErrOffline) || !errors.Is(flush, process.ErrOffline) || heard) {
			s.t.Errorf("%s is on the air: up %v, publish %v, flush %v, heard %v", host, up, err, flush, heard)
		}
	}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// says compares what a ship reported, each with texts that it must hold.
func (s *sea) says(ship *ship, want ...string) {
	s.t.Helper()
	all := ship.reports.all()
	if len(all) != len(want) {
		s.t.Fatalf("%d reports, want %d:\n%s", len(all), len(want), strings.Join(all, "\n"))
	}
	for i, w := range want {
		if !strings.Contains(all[i], w) {
			s.t.Errorf("report %d: %q does not hold %q", i, all[i], w)
		}
	}
}

const (
	stays  = "that one stands aside; give one of them another -nodeName"
	yields = "this one stands aside, takes and sends nothing, until that one has ended; give one of them another -nodeName"
)

func TestFreeNameIsTakenAtOnce(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		began := time.Now()
		ship := s.sail("bridge")
		s.only(ship)
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v in a network without delay", took)
		}
		questions := 0
		if _, err := s.central.Subscribe("ship1.NAME", func(process.Delivery) { questions++ }); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		if questions < 45 || questions > 60 {
			t.Errorf("%d questions in an hour without a conflict", questions)
		}
		s.only(ship)
		s.says(ship)
		if ship.Conflict() {
			t.Error("a conflict of a node with itself")
		}
	})
}

func TestNothingIsInForceBeforeTheNameIs(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		s.fate = func(_, to string, d process.Delivery) memtransport.Fate {
			if d.NoResponders {
				return memtransport.Fate{Delay: 600 * time.Millisecond}
			}
			return memtransport.Fate{}
		}
		ship := s.sail("bridge")
		pass(599 * time.Millisecond)
		s.only(nil)
		pass(time.Millisecond)
		s.only(ship)
	})
}

func TestNewcomerStandsAsideAndTakesOverWhenTheOtherHasEnded(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		first := s.sail("bridge")
		s.only(first)
		second := s.sail("clone")
		s.only(first)
		const both = "two nodes are named ship1: this one on host bridge, process id 4711, and one on host clone, process id 4711; "
		s.says(first, both+stays)
		s.says(second, "this one on host clone, process id 4711, and one on host bridge, process id 4711; "+yields)
		if !first.Conflict() || !second.Conflict() {
			t.Errorf("conflicts: %v, %v", first.Conflict(), second.Conflict())
		}
		pass(50 * time.Minute) // nothing is said again so soon
		s.only(first)
		s.says(first, stays)
		s.says(second, yields)
		pass(15 * time.Minute) // but it is not forgotten
		s.says(first, stays, stays)
		s.says(second, yields, yields)

		_, changed := second.State()
		s.sink(first)
		began := time.Now()
		<-changed
		if took := time.Since(began); took > longestWait*3/2 {
			t.Errorf("it took %v to take over", took)
		}
		s.only(second)
		pass(2 * memory)
		s.says(second, yields, yields)
		if second.Conflict() {
			t.Error("the conflict is not over")
		}
	})
}

func TestTheFirstReportDoesNotWait(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		first := s.sail("bridge")
		pass(time.Hour)
		began := time.Now()
		s.sail("clone")
		synctest.Wait()
		s.says(first, stays)
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestOneOfTwoThatStartAtOnceStaysOnTheAir(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond, time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			atSea(t, func(t *testing.T, s *sea) {
				s.fate = func(_, _ string, d process.Delivery) memtransport.Fate { return memtransport.Fate{Delay: delay} }
				a, b := s.sail("bridge"), s.sail("clone")
				pass(5 * delay) // no listener; a question, and one in return, and its answer
				upA, _ := a.State()
				if upB, _ := b.State(); upA && upB {
					t.Error("both are on the air")
				}
				pass(20 * time.Second)
				s.fate = nil
				for range 3 { // the same one, for good
					one := a
					if up, _ := b.State(); up {
						one = b
					}
					s.only(one)
					pass(time.Hour)
					s.only(one)
				}
				for _, ship := range s.ships {
					if len(ship.reports.all()) == 0 {
						t.Error("a conflict that was not reported")
					}
				}
			})
		})
	}
}

// Two that come together when each has the name: the networks of their brokers were joined.
func TestOfTwoThatMeetTheOneThatHasHadTheNameForLongerKeepsIt(t *testing.T) {
	for _, apart := range []time.Duration{time.Second, 9 * time.Second, 11 * time.Second, time.Hour} {
		t.Run(apart.String(), func(t *testing.T) {
			atSea(t, func(t *testing.T, s *sea) {
				s.fate = func(from, to string, d process.Delivery) memtransport.Fate {
					return memtransport.Fate{Delay: 100 * time.Millisecond}
				}
				first := s.sail("bridge")
				pass(apart)
				first.link.SetLink(false)
				second := s.sail("clone")
				pass(time.Second)
				s.says(second)
				first.link.SetLink(true)
				pass(5 * time.Second)
				s.fate = nil
				want := first
				if apart < 10*time.Second && second.token > first.token {
					want = second
				}
				for _, ship := range s.ships {
					all := ship.reports.all()
					text := stays
					if ship != want {
						text = yields
					}
					if len(all) == 0 || !strings.Contains(all[len(all)-1], text) {
						t.Errorf("reported: %q", all)
					}
				}
				s.only(want)
			})
		})
	}
}

// When the difference is so near the margin that the two see it on different sides of it, both
// may give way for a moment, but not both stay.
func TestNotBothStayWhateverTheWayTakes(t *testing.T) {
	for range 20 { // which of the two has the larger token is by chance
		for _, apart := range []time.Duration{9900, 10_000, 10_050, 10_100} {
			atSea(t, func(t *testing.T, s *sea) {
				s.fate = func(_, _ string, _ process.Delivery) memtransport.Fate {
					return memtransport.Fate{Delay: 100 * time.Millisecond}
				}
				first := s.sail("bridge")
				pass(apart * time.Millisecond)
				first.link.SetLink(false)
				second := s.sail("clone")
				pass(time.Second)
				first.link.SetLink(true)
				pass(20 * time.Second)
				s.fate = nil
				if up, _ := second.State(); up {
					first = second
				}
				s.only(first)
			})
		}
	}
}

func TestReconnectKeepsTheNameAndHoldsNothingUp(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		ship := s.sail("bridge")
		s.only(ship)
		s.fate = func(_, _ string, d process.Delivery) memtransport.Fate { // nobody says anything about names
			return memtransport.Fate{Drop: strings.Contains(d.Subject, ".NAME")}
		}
		for range 3 {
			_, changed := ship.State()
			ship.link.SetLink(false)
			<-changed
			s.only(nil)
			_, changed = ship.State()
			began := time.Now()
			ship.link.SetLink(true)
			<-changed
			if took := time.Since(began); took != 0 {
				t.Errorf("up after %v", took)
			}
			s.only(ship)
			pass(time.Minute)
		}
		s.says(ship)
	})
}

func TestNodeThatStoodAsideLetsTheOtherGoFirstWhenTheBrokerIsBack(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		first := s.sail("bridge")
		s.only(first)
		second := s.sail("clone")
		s.only(first)
		for range 5 {
			first.link.SetLink(false)
			second.link.SetLink(false)
			pass(time.Minute)
			second.link.SetLink(true)
			for range 50 {
				pass(100 * time.Millisecond)
				s.only(nil)
			}
			first.link.SetLink(true)
			s.only(first)
			pass(time.Minute)
			s.only(first)
		}
		second.link.SetLink(false)
		s.sink(first)
		second.link.SetLink(true)
		pass(courtesy)
		s.only(second)
	})
}

func TestLinkThatIsBackBeforeAnybodyLookedIsAChange(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		ship := s.sail("bridge")
		s.only(ship)
		_, changed := ship.State()
		ship.link.SetLink(false)
		ship.link.SetLink(true)
		<-changed
		s.only(ship)
	})
}

// A connection of the node itself, from before a crash, that the broker has not given up yet.
func TestSilenceIsNoHolder(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		dead := s.net.Node("dead")
		if _, err := dead.Subscribe("ship1.NAME", func(process.Delivery) {}); err != nil {
			t.Fatal(err)
		}
		ship := s.sail("bridge")
		pass(answerWait - time.Millisecond)
		s.only(nil)
		pass(time.Millisecond)
		s.only(ship)
		s.says(ship)
	})
}

func TestBrokerThatAllowsNoQuestionsCostsAMoment(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		s.fate = func(_, _ string, d process.Delivery) memtransport.Fate {
			return memtransport.Fate{Drop: strings.HasPrefix(d.Subject, "ship1.NAME")}
		}
		ship := s.sail("bridge")
		pass(answerWait)
		s.only(ship)
		pass(time.Hour)
		s.only(ship)
		s.says(ship)
	})
}

func TestAnswerThatComesLateCountsAllTheSame(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		first := s.sail("bridge")
		pass(time.Minute)
		s.fate = func(from, _ string, d process.Delivery) memtransport.Fate {
			if from == "bridge" && strings.HasPrefix(d.Subject, "ship1.NAME.") {
				return memtransport.Fate{Delay: answerWait + time.Second}
			}
			return memtransport.Fate{}
		}
		second := s.sail("clone")
		pass(answerWait + time.Second)
		s.only(first)
		// From now on it is more patient.
		for range 100 {
			pass(time.Second)
			if up, _ := second.State(); up {
				t.Fatal("on the air while the other one is")
			}
		}
		s.only(first)
	})
}

func TestGarbageAboutTheNameIsNoConflict(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		ship := s.sail("bridge")
		s.only(ship)
		for _, b := range [][]byte{nil, []byte("ship1"), {'S', 1, 0}, {'S', 9, 0, 1}, make([]byte, 1<<20)} {
			for _, to := range []string{"ship1.NAME", "ship1.NAME.x", "ship1.NAME.CommandACK"} {
				if err := s.central.Publish(to, "central.ACK.1", b); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.only(ship)
		// The error kernel makes few lines of so many.
		s.says(ship, slices.Repeat([]string{"class refused: a claim to the name of this node, ship1, is not understood: "}, 15)...)
		if ship.Conflict() {
			t.Error("a conflict")
		}
	})
}

func claim(t *testing.T, held int64) []byte {
	t.Helper()
	b, err := wire.EncodeClaim(&wire.Claim{Token: "zzzz", Held: held, Host: "pirate", PID: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Who may publish to a node, but not listen for it, cannot silence it.
func TestForgedClaimsSilenceNobody(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		answers := 0
		if _, err := s.central.Subscribe("central.ACK.*", func(process.Delivery) { answers++ }); err != nil {
			t.Fatal(err)
		}
		questions := 0
		spy, err := s.central.Subscribe("ship1.NAME", func(process.Delivery) { questions++ })
		if err != nil {
			t.Fatal(err)
		}
		ship := s.sail("bridge")
		pass(answerWait) // the spy is silent
		questions = 0
		for range 100 {
			for to, reply := range map[string]string{"ship1.NAME": "central.ACK.1", "ship1.NAME.x": "", "ship1.NAME.guess": ""} {
				if err := s.central.Publish(to, reply, claim(t, 1<<50)); err != nil {
					t.Fatal(err)
				}
			}
			pass(50 * time.Millisecond)
		}
		s.only(ship)
		if answers > 0 {
			t.Errorf("%d answers to a subject of another node", answers)
		}
		if questions > 100+10 { // those of the pirate himself, and two in a second
			t.Errorf("%d questions in five seconds", questions)
		}
		spy.Close()
		for range 100 { // it shows up, and is not told about more than once
			if err := s.central.Publish("ship1.NAME", "ship1.NAME.y", claim(t, 0)); err != nil {
				t.Fatal(err)
			}
			pass(50 * time.Millisecond)
		}
		s.only(ship)
		s.says(ship, "host pirate, process id 1; "+stays)
	})
}

func TestNewTokensAllTheTimeAreNotReportedAllTheTime(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		ship := s.sail("bridge")
		s.only(ship)
		for range 60 { // a second node that crashes and is started again every second
			second := s.sail("clone")
			synctest.Wait()
			s.sink(second)
			pass(time.Second)
		}
		if n := len(ship.reports.all()); n > 2 {
			t.Errorf("%d reports in a minute", n)
		}
		s.only(ship)
	})
}

func TestSubscriptionsComeAndGoWhileTheNodeStandsAside(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		first, second := s.sail("bridge"), (*ship)(nil)
		s.only(first)
		second = s.sail("clone")
		s.only(first)
		var got []string
		record := func(d process.Delivery) { got = append(got, d.Subject) }
		gone, err := second.Subscribe("ship1.gone.EventACK", record)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Subscribe("ship1.here.EventACK", record); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Subscribe("a b", record); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("a subject with a blank: %v", err)
		}
		gone.Close()
		s.sink(first)
		delete(s.ships, "bridge")
		pass(time.Minute)
		for _, to := range []string{"ship1.gone.EventACK", "ship1.here.EventACK"} {
			if err := s.central.Publish(to, "", nil); err != nil {
				t.Fatal(err)
			}
		}
		s.only(second)
		if len(got) != 1 || got[0] != "ship1.here.EventACK" {
			t.Errorf("got %q", got)
		}
	})
}

// A call that began before the node stood aside is the only one until it has ended.
func TestHandlerIsCalledOneAtATimeOverATimeAside(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		first := s.sail("bridge")
		pass(time.Hour)
		first.link.SetLink(false)
		second := s.sail("clone")
		synctest.Wait()
		release := make(chan struct{})
		calls, most, total := 0, 0, 0
		if _, err := second.Subscribe("ship1.slow.EventACK", func(process.Delivery) {
			calls++
			most = max(most, calls)
			<-release
			calls--
			total++
		}); err != nil {
			t.Fatal(err)
		}
		slow := func() {
			t.Helper()
			if err := s.central.Publish("ship1.slow.EventACK", "", nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		slow()
		first.link.SetLink(true)
		s.only(first)
		slow()
		s.sink(first)
		delete(s.ships, "bridge")
		pass(time.Minute)
		s.only(second)
		slow()
		close(release)
		synctest.Wait()
		if most != 1 || total != 2 {
			t.Errorf("%d calls, %d at once; want 2 and 1", total, most)
		}
	})
}

// flushed calls a hook in the middle of each flush.
type flushed struct {
	process.Transport
	hook func(n int) // the n-th flush is under way
	n    int
}

func (f *flushed) Flush(ctx context.Context) error {
	f.n++
	f.hook(f.n)
	return f.Transport.Flush(ctx)
}

func TestSubscriptionMadeWhileTheNameIsTakenIsInForceBeforeTheLinkIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memtransport.New(memtransport.Options{})
		defer n.Close(context.Background())
		inner := &flushed{Transport: n.Node("bridge")}
		var tr *Transport
		inner.hook = func(n int) {
			if up, _ := tr.State(); up {
				t.Errorf("up during flush %d", n)
			}
			if n < 3 {
				if _, err := tr.Subscribe(subject, func(process.Delivery) {}); err != nil {
					t.Error(err)
				}
			}
		}
		n.Node("bridge").SetLink(false)
		tr = guarded(t, inner, "ship1", "bridge", new(reports))
		defer tr.Close(context.Background())
		n.Node("bridge").SetLink(true)
		synctest.Wait()
		if up, _ := tr.State(); !up || inner.n != 3 {
			t.Errorf("up %v after %d flushes, want 3", up, inner.n)
		}
	})
}

// What is said first at each connect does not wait for the broker's word about the subscriptions, and
// is answered to subscriptions that are in force; it is said once, and by who has the name.
func TestGreetingIsSaidRightBehindTheSubscriptions(t *testing.T) {
	atSea(t, func(t *testing.T, s *sea) {
		var heard, answered atomic.Int64
		if _, err := s.central.Subscribe("ship1.HERE", func(process.Delivery) {
			heard.Add(1)
			if err := s.central.Publish(subject, "", nil); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		other := s.sail("clone")
		pass(time.Hour)
		link := s.net.Node("bridge")
		link.SetLink(false)
		word := make(chan struct{})
		tr := guarded(t, &flushed{Transport: link, hook: func(int) { <-word }}, "ship1", "bridge", new(reports))
		defer func() {
			if err := tr.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		if _, err := tr.Subscribe(subject, func(process.Delivery) {
			answered.Add(1)
			if err := tr.Publish("central.ACK.1", "", nil); err != nil {
				t.Errorf("the answer has no answer: %v", err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		want := func(what string, up bool, n int64) {
			t.Helper()
			synctest.Wait()
			heard, answered := heard.Swap(0), answered.Swap(0)
			if is, _ := tr.State(); is != up || heard != n || answered != n {
				t.Fatalf("%s: up %v, heard %d, answered %d; want %v, %d", what, is, heard, answered, up, n)
			}
		}
		tr.Greet("ship1.HERE", nil)
		link.SetLink(true)
		pass(time.Hour)
		want("the name is another's", false, 0)
		s.sink(other)
		delete(s.ships, "clone")
		for range 60 { // it does not wait for ever for a broker's word
			if pass(time.Second); heard.Load() > 0 {
				break
			}
		}
		want("the name is free", false, 1)
		word <- struct{}{}
		want("the name is free", true, 0)
		for range 2 {
			link.SetLink(false)
			want("no link", false, 0)
			link.SetLink(true)
			want("a new link", false, 1)
			word <- struct{}{}
			want("a new link", true, 0)
		}
		tr.Greet("ship1.HERE", nil)
		want("on the air", true, 1)
	})
}

func TestBrokerThatTakesNoSubscriptionsIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memtransport.New(memtransport.Options{})
		defer n.Close(context.Background())
		fails := 3
		inner := &broken{Transport: n.Node("bridge"), fails: &fails}
		tr := guarded(t, inner, "ship1", "bridge", new(reports))
		defer tr.Close(context.Background())
		_, changed := tr.State()
		<-changed
		if up, _ := tr.State(); !up || fails != 0 {
			t.Errorf("up %v, %d failures to come", up, fails)
		}
	})
}

// broken fails to flush as long as there are fails.
type broken struct {
	process.Transport
	fails *int
}

func (b *broken) Flush(ctx context.Context) error {
	if *b.fails > 0 {
		*b.fails--
		return errors.New("no")
	}
	return b.Transport.Flush(ctx)
}

// Over a real broker, whose permissions are about the node's own name alone.
func TestPermissionForTheOwnNameSuffices(t *testing.T) {
	b := natstest.StartConfig(t, `authorization { users: [ { user: ship1, password: x,
		permissions: { publish: ["ship1.>"], subscribe: ["ship1.>"] } } ] }`)
	type node struct {
		*Transport
		link    *natstransport.Transport
		reports chan errorkernel.Event
	}
	start := func(host string) node {
		n := node{reports: make(chan errorkernel.Event, 10)}
		report := reporter(func(ev errorkernel.Event) { n.reports <- ev })
		var err error
		n.link, err = natstransport.Open(natstransport.Options{Servers: []string{strings.Replace(b.URL(), "://", "://ship1:x@", 1)}, Report: report})
		if err != nil {
			t.Fatal(err)
		}
		n.Transport = guarded(t, n.link, "ship1", host, report)
		return n
	}
	end := func(n node) {
		if err := errors.Join(n.Close(context.Background()), n.link.Close(context.Background())); err != nil {
			t.Error(err)
		}
	}
	up := func(n node) {
		t.Helper()
		for up, changed := n.State(); !up; up, changed = n.State() {
			receive(t, changed)
		}
	}
	first := start("bridge")
	up(first)
	second := start("clone")
	for n, want := range map[*node]string{&first: stays, &second: yields} {
		if ev := receive(t, n.reports); ev.Class != errorkernel.NameTaken || !strings.Contains(ev.Err.Error(), want) {
			t.Errorf("%v: %v", ev.Class, ev.Err)
		}
	}
	end(first)
	up(second)
	end(second)
	for _, n := range []node{first, second} {
		if len(n.reports) > 0 {
			t.Errorf("reported besides: %v", (<-n.reports).Err)
		}
	}
}

type reporter func(errorkernel.Event)

func (r reporter) Report(ev errorkernel.Event) errorkernel.Action {
	r(ev)
	return errorkernel.Continue
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came in a minute")
		panic("unreachable")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	n := memtransport.New(memtransport.Options{})
	log, report := slog.New(slog.DiscardHandler), new(reports)
	for _, o := range []Options{
		{}, {Self: "a", Report: report, Log: log}, {Inner: n.Node("a"), Self: "a", Log: log}, {Inner: n.Node("a"), Self: "a", Report: report},
		{Inner: n.Node("a"), Report: report, Log: log}, {Inner: n.Node("a"), Self: "a b", Report: report, Log: log},
	} {
		if tr, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
			_ = tr.Close(t.Context())
		}
	}
}
