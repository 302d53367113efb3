package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"steward/config"
	"steward/message"
	"steward/methods"
	"steward/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run serves a node in a folder of its own until the test ends.
func run(t testing.TB, args ...string) *Node {
	t.Helper()
	n, _ := start(t, args...)
	return n
}

// start is run with a stop before the end of the test, which may be called twice.
func start(t testing.TB, args ...string) (_ *Node, stop func()) {
	t.Helper()
	registry, err := methods.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	var known []config.Method
	for _, spec := range registry.All() {
		known = append(known, config.Method{Name: spec.Name, Default: []string{"*"}})
	}
	dir := t.TempDir()
	cfg, err := config.Load(append([]string{"-promHostAndPort=127.0.0.1:0", "-configFolder=" + dir + "/etc", "-socketFolder=" + dir,
		"-databaseFolder=" + dir + "/lib", "-subscribersDataFolder=" + dir + "/var"}, args...), nil, known)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Options{Config: cfg, Registry: registry, Log: slog.New(slog.DiscardHandler), Stdout: io.Discard, Stderr: io.Discard, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	<-n.Ready()
	return n, stop
}

func (n *Node) scrape(t *testing.T) string {
	t.Helper()
	addr := n.MetricsAddr()
	if addr == "" {
		return ""
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", res.Status, err, b)
	}
	return string(b)
}

// want scrapes until each expression matches a line.
func (n *Node) want(t *testing.T, lines ...string) string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		text := n.scrape(t)
		var missing []string
		for _, l := range lines {
			if !regexp.MustCompile("(?m)^" + l + "$").MatchString(text) {
				missing = append(missing, l)
			}
		}
		if len(missing) == 0 {
			return text
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("no line for\n%s\nin\n%s", strings.Join(missing, "\n"), text)
		}
	}
}

func TestMetricsSayWhatHappens(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0")
	ship1 := run(t, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL(), "-startPubREQHello=1")
	msg := func(to message.Node, method message.Method, data ...string) message.Message {
		return message.Message{To: to, Method: method, Data: data, ReplyMethod: message.MethodNone,
			ACKTimeout: 5 * time.Second, MethodTimeout: 5 * time.Second}
	}
	away := msg("ship9", "REQPing")
	away.ACKTimeout, away.Retries = 20*time.Millisecond, 2
	patient := msg("ship8", "REQPing")
	if _, err := central.router.Accept(t.Context(), []message.Message{
		msg("ship1", "REQToFile", "x"), msg("ship1", "REQToFile", "y"), msg("ship1", "REQCliCommand", "false"), away, patient, patient,
	}); err != nil {
		t.Fatal(err)
	}
	text := central.want(t,
		`steward_messages_accepted_total{method="REQToFile"} 2`,
		`steward_messages_delivered_total{method="REQToFile"} 2`,
		`steward_acks_missed_total{method="REQPing"} [2-9]`,
		`steward_acks_failed_total{method="REQPing"} 1`,
		`steward_messages_received_total{method="REQErrorLog"} [1-9]`,
		`steward_errors_received_total [1-9]`,
		`steward_errors_sent_total [1-9]`,
		`steward_hello_nodes 1`,
		`steward_hello_last_contact_timestamp_seconds{from_node="ship1"} 1\.\d+e\+09`,
		`steward_ring_buffer_node_messages{to_node="ship8"} 2`,
		`steward_ring_buffer_node_oldest_age_seconds{to_node="ship8"} .*`,
		`steward_method_runs_total{method="REQErrorLog",result="done"} [1-9]`,
		`steward_method_duration_seconds_count{method="REQHello"} [1-9]`,
		`steward_processes_running{branch="subscribers"} [1-9]\d*`,
		`steward_processes_running{branch="publishers"} [1-9]\d*`,
		`steward_processes_running{branch="ways in"} 0`,
		`steward_processes_running{branch="root"} [1-9]`,
		`steward_broker_connected 1`,
		`steward_name_conflict 0`,
		`steward_info{node="central",version="test"} 1`,
		`steward_delivery_seconds_count{method="REQToFile"} 2`,
		`steward_store_commit_seconds_count [1-9]\d*`,
		`steward_store_bytes [1-9]\S*`,
		`steward_errors_total{class="given-up"} 1`,
		`steward_errors_total{class="store-failed"} 0`,
	)
	if strings.Contains(text, `to_node="ship9"`) {
		t.Error("a node for which nothing waits has a series")
	}
	lint(t, text)
	lint(t, ship1.want(t,
		`steward_method_runs_total{method="REQCliCommand",result="failed"} 1`,
		`steward_method_runs_total{method="REQToFile",result="done"} 2`,
		`steward_errors_total{class="method-failed"} 1`,
		`steward_errors_sent_total [1-9]`,
	))
}

