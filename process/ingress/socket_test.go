package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"steward/message"
	"steward/message/wire"
	"steward/process"
	"steward/process/ingress"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(dialEnv); path != "" {
		os.Exit(actAsClient(path))
	}
	goleak.VerifyTestMain(m)
}

var _ process.Service = (*ingress.Socket)(nil)

type catalog struct{}

func (catalog) Method(name message.Method) (wire.MethodInfo, bool) {
	return wire.MethodInfo{Kind: message.EventACK, Reply: "REQNone"}, name == "REQPing"
}

func (catalog) Methods() []message.Method { return []message.Method{"REQPing"} }

// store counts up ids and keeps what it took.
type store struct {
	mu    sync.Mutex
	taken []message.Message
	// before, if set, is asked first.
	before func(context.Context, []message.Message) error
}

func (s *store) accept(ctx context.Context, messages []message.Message) ([]message.ID, error) {
	if s.before != nil {
		if err := s.before(ctx, messages); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]message.ID, len(messages))
	for i, m := range messages {
		s.taken = append(s.taken, m)
		ids[i] = id(len(s.taken))
	}
	return ids, nil
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

func id(n int) message.ID { return message.NewID(time.UnixMilli(1), uint32(n), 0) }

func options(s *store) ingress.Options {
	return ingress.Options{
		Path: "unused",
		Resolve: func(drafts []wire.Draft) ([]message.Message, error) {
			return wire.ResolveAll(drafts, wire.Defaults{Self: "central", Catalog: catalog{}, MethodTimeout: time.Second})
		},
		Accept: func(ctx context.Context, m []message.Message) func() ([]message.ID, error) {
			return func() ([]message.ID, error) { return s.accept(ctx, m) }
		},
		Log: slog.New(slog.DiscardHandler),
	}
}

// folder is a new one with a path short enough for a socket.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// open serves a socket until the test ends or stop is called, which returns what Serve did.
func open(t *testing.T, opt ingress.Options) (path string, stop func() error) {
	t.Helper()
	if opt.Path == "unused" {
		opt.Path = filepath.Join(folder(t), "steward.sock")
	}
	s, err := ingress.NewSocket(opt)
	if err != nil {
		t.Fatal(err)
	}
	return opt.Path, serve(t, s)
}

// serve is open for a socket that was made already.
func serve(t *testing.T, s *ingress.Socket) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

type client struct {
	*net.UnixConn
	t     *testing.T
	lines *bufio.Reader
}

func dial(t *testing.T, path string) *client {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{UnixConn: c, t: t, lines: bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one line, which has to be one JSON object.
func (c *client) answer() (accepted []string, refusal string) {
	c.t.Helper()
	line, err := c.lines.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read answer: %q, %v", line, err)
	}
	var a struct {
		Accepted []string
		Error    string
	}
	dec := json.NewDecoder(strings.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil || (a.Accepted == nil) == (a.Error == "") {
		c.t.Fatalf("answer %q: %v", line, err)
	}
	return a.Accepted, a.Error
}

func (c *client) wantAccepted(ids ...int) {
	c.t.Helper()
	accepted, refusal := c.answer()
	want := []string{}
	for _, n := range ids {
		want = append(want, id(n).String())
	}
	if refusal != "" || fmt.Sprint(accepted) != fmt.Sprint(want) {
		c.t.Fatalf("got %v, %q, want %v", accepted, refusal, want)
	}
}

func (c *client) wantError(part string) {
	c.t.Helper()
	if accepted, refusal := c.answer(); !strings.Contains(refusal, part) {
		c.t.Fatalf("got %v, %q, want an error with %q", accepted, refusal, part)
	}
}

func (c *client) wantEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.lines); err != nil || len(rest) > 0 {
		c.t.Fatalf("want the end, got %q, %v", rest, err)
	}
}

const ping = `[{"toNode":"ship1","method":"REQPing"}]`

func TestEachArrayGetsOneAnswer(t *testing.T) {
	s := &store{before: func(_ context.Context, m []message.Message) error {
		if m[0].To == "full" {
			return errors.New("ring buffer is full:\n\"1000000\" messages <wait>")
		}
		return nil
	}}
	path, _ := open(t, options(s))
	c := dial(t, path)
	c.send(ping + "\n\n" + `[{"toNode":"a","method":"REQPing"},{"toNodes":["b","c"],"method":"REQPing"}]`)
	c.wantAccepted(1)
	c.wantAccepted(2, 3, 4)
	c.send(`[{"toNode":"a","method":"REQPing"},{"toNode":"a","method":"REQFoo"}]`)
	c.wantError(`message 2: unknown method "REQFoo", did you mean "REQPing"?`)
	c.send(`[{"toNode":5}]`)
	c.wantError("message 1: toNode: found the number 5, want a text")
	c.send(`[{"toNode":"full","method":"REQPing"}]`)
	c.wantError("ring buffer is full:\n\"1000000\" messages <wait>")
	c.send(`[]`)
	c.wantAccepted()
	c.send("toNode: ship1\nmethod: REQPing\n---\n")
	c.wantAccepted(5)
	c.send(ping[:10])
	c.send(ping[10:])
	c.wantAccepted(6)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
	if s.count() != 6 {
		t.Errorf("%d messages taken", s.count())
	}
}

