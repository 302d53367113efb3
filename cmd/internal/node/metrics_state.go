package node

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"steward/message"
	"steward/process"
)

// stateMetrics is what is looked up at each scrape: what waits for which node, and which
// processes run.
type stateMetrics struct{ n *Node }

const (
	// mostWaiting bounds the nodes that are shown one by one: those for which most waits.
	// The others are shown as one, under a name that no node can have.
	mostWaiting = 1000
	otherNodes  = "*"
)

// branches are the branches of the process tree; what is in none counts as root.
var branches = []string{"publishers", "lanes", "subscribers", "ways in", "outside"}

var (
	waitingMessages = prometheus.NewDesc("steward_ring_buffer_node_messages",
		"Messages that wait for a node; * stands for all nodes beyond the first thousand.", []string{"to_node"}, nil)
	waitingAge = prometheus.NewDesc("steward_ring_buffer_node_oldest_age_seconds",
		"How long the oldest message for a node has been waiting.", []string{"to_node"}, nil)
	refusals = prometheus.NewDesc("steward_signatures_refused_total",
		"Frames, acks and claims that were refused for their signatures, by the reason; some stale ones are usual after each start.", []string{"reason"}, nil)
	errorsReported = prometheus.NewDesc("steward_errors_total",
		"Failures that were reported to the error kernel of this node, by their class.", []string{"class"}, nil)
	storeSize = prometheus.NewDesc("steward_store_bytes",
		"Size of the database file.", nil, nil)
	processes = prometheus.NewDesc("steward_processes_running",
		"Processes that run, by the branch of the process tree.", []string{"branch"}, nil)
)

func (s stateMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- waitingMessages
	ch <- waitingAge
	ch <- processes
	ch <- refusals
	ch <- errorsReported
	ch <- storeSize
}

func (s stateMetrics) Collect(ch chan<- prometheus.Metric) {
	list, err := s.waiting()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(waitingMessages, err)
	}
	now := time.Now()
	for _, w := range list {
		ch <- prometheus.MustNewConstMetric(waitingMessages, prometheus.GaugeValue, float64(w.count), w.node)
		ch <- prometheus.MustNewConstMetric(waitingAge, prometheus.GaugeValue, max(0, now.Sub(w.oldest).Seconds()), w.node)
	}
	if s.n.signatures != nil {
		for reason, count := range s.n.signatures.Refused() {
			ch <- prometheus.MustNewConstMetric(refusals, prometheus.CounterValue, float64(count), reason)
		}
	}
	for class, count := range s.n.kernel.Counts() {
		ch <- prometheus.MustNewConstMetric(errorsReported, prometheus.CounterValue, float64(count), class.String())
	}
	if info, err := os.Stat(s.n.storePath()); err == nil {
		ch <- prometheus.MustNewConstMetric(storeSize, prometheus.GaugeValue, float64(info.Size()))
	}
	tree := s.n.root.Tree()
	own := 0
	for _, t := range tree.Children {
		if !slices.Contains(branches, t.Name) {
			own += running(t)
			continue
		}
		count := 0
		for _, c := range t.Children {
			count += running(c)
		}
		ch <- prometheus.MustNewConstMetric(processes, prometheus.GaugeValue, float64(count), t.Name)
	}
	ch <- prometheus.MustNewConstMetric(processes, prometheus.GaugeValue, float64(own), "root")
}

// running counts the processes that run in a tree.
func running(t process.Tree) int {
	n := 0
	if t.State == process.Running {
		n = 1
	}
	for _, c := range t.Children {
		n += running(c)
	}
	return n
}

// waitingFor is what waits for one node.
type waitingFor struct {
	node   string
	count  uint64
	oldest time.Time
}

func (w *waitingFor) add(count uint64, oldest time.Time) {
	w.count += count
	if w.oldest.IsZero() || !oldest.IsZero() && oldest.Before(w.oldest) {
		w.oldest = oldest
	}
}

// waiting returns what waits for whom, most first.
func (s stateMetrics) waiting() ([]waitingFor, error) {
	streams, err := s.n.store.Streams()
	if err != nil {
		return nil, err
	}
	nodes := map[message.Node]*waitingFor{}
	for _, st := range streams {
		_, first, err := s.n.store.Read(st.Stream, st.First, 1, 1)
		if err != nil {
			return nil, err
		}
		if len(first) == 0 {
			continue // delivered meanwhile
		}
		w := nodes[st.Peer]
		if w == nil {
			w = &waitingFor{node: string(st.Peer)}
			nodes[st.Peer] = w
		}
		w.add(st.Count, first[0].ID.Time())
	}
	return bounded(nodes), nil
}

// bounded shows the nodes for which most waits, and the others as one.
func bounded(nodes map[message.Node]*waitingFor) []waitingFor {
	list := make([]waitingFor, 0, len(nodes))
	for _, w := range nodes {
		list = append(list, *w)
	}
	slices.SortFunc(list, func(a, b waitingFor) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.node, b.node))
	})
	if len(list) <= mostWaiting {
		return list
	}
	rest := waitingFor{node: otherNodes}
	for _, w := range list[mostWaiting:] {
		rest.add(w.count, w.oldest)
	}
	return append(list[:mostWaiting:mostWaiting], rest)
}
