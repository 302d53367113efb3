package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"steward/client"
	"steward/kvstore"
	"steward/message"
	"steward/process"
	"steward/process/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ process.Service = (*control.Server)(nil)
	_ control.Queue   = (*process.Router)(nil)
)

// queue does nothing with what waits, except what a test says.
type queue struct {
	clear func(process.QueueFilter) ([]process.Cleared, error)
	store *kvstore.Store
}

func (queue) Outlook(context.Context, kvstore.Stream, message.ID) (process.Outlook, bool) {
	return process.Outlook{}, false
}

func (q queue) Clear(_ context.Context, f process.QueueFilter, _ string) ([]process.Cleared, error) {
	return q.clear(f)
}

func (q queue) Retry(_ context.Context, ids []message.ID) ([]kvstore.Retried, error) {
	done, _, err := q.store.Retry(ids)
	return done, err
}

func (queue) Traffic() []process.Traffic {
	return []process.Traffic{
		{Stream: kvstore.Stream{Peer: "ship2", Method: "REQPing"}, Messages: 7, Bytes: 700},
		{Stream: kvstore.Stream{Peer: "ship1", Method: "REQPing"}},
	}
}

// looked is a store that says when it is asked for a life.
type looked struct {
	*kvstore.Store
	asked chan struct{}
}

func (l looked) Sent(id message.ID) (kvstore.Life, error) {
	select {
	case l.asked <- struct{}{}:
	default: // there are enough
	}
	return l.Store.Sent(id)
}

// node is a server with a store.
type node struct {
	*client.Client
	path     string
	store    *kvstore.Store
	progress *process.Progress
	stop     func() error
}

