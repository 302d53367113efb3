package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"steward/process"
)

// metrics is what Prometheus sees of a node, and whether it is healthy and ready.
type metrics struct {
	n        *Node
	registry *prometheus.Registry
}

func newMetrics(n *Node) *metrics {
	m := &metrics{n: n, registry: prometheus.NewRegistry()}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "steward_info", Help: "Always 1; the labels say which node and version this is."},
		[]string{"node", "version"})
	info.WithLabelValues(string(n.self), n.opts.Version).Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_ring_buffer_messages", Help: "Messages that wait on the ring buffer for their receivers."},
			func() float64 { count, _, _ := n.store.Sizes(); return float64(count) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_ring_buffer_bytes", Help: "Bytes of the messages on the ring buffer."},
			func() float64 { _, size, _ := n.store.Sizes(); return float64(size) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "steward_broker_connected", Help: "1 while there is a link to the broker."},
			func() float64 {
				if up, _ := n.transport.State(); up {
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
	return httpServer(addr, mux)
}

// profiling serves pprof on loopback.
func profiling(port string) process.Service {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return httpServer(net.JoinHostPort("127.0.0.1", port), mux)
}

// httpServer serves until its context ends.
func httpServer(addr string, h http.Handler) process.Service {
	return process.ServiceFunc(func(ctx context.Context) error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
		stop := context.AfterFunc(ctx, func() { _ = s.Close() })
		defer stop()
		if err := s.Serve(l); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}
