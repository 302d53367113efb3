package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"steward/client"
	"steward/kvstore"
	"steward/message"
	"steward/process"
	"steward/process/ingress"
)

const (
	// mostRequests bounds the requests that are answered at a time.
	mostRequests = 64
	// mostBody is room for the ids of 100,000 messages. All else is said in the address.
	mostBody = 4 << 20
	// readPatience is how long a client may take to write them.
	readPatience = 10 * time.Second
	// writePatience is how long a client may leave its answer unread.
	writePatience = 30 * time.Second
	// stopPatience is how long a stop waits for answers that are being written.
	stopPatience = 2 * time.Second
)

// Store is what is looked up, and what is done with messages that were given up.
// *kvstore.Store is one.
type Store interface {
	Sent(message.ID) (kvstore.Life, error)
	Received(message.ID) (kvstore.Life, error)
	Match(prefix string, n int) ([]message.ID, error)
	Streams() ([]kvstore.StreamInfo, error)
	Read(id kvstore.Stream, from uint64, n, size int) (kvstore.StreamInfo, []kvstore.Queued, error)
	ReadLane(id kvstore.Stream, after uint64, n, size int) ([]kvstore.Waiting, error)
	DeadLetters(func(kvstore.DeadLetter) bool) error
	DeadLetter(message.ID) (kvstore.DeadLetter, error)
	Forget([]message.ID) ([]message.ID, error)
}

// Queue is what can be done with messages that wait. *process.Router is one.
type Queue interface {
	Outlook(ctx context.Context, id kvstore.Stream, about message.ID) (process.Outlook, bool)
	Clear(ctx context.Context, f process.QueueFilter, by string) ([]process.Cleared, error)
	Retry(context.Context, []message.ID) ([]kvstore.Retried, error)
	Traffic() []process.Traffic
}

// Hello is the last hello of a node.
type Hello struct {
	Node    message.Node
	At      time.Time
	Text    string
	Version string
}

// Options are what a [Server] needs, all but Access.
type Options struct {
	// Path is the socket file.
	Path string
	// Access is who may ask: those who may send messages as this node. They could have it do all that is done here.
	Access   ingress.Access
	Info     func() client.NodeInfo
	Store    Store
	Queue    Queue
	Progress *process.Progress
	Tree     func() process.Tree
	// Hellos returns the last hello of each node, in any order.
	Hellos func() ([]Hello, error)
	// Heard returns when something of other nodes came here last, since the start.
	Heard func() map[message.Node]time.Time
	// Errors calls do with the last n lines of the error log, 0 being all, about one node, or about all when that is
	// empty. With follow it goes on until ctx ends, and 0 is none.
	Errors func(ctx context.Context, of message.Node, n int, follow bool, do func(line string) error) error
	// Keys returns the nodes of which keys, or tokens, are known.
	Keys func() (map[message.Node]client.Key, error)
	Log  *slog.Logger
}

// Server answers operators' commands.
type Server struct {
	opt   Options
	ready chan struct{}
	slots chan struct{} // one for each request that is answered
}

// NewServer checks the options. Nothing is opened before Serve.
func NewServer(opt Options) (*Server, error) {
	switch {
	case opt.Info == nil, opt.Store == nil, opt.Queue == nil, opt.Progress == nil, opt.Tree == nil, opt.Hellos == nil, opt.Heard == nil, opt.Errors == nil, opt.Keys == nil, opt.Log == nil:
		return nil, errors.New("control: an option is missing")
	}
	if err := ingress.CheckDoor(opt.Path); err != nil {
		return nil, err
	}
	return &Server{opt: opt, ready: make(chan struct{}), slots: make(chan struct{}, mostRequests)}, nil
}

// Ready is closed when the socket takes connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Serve opens the socket and answers until ctx ends. It can be called once.
func (s *Server) Serve(ctx context.Context) error {
	door, err := ingress.OpenDoor(s.opt.Path, s.opt.Access)
	if err != nil {
		return err
	}
	hs := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // a stop ends what is being answered
		ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, IdleTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = door.Close() })
	defer stop()
	close(s.ready)
	s.opt.Log.Info("control socket open", "addr", s.opt.Path)
	err = hs.Serve(door)
	if ctx.Err() != nil {
		err = nil
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if hs.Shutdown(bounded) != nil {
		_ = hs.Close()
	}
	return errors.Join(err, door.Close())
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*answer, *http.Request) error{
		"GET /v1/node":           s.node,
		"GET /v1/messages/{id}":  s.status,
		"POST /v1/ends":          s.ends,
		"GET /v1/queue":          s.streams,
		"GET /v1/queue/messages": s.queued,
		"DELETE /v1/queue":       s.remove,
		"POST /v1/queue/retry":   s.retry,
		"GET /v1/processes":      s.processes,
		"GET /v1/nodes":          s.nodes,
		"GET /v1/errors":         s.errors,
		"GET /v1/runs":           s.runs,
		"GET /v1/traffic":        s.traffic,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, answer) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, func(*answer, *http.Request) error {
			return refusal{http.StatusNotImplemented, fmt.Errorf("this node does not know %s %s", r.Method, message.Quote(r.URL.Path)),
				"command and node are of different versions; steward version"}
		})
	})
	return mux
}

// answer has one request answered, and writes its error when nothing else was written yet. An error
// in the middle of a list becomes its last line.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, do func(*answer, *http.Request) error) {
	a := &answer{w: w, rc: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/json")
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		a.fail(refusal{http.StatusServiceUnavailable, fmt.Errorf("the node answers %d others", mostRequests), "try again"})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, mostBody)
	err := do(a, r)
	if err != nil && r.Context().Err() != nil { // or the client has gone, and reads nothing more
		err = refusal{http.StatusServiceUnavailable, errors.New("the node is stopping"), ""}
	}
	if err != nil {
		a.fail(err)
	}
}

// answer is one answer: a value, or a line for each of many.
type answer struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool
}

// line writes a value as a line, which the client gets at once.
func (a *answer) line(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	a.begun = true
	if err := a.rc.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	if _, err := a.w.Write(b.Bytes()); err != nil {
		return err
	}
	return a.rc.Flush()
}

func (a *answer) fail(err error) {
	f := client.Error{Text: err.Error()}
	status := http.StatusInternalServerError
	if no := (refusal{}); errors.As(err, &no) {
		status, f.Hint = no.status, no.hint
	}
	if !a.begun {
		a.w.WriteHeader(status)
	}
	_ = a.line(f) // the client has gone, or gets it
}

// refusal is an error that the client has to do with.
type refusal struct {
	status int
	error
	hint string
}

func (r refusal) Unwrap() error { return r.error }

func (s *Server) node(a *answer, _ *http.Request) error { return a.line(s.opt.Info()) }

// errors answers what failed, a line each.
func (s *Server) errors(a *answer, r *http.Request) error {
	q := r.URL.Query()
	n, err := number(q.Get("n"))
	of := message.Node(q.Get("node"))
	if err == nil && of != "" {
		if err = of.Check(); err != nil {
			err = refusal{http.StatusBadRequest, err, ""}
		}
	}
	if err != nil {
		return err
	}
	return s.opt.Errors(r.Context(), of, n, q.Get("follow") == "true", func(line string) error { return a.line(line) })
}

// number reads how many of a list are wanted, 0 being all.
func number(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, refusal{http.StatusBadRequest, fmt.Errorf("n: %s is no number", message.Quote(text)), ""}
	}
	return n, nil
}

func (s *Server) processes(a *answer, _ *http.Request) error { return a.line(s.opt.Tree()) }