func TestMetricsSayThatANameIsTaken(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0")
	first := run(t, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL())
	first.want(t, `steward_broker_connected 1`, `steward_name_conflict 0`)
	second := run(t, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL())
	second.want(t, `steward_broker_connected 0`, `steward_name_conflict 1`)
	first.want(t, `steward_broker_connected 1`, `steward_name_conflict 1`)
	central.want(t, `steward_name_conflict 0`)
}

func lint(t *testing.T, text string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "go_") { // the library's own
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestStepsCostNoMemory(t *testing.T) {
	s := newStepMetrics([]message.Method{"REQPing"})
	step := process.Step{What: process.StepEnded, Method: "REQPing", Result: &message.Result{Code: message.CodeDone, Took: time.Second}}
	for _, what := range []process.StepKind{process.StepAccepted, process.StepDelivered, process.StepWaiting, process.StepReceived, process.StepEnded} {
		step.What = what
		if n := testing.AllocsPerRun(100, func() { s.Observe(step) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// Names that come from outside make no series without end.
func TestSeriesAreBounded(t *testing.T) {
	s := newStepMetrics([]message.Method{"REQHello"})
	now := time.Now()
	for i := range mostContacts + 100 {
		s.Observe(process.Step{What: process.StepReceived, Method: message.Method(fmt.Sprint("REQ", i))})
		s.hello.seen(message.Node(fmt.Sprint("node", i)), now)
	}
	if n := len(s.hello.nodes); n != mostContacts {
		t.Errorf("%d nodes that said hello", n)
	}
	s.hello.seen("later", now.Add(forgetContact+time.Hour))
	if n := len(s.hello.nodes); n != 1 {
		t.Errorf("%d nodes that said hello are left after long", n)
	}
	if n := len(s.methods); n != 2 {
		t.Errorf("%d methods", n)
	}
	nodes := map[message.Node]*waitingFor{}
	for i := range mostWaiting + 10 {
		nodes[message.Node(fmt.Sprint(i))] = &waitingFor{node: fmt.Sprint(i), count: uint64(i), oldest: now.Add(-time.Duration(i))}
	}
	list := bounded(nodes)
	if last := list[len(list)-1]; len(list) != mostWaiting+1 || last.node != otherNodes || last.count != 45 || !last.oldest.Equal(now.Add(-9)) || list[0].count != mostWaiting+9 {
		t.Errorf("%d nodes, first %+v, last %+v", len(list), list[0], last)
	}
}

func TestMetricsCountWhatIsRefusedForItsSignature(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0", "-embeddedBrokerLogin=no", "-signatures=require")
	ship1 := run(t, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL())
	ship2 := run(t, "-nodeName=ship2", "-brokerAddress="+central.BrokerURL(), "-signatures=sign")
	for _, n := range []*Node{ship1, ship2} {
		if _, err := n.router.Accept(t.Context(), []message.Message{{To: "central", Method: "REQPing", ReplyMethod: message.MethodNone,
			ACKTimeout: 5 * time.Second, MethodTimeout: 5 * time.Second}}); err != nil {
			t.Fatal(err)
		}
	}
	central.want(t,
		`steward_signatures_refused_total{reason="unsigned"} [1-9]\d*`,
		`steward_signatures_refused_total{reason="unknown-key"} [1-9]\d*`,
		`steward_signatures_refused_total{reason="bad-signature"} 0`,
		`steward_signatures_refused_total{reason="other-node"} 0`,
		`steward_signatures_refused_total{reason="stale"} 0`,
	)
	if text := ship1.scrape(t); strings.Contains(text, "steward_signatures_refused_total") {
		t.Error("a node without signatures counts what it refuses for them")
	}
}
