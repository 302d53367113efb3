package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"steward/message"
	"steward/process"
)

// otherMethod is the label of methods that are not known here: a peer may name any.
const otherMethod = "other"

// codes are the ends that a run can have; the label of any other is the last one.
var codes = [...]message.Code{message.CodeDone, message.CodeTimeout, message.CodeInterrupted, message.CodeInvalid, message.CodeExpired, message.CodeFailed}

// stepMetrics counts what messages go through. All series that there can be are made at the
// start, so that a step costs a look into a map and an atomic addition.
type stepMetrics struct {
	accepted, delivered, missed, failed, received, runs *prometheus.CounterVec
	duration, delivery                                  *prometheus.HistogramVec
	errors                                              prometheus.Counter
	hello                                               helloMetrics

	methods map[message.Method]*methodMetrics // not changed any more
}

type methodMetrics struct {
	accepted, delivered, missed, failed, received prometheus.Counter
	runs                                          [len(codes)]prometheus.Counter
	duration, delivery                            prometheus.Observer
}

func newStepMetrics(methods []message.Method) *stepMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"method"}, labels...))
	}
	s := &stepMetrics{
		accepted:  counter("steward_messages_accepted_total", "Messages taken over onto the ring buffer, the node's own replies and errors among them."),
		delivered: counter("steward_messages_delivered_total", "Messages acknowledged by their receivers."),
		missed:    counter("steward_acks_missed_total", "Attempts to deliver a message that got no ACK in time."),
		failed:    counter("steward_acks_failed_total", "Messages given up: no ACK in all attempts, refused, or expired."),
		received:  counter("steward_messages_received_total", "Messages taken from other nodes, and from this one for itself."),
		runs:      counter("steward_method_runs_total", "Runs of methods that ended, by how they ended.", "result"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "steward_method_duration_seconds", Help: "How long methods ran.",
			Buckets: []float64{.001, .01, .1, 1, 10, 60, 600, 3600}}, []string{"method"}),
		delivery: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "steward_delivery_seconds", Help: "How long messages took from being accepted here to the ACK of their receivers.",
			Buckets: []float64{.01, .1, 1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400}}, []string{"method"}),
		errors:  prometheus.NewCounter(prometheus.CounterOpts{Name: "steward_errors_received_total", Help: "Error messages received from nodes."}),
		methods: make(map[message.Method]*methodMetrics, len(methods)+1),
	}
	for _, name := range append([]message.Method{otherMethod}, methods...) {
		label := string(name)
		m := &methodMetrics{
			accepted: s.accepted.WithLabelValues(label), delivered: s.delivered.WithLabelValues(label), missed: s.missed.WithLabelValues(label),
			failed: s.failed.WithLabelValues(label), received: s.received.WithLabelValues(label), duration: s.duration.WithLabelValues(label),
			delivery: s.delivery.WithLabelValues(label),
		}
		for i, code := range codes {
			m.runs[i] = s.runs.WithLabelValues(label, string(code))
		}
		s.methods[name] = m
	}
	return s
}

func (s *stepMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{s.accepted, s.delivered, s.missed, s.failed, s.received, s.runs, s.duration, s.delivery, s.errors, &s.hello}
}

// Describe and Collect make it a collector.
func (s *stepMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.all() {
		c.Describe(ch)
	}
}

func (s *stepMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.all() {
		c.Collect(ch)
	}
}

// Observe counts a step.
func (s *stepMetrics) Observe(st process.Step) {
	m := s.methods[st.Method]
	if m == nil {
		m = s.methods[otherMethod]
	}
	switch st.What {
	case process.StepAccepted:
		m.accepted.Inc()
	case process.StepDelivered:
		m.delivered.Inc()
		m.delivery.Observe(max(0, time.Since(st.ID.Time()).Seconds())) // the clock may have been set
	case process.StepWaiting:
		m.missed.Inc()
	case process.StepGivenUp:
		m.failed.Inc()
	case process.StepRemoved: // by an operator: no failure
	case process.StepReceived:
		m.received.Inc()
		if st.Method == message.MethodErrorLog {
			s.errors.Inc()
		}
	case process.StepEnded:
		if st.Result == nil {
			return
		}
		i := 0
		for i < len(codes)-1 && codes[i] != st.Result.Code {
			i++
		}
		m.runs[i].Inc()
		m.duration.Observe(st.Result.Took.Seconds())
		if st.Method == message.MethodHello {
			s.hello.seen(st.Peer, time.Now())
		}
	}
}

// newCommitMetrics measures what the disk takes.
func newCommitMetrics() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "steward_store_commit_seconds", Help: "How long commits took to be on disk; each holds what came during the one before.",
		Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10}})
}

// helloMetrics are the nodes that said hello.
type helloMetrics struct{ contacts }

var (
	helloNodes = prometheus.NewDesc("steward_hello_nodes", "Nodes that said hello, since the start of this node and within the last seven days.", nil, nil)
	helloLast  = prometheus.NewDesc("steward_hello_last_contact_timestamp_seconds", "When a node said hello last.", []string{"from_node"}, nil)
)

func (h *helloMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- helloNodes; ch <- helloLast }

func (h *helloMetrics) Collect(ch chan<- prometheus.Metric) {
	nodes := h.all()
	ch <- prometheus.MustNewConstMetric(helloNodes, prometheus.GaugeValue, float64(len(nodes)))
	for n, at := range nodes {
		ch <- prometheus.MustNewConstMetric(helloLast, prometheus.GaugeValue, float64(at.UnixMilli())/1000, string(n))
	}
}