func TestClientReadsTheAnswerAfterMegabytesOfGarbage(t *testing.T) {
	path, _ := open(t, options(&store{}))
	garbage := make([]byte, 5<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(garbage)
	c := dial(t, path)
	c.send(ping)
	if n, err := c.Write(garbage); err != nil {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
	c.wantAccepted(1)
	c.wantError("syntax error in line 1")
	c.wantEnd()
}

func TestHalfArrayAtTheEndIsASyntaxError(t *testing.T) {
	s := &store{}
	path, _ := open(t, options(s))
	c := dial(t, path)
	c.send(ping + `[{"toNode":"ship1",`)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.wantAccepted(1)
	c.wantError("the stream ends in the middle of a message")
	c.wantEnd()
}

func TestClientMayWriteThousandsOfArraysBeforeItReads(t *testing.T) {
	path, _ := open(t, options(&store{}))
	c := dial(t, path)
	const arrays = 3000
	c.send(strings.Repeat(ping+"\n", arrays))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for i := range arrays {
		c.wantAccepted(i + 1)
	}
	c.wantEnd()
}

func TestWhatWasReadIsAcceptedThoughTheClientHasGone(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	s := &store{before: func(ctx context.Context, _ []message.Message) error {
		close(entered)
		<-gone
		result <- ctx.Err()
		return nil
	}}
	path, stop := open(t, options(s))
	c := dial(t, path)
	c.send(ping)
	<-entered
	_ = c.Close()
	close(gone)
	if err := <-result; err != nil {
		t.Errorf("the context of Accept: %v", err)
	}
	if err := stop(); err != nil || s.count() != 1 {
		t.Errorf("%d messages taken, stop: %v", s.count(), err)
	}
}

func TestSocketIsPrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(folder(t), "a", "b", "steward.sock")
	opt := options(&store{})
	opt.Path = path
	_, stop := open(t, opt)
	for file, want := range map[string]os.FileMode{path: os.ModeSocket | 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Lstat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", file, info.Mode(), err, want)
		}
	}
	wantFiles(t, filepath.Dir(path), "steward.sock")
	if err := stop(); err != nil {
		t.Error(err)
	}
	wantFiles(t, filepath.Dir(path))
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func TestSocketOfADeadNodeIsReplaced(t *testing.T) {
	path := filepath.Join(folder(t), "steward.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	opt := options(&store{})
	opt.Path = path
	open(t, opt)
	c := dial(t, path)
	c.send(ping)
	c.wantAccepted(1)
}

func serveError(t *testing.T, path string) string {
	t.Helper()
	opt := options(&store{})
	opt.Path = path
	s, err := ingress.NewSocket(opt)
	if err != nil {
		return err.Error()
	}
	if err = s.Serve(t.Context()); err == nil {
		t.Fatal("no error")
	}
	return err.Error()
}

func TestSocketOfALivingNodeIsLeftAlone(t *testing.T) {
	path, _ := open(t, options(&store{}))
	if got, want := serveError(t, path), "open socket: another steward is running on "+path+", use -socketFolder"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c := dial(t, path)
	c.send(ping)
	c.wantAccepted(1)
}

func TestOfManyNodesThatStartAtOnceOneServes(t *testing.T) {
	path := filepath.Join(folder(t), "steward.sock")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const nodes = 8
	ready, failed, ended := make(chan struct{}, nodes), make(chan error, nodes), make(chan error, nodes)
	for range nodes {
		opt := options(&store{})
		opt.Path = path
		s, err := ingress.NewSocket(opt)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			err := s.Serve(ctx)
			select {
			case <-s.Ready():
				ended <- err
			default:
				failed <- err
			}
		}()
		go func() {
			select {
			case <-s.Ready():
				ready <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	for range nodes - 1 {
		if err := <-failed; !strings.Contains(err.Error(), "another steward") {
			t.Error(err)
		}
	}
	<-ready
	c := dial(t, path)
	c.send(ping)
	c.wantAccepted(1)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOtherFilesAreNotDeleted(t *testing.T) {
	path := filepath.Join(folder(t), "steward.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serveError(t, path); !strings.Contains(got, "is there and is no socket") {
		t.Error(got)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPathsThatCannotBeASocketAreRefused(t *testing.T) {
	if got := serveError(t, "/tmp/"+strings.Repeat("x", 96)); !strings.Contains(got, "the path has 101 bytes") {
		t.Error(got)
	}
	if got := serveError(t, ""); !strings.Contains(got, "no path") {
		t.Error(got)
	}
	file := filepath.Join(folder(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serveError(t, filepath.Join(file, "steward.sock")); !strings.Contains(got, "not a directory") {
		t.Error(got)
	}
	dir := folder(t)
	long := filepath.Join(dir, strings.Repeat("x", 100-len(dir)-1-len("/steward.sock")), "steward.sock")
	opt := options(&store{})
	opt.Path = long
	open(t, opt)
	dial(t, long)
}

func TestOptionsAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*ingress.Options){
		"accept":   func(o *ingress.Options) { o.Accept = nil },
		"resolve":  func(o *ingress.Options) { o.Resolve = nil },
		"log":      func(o *ingress.Options) { o.Log = nil },
		"negative": func(o *ingress.Options) { o.IdleTimeout = -1 },
	} {
		opt := options(&store{})
		spoil(&opt)
		if _, err := ingress.NewSocket(opt); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestStopClosesConnectionsAndRemovesTheSocket(t *testing.T) {
	path, stop := open(t, options(&store{}))
	idle, half, served, broken := dial(t, path), dial(t, path), dial(t, path), dial(t, path)
	half.send(`[{"toNode":`)
	served.send(ping)
	served.wantAccepted(1)
	broken.send("\x00")
	broken.wantError("syntax error")
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, c := range []*client{idle, half, served, broken} {
		// Closing a connection with unread bytes resets it.
		if n, err := c.lines.Read(make([]byte, 1)); n != 0 || err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is there: %v", err)
	}
	open(t, func() ingress.Options { o := options(&store{}); o.Path = path; return o }())
	c := dial(t, path)
	c.send(ping)
	c.wantAccepted(1)
}

func TestStopLeavesAForeignSocketInPlace(t *testing.T) {
	path, stop := open(t, options(&store{}))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	dial(t, path)
}

// Clients that send nothing, or a byte now and then, keep nobody out: one more gets the place
// of the slowest, who is told.
func TestSlowClientsGiveWayWhenThereAreTooMany(t *testing.T) {
	opt := options(&store{})
	var told ledger
	opt.MaxConns, opt.Report = 3, &told
	path, _ := open(t, opt)
	silent, slow, quick := dial(t, path), dial(t, path), dial(t, path)
	slow.send("[")
	quick.send(ping)
	quick.wantAccepted(1)
	for i, loser := range []*client{silent, slow, quick} {
		c := dial(t, path)
		c.send(ping)
		c.wantAccepted(2 + i)
		loser.wantError("too many connections: 3 are open")
		loser.wantEnd()
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	if len(told.events) != 3 || told.events[0].Err.Error() != told.events[2].Err.Error() || !strings.Contains(told.events[0].Err.Error(), path+": too many connections: 3 are open") {
		t.Errorf("reported: %v", told.events)
	}
}

// Who has something in work is never sent away.
func TestConnectionsAreBounded(t *testing.T) {
	release, working := make(chan struct{}), make(chan struct{}, 3)
	opt := options(&store{before: func(context.Context, []message.Message) error {
		working <- struct{}{}
		<-release
		return nil
	}})
	opt.MaxConns = 3
	path, _ := open(t, opt)
	var clients []*client
	for range 3 {
		c := dial(t, path)
		c.send(ping)
		<-working
		clients = append(clients, c)
	}
	over := dial(t, path)
	over.wantError("too many connections: 3 are open")
	over.wantEnd()
	close(release)
	for _, c := range clients {
		if line, err := c.lines.ReadString('\n'); err != nil || !strings.Contains(line, "accepted") {
			t.Errorf("%q, %v", line, err)
		}
	}
}

func TestSlowAndIdleClientsDelayNobody(t *testing.T) {
	stuck, release := make(chan struct{}), make(chan struct{})
	s := &store{before: func(_ context.Context, m []message.Message) error {
		if m[0].To == "slow" {
			close(stuck)
			<-release
		}
		return nil
	}}
	path, _ := open(t, options(s))
	for range 200 {
		dial(t, path)
	}
	half := dial(t, path)
	half.send(`[{"toNode":"ship1"`)
	slow := dial(t, path)
	slow.send(`[{"toNode":"slow","method":"REQPing"}]`)
	<-stuck
	deaf := dial(t, path) // never reads its answers
	deaf.send(strings.Repeat("[]", 10_000))

	c := dial(t, path)
	for i := range 100 {
		c.send(ping)
		c.wantAccepted(i + 1)
	}
	close(release)
	slow.wantAccepted(101)
	half.send(`,"method":"REQPing"}]`)
	half.wantAccepted(102)
}

func TestManyClientsAtOnce(t *testing.T) {
	s := &store{}
	path, _ := open(t, options(s))
	var all sync.WaitGroup
	const clients, arrays = 20, 50
	for range clients {
		c := dial(t, path)
		all.Go(func() {
			text := []byte(strings.Repeat(ping+" ", arrays))
			for part := range bytesChunks(text, 97) {
				if _, err := c.Write(part); err != nil {
					t.Error(err)
				}
			}
			_ = c.CloseWrite()
			got, err := io.ReadAll(c)
			if n := bytes.Count(got, []byte(`{"accepted":["`)); err != nil || n != arrays {
				t.Errorf("%d answers, %v", n, err)
			}
		})
	}
	all.Wait()
	if s.count() != clients*arrays {
		t.Errorf("%d messages taken", s.count())
	}
}

func bytesChunks(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}