// serve starts a server. It is stopped with the test.
func serve(t *testing.T, change ...func(*control.Options)) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	store, err := kvstore.Open(kvstore.Options{Path: filepath.Join(dir, "a.db"), Self: "central", MaxMessages: 1000, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{path: filepath.Join(dir, client.ControlSocket), store: store, progress: &process.Progress{}}
	opt := control.Options{
		Path: n.path, Store: store, Queue: queue{store: store}, Progress: n.progress,
		Info:   func() client.NodeInfo { return client.NodeInfo{Node: "central", Central: "central"} },
		Tree:   func() process.Tree { return process.Tree{Name: "central"} },
		Hellos: func() ([]control.Hello, error) { return nil, nil },
		Heard:  func() map[message.Node]time.Time { return nil },
		Errors: func(context.Context, message.Node, int, bool, func(string) error) error { return nil },
		Keys:   func() (map[message.Node]client.Key, error) { return nil, nil },
		Log:    slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&opt)
	}
	s, err := control.NewServer(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	n.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	n.Client = client.New(dir)
	t.Cleanup(func() {
		n.Close()
		if err := errors.Join(n.stop(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return n
}

func (n *node) accept(t *testing.T, to message.Node, count int) []message.ID {
	t.Helper()
	var msgs []message.Message
	for i := range count {
		msgs = append(msgs, message.Message{To: to, Method: "REQPing", Data: []string{fmt.Sprint(i)}, ReplyMethod: message.MethodNone, ACKTimeout: time.Second, Retries: 1})
	}
	ids, err := n.store.Accept(msgs)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// giveUp ends a message of a stream from its first on.
func (n *node) giveUp(t *testing.T, to message.Node, id message.ID) {
	t.Helper()
	n.end(t, to, kvstore.Settled{ID: id, Code: message.CodeUnreachable, Text: "nobody", Attempts: 1})
}

func (n *node) removed(t *testing.T, to message.Node, id message.ID) {
	t.Helper()
	n.end(t, to, kvstore.Settled{ID: id, Code: message.CodeRemoved, Text: "removed by an operator"})
}

func (n *node) end(t *testing.T, to message.Node, as kvstore.Settled) {
	t.Helper()
	l, err := n.store.Sent(as.ID)
	if err == nil {
		as.Seq, as.At = l.Seq, time.Now()
		err = <-n.store.Settle(kvstore.Stream{Peer: to, Method: "REQPing"}, []kvstore.Settled{as})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) queued(t *testing.T, f client.Filter, most int) (ids []message.ID) {
	t.Helper()
	for q, err := range n.Queued(t.Context(), f, most) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, q.ID)
	}
	return ids
}

func TestSocketIsPrivateAndGoesWithTheServer(t *testing.T) {
	n := serve(t)
	fi, err := os.Stat(n.path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	second, err := control.NewServer(control.Options{Path: n.path, Store: n.store, Queue: queue{}, Progress: n.progress,
		Info: func() client.NodeInfo { return client.NodeInfo{} }, Tree: func() process.Tree { return process.Tree{} },
		Hellos: func() ([]control.Hello, error) { return nil, nil }, Heard: func() map[message.Node]time.Time { return nil }, Errors: func(context.Context, message.Node, int, bool, func(string) error) error { return nil }, Keys: func() (map[message.Node]client.Key, error) { return nil, nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "another steward is running") {
		t.Errorf("a second one: %v", err)
	}
	if _, err := n.Node(t.Context()); err != nil {
		t.Errorf("the first one, after that: %v", err)
	}
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(n.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the stop: %v", err)
	}
	var no *client.Error
	if _, err := n.Node(t.Context()); !errors.As(err, &no) || no.Status != 0 || !strings.Contains(no.Text, "no node runs here") || no.Hint == "" {
		t.Errorf("asked after the stop: %v", err)
	}
}

func TestStopEndsThoseWhoWait(t *testing.T) {
	asked := make(chan struct{}, 100)
	n := serve(t, func(o *control.Options) { o.Store = looked{o.Store.(*kvstore.Store), asked} })
	id := n.accept(t, "ship1", 1)[0]
	waiting, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	n.Lost = func(error) { giveUp() }
	waited := make(chan error, 1)
	go func() {
		_, err := n.Wait(waiting, id)
		waited <- err
	}()
	<-asked
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if err := <-waited; err == nil {
		t.Error("it was told of an end")
	}
}

func TestWaitEndsWithTheMessage(t *testing.T) {
	asked := make(chan struct{}, 100)
	n := serve(t, func(o *control.Options) { o.Store = looked{o.Store.(*kvstore.Store), asked} })
	id := n.accept(t, "ship1", 1)[0]
	type end struct {
		client.Status
		error
	}
	waited := make(chan end, 1)
	go func() {
		st, err := n.Wait(context.Background(), id)
		waited <- end{st, err}
	}()
	<-asked
	n.giveUp(t, "ship1", id)
	got := <-waited
	if got.error != nil || !got.Ended || !got.GivenUp || got.ID != id || got.Sent.State != message.StateFailed || got.Sent.Code != message.CodeUnreachable ||
		!strings.Contains(string(got.Message), `"toNode":"ship1"`) {
		t.Errorf("%+v", got)
	}
}

// A message that came here is found in its lane, with its run.
func TestStatusOfAMessageThatRuns(t *testing.T) {
	n := serve(t)
	ids := n.accept(t, "ship1", 2)
	var items []kvstore.Item
	_, queued, err := n.store.Read(kvstore.Stream{Peer: "ship1", Method: "REQPing"}, 0, 9, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i, q := range queued {
		items = append(items, kvstore.Item{Seq: uint64(i) + 1, ID: q.ID, Accepted: time.Now(), Message: q.Message})
	}
	lane := kvstore.Stream{Peer: "ship2", Method: "REQPing"}
	if _, err := n.store.Take([]kvstore.Arrival{{Stream: lane, Epoch: 1, Base: 1, First: 1, End: 3, Items: items, Begin: &kvstore.Begin{}}}); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		st, err := n.Status(t.Context(), id)
		if err != nil || st.Ended || st.Received == nil || st.Received.Peer != "ship2" || (st.Received.Started != nil) != (i == 0) || st.Message == nil {
			t.Errorf("message %d: %+v, %v", i, st.Received, err)
		}
	}
}

func TestListsAreFilteredAndInOrder(t *testing.T) {
	n := serve(t)
	one, two := n.accept(t, "ship1", 600), n.accept(t, "ship2", 3)
	n.giveUp(t, "ship1", one[0])
	n.giveUp(t, "ship2", two[0])
	for name, tt := range map[string]struct {
		f    client.Filter
		n    int
		want []message.ID
	}{
		"a long stream":  {client.Filter{To: "ship1"}, 0, one[1:]},
		"the first":      {client.Filter{To: "ship1"}, 2, one[1:3]},
		"all":            {client.Filter{Method: "REQPing"}, 0, append(slices.Clone(one[1:]), two[1:]...)},
		"by id":          {client.Filter{IDs: []string{two[2].String(), one[0].String()}}, 0, two[2:]},
		"id and node":    {client.Filter{IDs: []string{two[2].String()}, To: "ship1"}, 0, nil},
		"too young":      {client.Filter{OlderThan: time.Hour}, 0, nil},
		"other method":   {client.Filter{Method: "REQPong"}, 0, nil},
		"given up":       {client.Filter{GivenUp: true}, 0, []message.ID{one[0], two[0]}},
		"given up to":    {client.Filter{GivenUp: true, To: "ship2"}, 0, two[:1]},
		"given up by id": {client.Filter{GivenUp: true, IDs: []string{one[0].String(), one[1].String()}}, 0, one[:1]},
	} {
		ids := n.queued(t, tt.f, tt.n)
		if !slices.Equal(ids, tt.want) {
			t.Errorf("%s: %d messages; want %d", name, len(ids), len(tt.want))
		}
	}
}

func TestRetryIsInTheOrderOfAcceptance(t *testing.T) {
	n := serve(t)
	ids := n.accept(t, "ship1", 3)
	for _, i := range []int{2, 0, 1} {
		n.giveUp(t, "ship1", ids[i])
	}
	var old, as []message.ID
	retried, _, err := n.Retry(t.Context(), client.Filter{IDs: []string{ids[2].String(), ids[1].String(), ids[0].String()}})
	for _, r := range retried {
		old, as = append(old, r.ID), append(as, r.NewID)
	}
	if err != nil || !slices.Equal(old, ids) {
		t.Errorf("%v, %v; want %v", old, err, ids)
	}
	if waiting := n.queued(t, client.Filter{}, 0); !slices.Equal(waiting, as) {
		t.Errorf("%v wait; want %v", waiting, as)
	}
}

// What an operator has taken back was a mistake more often than not: a filter that happens to fit it sends it nowhere.
func TestRetryLeavesOutWhatWasRemovedUnlessItIsNamed(t *testing.T) {
	n := serve(t)
	ids := n.accept(t, "ship1", 4)
	n.giveUp(t, "ship1", ids[1])
	for _, id := range []message.ID{ids[0], ids[2]} {
		n.removed(t, "ship1", id)
	}
	for name, tt := range map[string]struct {
		f    client.Filter
		want []message.ID
	}{
		"given up":         {client.Filter{GivenUp: true}, ids[1:2]},
		"removed":          {client.Filter{Removed: true}, []message.ID{ids[0], ids[2]}},
		"both":             {client.Filter{GivenUp: true, Removed: true}, ids[:3]},
		"removed and said": {client.Filter{GivenUp: true, IDs: []string{ids[2].String()}}, ids[2:3]},
	} {
		if got := n.queued(t, tt.f, 0); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
	for _, step := range []struct {
		f             client.Filter
		sent, leftOut []message.ID
	}{
		{client.Filter{To: "ship1"}, ids[1:2], []message.ID{ids[0], ids[2]}},
		{client.Filter{All: true}, nil, []message.ID{ids[0], ids[2]}},
		{client.Filter{IDs: []string{ids[2].String()}}, ids[2:3], nil},
		{client.Filter{All: true, Removed: true}, ids[:1], nil},
	} {
		sent, left, err := n.Retry(t.Context(), step.f)
		if err != nil || !slices.Equal(oldIDs(sent), step.sent) || !slices.Equal(oldIDs(left), step.leftOut) {
			t.Errorf("%+v: %+v are sent and %+v left out, %v", step.f, sent, left, err)
		}
	}
}

func oldIDs(all []client.Retried) (ids []message.ID) {
	for _, r := range all {
		ids = append(ids, r.ID)
	}
	return ids
}

func TestErrorInTheMiddleOfAListIsNoEndOfIt(t *testing.T) {
	n := serve(t, func(o *control.Options) {
		o.Queue = queue{clear: func(process.QueueFilter) ([]process.Cleared, error) {
			return []process.Cleared{{To: "ship1", Method: "REQPing", Messages: 3}}, errors.New("the disk is full")
		}}
	})
	removed, err := n.Remove(t.Context(), client.Filter{All: true})
	var no *client.Error
	if len(removed) != 1 || removed[0].Messages != 3 || !errors.As(err, &no) || no.Text != "the disk is full" {
		t.Errorf("%+v removed, %v", removed, err)
	}
}

func TestWhatIsNotSaidIsNotRemoved(t *testing.T) {
	n := serve(t, func(o *control.Options) {
		o.Queue = queue{clear: func(f process.QueueFilter) ([]process.Cleared, error) { t.Errorf("%+v is cleared", f); return nil, nil }}
	})
	for name, f := range map[string]client.Filter{
		"nothing": {}, "only the kind": {GivenUp: true}, "only the removed": {Removed: true}, "an id that is none": {IDs: []string{"?"}}, "an id of nobody": {IDs: []string{message.ID{1}.String()}},
		"the future": {OlderThan: -time.Hour},
	} {
		var no *client.Error
		if _, err := n.Remove(t.Context(), f); !errors.As(err, &no) || no.Status/100 != 4 {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := n.Retry(t.Context(), f); !errors.As(err, &no) || no.Status/100 != 4 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever comes on the socket, the next one is answered.
func TestGarbageStopsNothing(t *testing.T) {
	n := serve(t)
	for name, text := range map[string]string{
		"no HTTP":         "\x00\xff[{\"toNode\":\"x\"}]\n\n",
		"a huge header":   "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"a body":          "POST /v1/queue/retry HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n" + strings.Repeat("x", 1_000_000),
		"a path":          "GET /v1/messages/..%2f..%2fetc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"another path":    "GET /v2/node HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"no ids":          "POST /v1/ends HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n[1,2]",
		"too many ids":    "POST /v1/ends HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nConnection: close\r\n\r\n[" + strings.Repeat(" ", 8_999_999),
		"another method":  "PATCH /v1/queue HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"numbers":         "GET /v1/queue/messages?n=-1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"larger numbers":  "GET /v1/queue/messages?n=99999999999999999999 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"half of a thing": "GET /v1/no",
	} {
		conn, err := net.Dial("unix", n.path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text) // it may be cut off
		_ = conn.(*net.UnixConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		if strings.HasPrefix(string(answer), "HTTP/1.1 2") {
			t.Errorf("%s is answered with %s", name, answer)
		}
		_ = conn.Close()
		if info, err := n.Node(t.Context()); err != nil || info.Node != "central" {
			t.Errorf("after %s: %+v, %v", name, info, err)
		}
	}
}

func TestRequestsAreBounded(t *testing.T) {
	asked := make(chan struct{}, 10_000)
	n := serve(t, func(o *control.Options) { o.Store = looked{o.Store.(*kvstore.Store), asked} })
	id := n.accept(t, "ship1", 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	const most = 64
	for range most {
		all.Go(func() { _, _ = n.Wait(ctx, id) })
	}
	// Each waits, having looked once, until it is told.
	for range most {
		<-asked
	}
	var no *client.Error
	_, err := n.Node(t.Context())
	for err == nil { // the same one may have looked twice
		<-asked
		_, err = n.Node(t.Context())
	}
	if !errors.As(err, &no) || no.Status != http.StatusServiceUnavailable {
		t.Errorf("one more: %v", err)
	}
	cancel()
	all.Wait()
	// The server learns a moment later that its clients are gone.
	for _, err = n.Node(t.Context()); err != nil; _, err = n.Node(t.Context()) {
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestTrafficIsSortedAndNothingRuns(t *testing.T) {
	n := serve(t)
	var all []client.Traffic
	for tr, err := range n.Traffic(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tr)
	}
	if want := []client.Traffic{{To: "ship1", Method: "REQPing"}, {To: "ship2", Method: "REQPing", Messages: 7, Bytes: 700}}; !slices.Equal(all, want) {
		t.Errorf("traffic %+v, want %+v", all, want)
	}
	for r, err := range n.Runs(t.Context()) {
		t.Errorf("%+v runs: %v", r, err)
	}
}
