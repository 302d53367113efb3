package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"steward/internal/logattr"
	"steward/process"
)

// metrics is what Prometheus sees of a node, and whether it is healthy and ready.
type metrics struct {
	n        *Node
	registry *prometheus.Registry
	addr     atomic.Value // string: where it is served
}

func newMetrics(n *Node) *metrics {
	m := &metrics{n: n, registry: prometheus.NewRegistry()}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "steward_info", Help: "Always 1; the labels say which node and version this is."},
		[]string{"node", "version"})
	info.WithLabelValues(string(n.self), n.opts.Version).Set(1)
	steps := newStepMetrics(n.opts.Registry.Names())
	n.observer.steps = steps
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info,
		steps, stateMetrics{n}, n.commits,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "steward_errors_sent_total", Help: "Error messages put on the way to central."},
			func() float64 { return float64(n.errorsSent.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "steward_senders_held_back_total", Help: "Frames that were not taken as a whole because their sender is over its quota."},
			func() float64 { return float64(n.quota.Held()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_ring_buffer_messages", Help: "Messages that wait on the ring buffer for their receivers."},
			func() float64 { count, _, _ := n.store.Sizes(); return float64(count) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_ring_buffer_bytes", Help: "Bytes of the messages on the ring buffer."},
			func() float64 { _, size, _ := n.store.Sizes(); return float64(size) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_broker_connected", Help: "1 while there is a link to the broker and the name is this node's own."},
			func() float64 {
				if up, _ := n.transport.State(); up {
					return 1
				}
				return 0
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_name_conflict", Help: "1 while another node has the name of this one, or was heard of in the last minutes."},
			func() float64 {
				if n.guard.Conflict() {
					return 1
				}
				return 0
			}),
	)
	return m
}

func (m *metrics) server(addr string) process.Service {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := m.n.store.Ping(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-m.n.Ready():
			fmt.Fprintln(w, "ready")
		default:
			http.Error(w, "starting", http.StatusServiceUnavailable)
		}
	})
	return httpServer("promHostAndPort", addr, mux, func(a net.Addr) {
		m.addr.Store(a.String())
		m.n.log.Info("metrics open", logattr.Process("metrics"), "addr", a.String())
	})
}

// profiling serves pprof on loopback.
func profiling(port string) process.Service {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return httpServer("profilingPort", net.JoinHostPort("127.0.0.1", port), mux, func(net.Addr) {})
}

// httpServer serves until its context ends, and tells on which address. Option is where that comes from.
func httpServer(option, addr string, h http.Handler, listens func(net.Addr)) process.Service {
	return process.ServiceFunc(func(ctx context.Context) error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("%s: %w; the node goes on without, and tries again: end what has the port, or start the node with another -%s", option, err, option)
		}
		listens(l.Addr())
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
		stop := context.AfterFunc(ctx, func() { _ = s.Close() })
		defer stop()
		if err := s.Serve(l); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}
