package methods_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// bench is a node that runs methods.
type bench struct {
	process.Env
	dir            string
	stdout, stderr bytes.Buffer

	mu      sync.Mutex
	emitted [][]byte
	count   uint32
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "st") // short: the paths of sockets are
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close(); _ = os.RemoveAll(dir) })
	b := &bench{dir: dir}
	b.Env = process.Env{Self: "ship1", Central: "central", Files: root, Stdout: &b.stdout, Stderr: &b.stderr}
	return b
}

func (b *bench) call(m message.Message) *process.Call {
	b.count++
	if m.From == "" {
		m.From = "central"
	}
	m.Accepted = time.UnixMilli(1_700_000_000_000)
	if m.ID.IsZero() {
		m.ID = message.NewID(m.Accepted, b.count, 1)
	}
	return &process.Call{
		Env: &b.Env, Message: &m, Attempt: 1, Log: slog.New(slog.DiscardHandler),
		Emit: func(_ context.Context, body []byte) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.emitted = append(b.emitted, body)
			return nil
		},
	}
}

// reply makes m a reply, the last part of it unless more.
func reply(m message.Message, part uint32, more bool) message.Message {
	m.InReplyTo = message.NewID(time.UnixMilli(1_600_000_000_000), 7, 7)
	m.RequestMethod = "REQCliCommand"
	m.Part = part
	if !more {
		m.Result = &message.Result{Code: message.CodeDone}
	}
	return m
}

func (b *bench) run(t testing.TB, name message.Method, m message.Message) (process.Outcome, error) {
	t.Helper()
	m.Method = name
	return spec(t, name).Run(t.Context(), b.call(m))
}

func (b *bench) read(t testing.TB, name string) string {
	t.Helper()
	got, err := b.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}
