package methods_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"steward/message"
	"steward/process"
)

func TestPingIsAnsweredAndNoted(t *testing.T) {
	b := newBench(t)
	o, err := b.run(t, "REQPing", message.Message{Directory: "ping", FileName: "ping.log"})
	if err != nil || string(o.Body) != "pong from ship1\n" || o.Exit != -1 {
		t.Fatalf("got %+v, %v", o, err)
	}
	if got := b.read(t, "ping/central/ping.log"); !strings.HasPrefix(got, "2023-11-14T22:13:20.000Z ") || !strings.HasSuffix(got, " ping from central\n") {
		t.Errorf("noted %q", got)
	}
	if _, err := b.run(t, "REQPong", reply(message.Message{From: "ship2", Body: []byte("pong from ship2\n")}, 0, false)); err != nil {
		t.Fatal(err)
	}
	if got := b.read(t, "ship2/REQCliCommand.log"); !strings.HasSuffix(got, " pong from ship2\n") {
		t.Errorf("noted %q", got)
	}
}

func TestPingIsAnsweredWithoutADisk(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile(filepath.Join(b.dir, "central"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := b.run(t, "REQPing", message.Message{})
	if err != nil || string(o.Body) != "pong from ship1\n" {
		t.Errorf("got %q, %v", o.Body, err)
	}
	if _, err := b.run(t, "REQPong", message.Message{}); err == nil {
		t.Error("a pong that could not be noted is no success")
	}
}

func TestHelloAndErrorsAreOneLineEach(t *testing.T) {
	b := newBench(t)
	for range 2 {
		if _, err := b.run(t, message.MethodHello, message.Message{From: "ship2", Data: []string{"all", "well\nhello from ship3"}, Directory: "x", FileName: "y"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.read(t, "hello/ship2/hello.log"); strings.Count(got, "\n") != 2 || strings.Count(got, ` hello from ship2 all well\nhello from ship3`+"\n") != 2 {
		t.Errorf("noted %q", got)
	}
	s := spec(t, message.MethodErrorLog)
	c := b.call(message.Message{From: "ship2", Data: []string{"disk full", "panic:\n\tmain.go:1"}})
	if err := errors.Join(s.RunAll(t.Context(), []*process.Call{c})...); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.read(t, "errorLog/ship2/error.log"), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], " disk full") || !strings.HasSuffix(lines[1], ` panic:\n\tmain.go:1`) {
		t.Errorf("noted %q", lines)
	}
}

func TestLogsAreRotated(t *testing.T) {
	b := newBench(t)
	big := strings.Repeat("x", 3<<20)
	s := spec(t, message.MethodErrorLog)
	for range 30 {
		calls := []*process.Call{b.call(message.Message{Data: []string{big}})}
		if _, err := s.Mark(calls); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.RunAll(t.Context(), calls)...); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(b.dir, "errorLog", "central"))
	if err != nil || len(entries) != 6 {
		t.Fatalf("there are %v, %v", entries, err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Size() > 10<<20 || fi.Size() < 9<<20 {
			t.Errorf("%s has %d bytes, %v", e.Name(), fi.Size(), err)
		}
	}
}

func TestConsole(t *testing.T) {
	b := newBench(t)
	for _, m := range []message.Message{
		{Data: []string{"stderr", "is a word"}},
		reply(message.Message{Body: []byte("to stdout\x00")}, 0, false),
		reply(message.Message{Body: []byte("to stderr"), Data: []string{"stderr"}}, 0, false),
	} {
		if _, err := b.run(t, "REQToConsole", m); err != nil {
			t.Fatal(err)
		}
	}
	if b.stdout.String() != "stderr\nis a word\nto stdout\x00" || b.stderr.String() != "to stderr" {
		t.Errorf("stdout %q, stderr %q", &b.stdout, &b.stderr)
	}
}

func TestNoneDoesNothing(t *testing.T) {
	b := newBench(t)
	o, err := b.run(t, message.MethodNone, message.Message{Data: []string{"x"}, Body: []byte("y")})
	if err != nil || len(o.Body) != 0 || o.Exit != -1 {
		t.Errorf("got %+v, %v", o, err)
	}
	if entries, err := os.ReadDir(b.dir); err != nil || len(entries) != 0 {
		t.Errorf("wrote %v, %v", entries, err)
	}
}
