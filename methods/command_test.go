//go:build unix

package methods_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"steward/message"
	"steward/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCommandResult(t *testing.T) {
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	for name, tc := range map[string]struct {
		data   []string
		body   string
		stderr string
		exit   int
		signal string
		err    string // a part of it; empty for none
	}{
		"output":          {data: sh("echo hello"), body: "hello\n"},
		"no shell":        {data: []string{"echo", "$HOME", "a  b", "*", ";ls"}, body: "$HOME a  b * ;ls\n"},
		"bytes as is":     {data: sh(`printf 'a\000\377\r\nb'`), body: "a\x00\xff\r\nb"},
		"nothing":         {data: []string{"true"}},
		"exit":            {data: sh("echo out; echo bad >&2; exit 3"), body: "out\n", stderr: "bad\n", exit: 3, err: "exit status 3"},
		"signal":          {data: sh("kill -9 $$"), exit: -1, signal: "SIGKILL", err: "SIGKILL"},
		"not found":       {data: []string{"no-such-command", "secret"}, exit: -1, err: `command "no-such-command" not found`},
		"no such path":    {data: []string{"/no/such/command"}, exit: -1, err: "not found"},
		"no command":      {data: nil, exit: -1, err: "no command"},
		"empty command":   {data: []string{""}, exit: -1, err: "no command"},
		"not executable":  {data: []string{"/etc/passwd"}, exit: -1, err: "may not be executed"},
		"NUL":             {data: []string{"echo", "a\x00b"}, exit: -1, err: "element 2 of data holds a NUL byte"},
		"too long":        {data: []string{"echo", strings.Repeat("x", 4<<20)}, exit: -1, err: "too long"},
		"stdin is empty":  {data: []string{"cat"}},
		"no placeholder":  {data: []string{"echo", "{{STEWARD_DATA}}"}, body: "{{STEWARD_DATA}}\n"},
		"background ends": {data: sh("(sleep 0.2; echo late) & echo early"), body: "early\nlate\n"},
		"only stderr held": {
			data: sh("(sleep 1.3; echo late >&2) >/dev/null & echo early"), body: "early\n", stderr: "late\n",
		},
		"closes its output": {data: sh("echo a; exec >&- 2>&-; exit 4"), body: "a\n", exit: 4, err: "exit status 4"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := newBench(t).run(t, "REQCliCommand", message.Message{Data: tc.data})
			if string(o.Body) != tc.body || string(o.Stderr) != tc.stderr || o.StderrSize != int64(len(tc.stderr)) {
				t.Errorf("stdout %q, stderr %q of %d bytes", o.Body, o.Stderr, o.StderrSize)
			}
			if o.Exit != tc.exit || o.Signal != tc.signal {
				t.Errorf("exit %d, signal %q", o.Exit, o.Signal)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) > 300) {
				t.Errorf("the error tells too much: %.400v", err)
			}
		})
	}
}

func TestCommandKnowsItsMessage(t *testing.T) {
	b := newBench(t)
	m := message.Message{Data: []string{"sh", "-c", "echo $STEWARD_NODE $STEWARD_FROM $STEWARD_MESSAGE_ID $STEWARD_ATTEMPT"}}
	c := b.call(m)
	c.Attempt = 2
	o, err := spec(t, "REQnCliCommand").Run(t.Context(), c)
	if want := fmt.Sprintf("ship1 central %s 2\n", c.Message.ID); err != nil || string(o.Body) != want {
		t.Errorf("got %q, %v, want %q", o.Body, err, want)
	}
}

func TestCommandOutputComesInPartsAndWhole(t *testing.T) {
	for _, size := range []int{0, 1, 4096, process.MaxPart - 1, process.MaxPart, process.MaxPart + 1, 2 * process.MaxPart, 5*process.MaxPart + 17} {
		b := newBench(t)
		o, err := b.run(t, "REQCliCommand", message.Message{Data: []string{"sh", "-c", fmt.Sprintf("yes 0123456789 | tr -d '\\n' | head -c %d", size)}})
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range b.emitted {
			if len(part) != process.MaxPart {
				t.Errorf("size %d: part %d has %d bytes", size, i, len(part))
			}
		}
		if len(o.Body) > process.MaxPart || size > 0 && len(o.Body) == 0 {
			t.Errorf("size %d: the last part has %d bytes", size, len(o.Body))
		}
		all := append(bytes.Join(b.emitted, nil), o.Body...)
		want := strings.Repeat("0123456789", size/10+1)[:size]
		if string(all) != want {
			t.Errorf("size %d: got %d bytes, or others", size, len(all))
		}
	}
}

func TestCommandStderrIsKeptInBoundsAndCounted(t *testing.T) {
	o, err := newBench(t).run(t, "REQCliCommand", message.Message{Data: []string{"sh", "-c", "yes | head -c 1000000 >&2"}})
	if err != nil || len(o.Stderr) != 64<<10 || o.StderrSize != 1000000 {
		t.Errorf("kept %d of %d, %v", len(o.Stderr), o.StderrSize, err)
	}
}

func TestCommandEndsWhenItsOutputCannotBeStored(t *testing.T) {
	full := errors.New("ring full")
	c := newBench(t).call(message.Message{Data: []string{"sh", "-c", "trap '' PIPE; yes; sleep 100"}})
	c.Emit = func(context.Context, []byte) error { return full }
	if _, err := spec(t, "REQCliCommand").Run(t.Context(), c); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// lifeline is a named pipe that the processes of a command hold open for writing.
func lifeline(t *testing.T, b *bench) (path string, gone func() bool) {
	t.Helper()
	path = filepath.Join(b.dir, "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return path, func() bool {
		// Every writer says a word first, so the end of the file is the end of all of them.
		if err := f.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		return err == nil && len(got) > 0
	}
}

func TestTimeoutLeavesNoProcessOfTheGroup(t *testing.T) {
	for name, tc := range map[string]struct{ script, body string }{
		"command":             {"echo up; exec sleep 100", "up\n"},
		"child":               {"echo up; sleep 100; true", "up\n"},
		"grandchildren":       {"echo up; sh -c 'sleep 100 & sleep 100 & wait' & wait", "up\n"},
		"seed":                {"sleep 100 & echo up", "up\n"},
		"output elsewhere":    {"sleep 100 >/dev/null 2>&1 & echo up; wait", "up\n"},
		"deaf to SIGTERM":     {"trap '' TERM; echo up; sleep 100", "up\n"},
		"deaf in background":  {"sh -c 'trap \"\" TERM; sleep 100' & echo up", "up\n"},
		"deaf, own output":    {"sh -c 'trap \"\" TERM; sleep 100' >/dev/null 2>&1 & echo up; wait", "up\n"},
		"a last word":         {"trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done", "up\nbye\n"},
		"silent and detached": {"exec >&- 2>&-; sleep 100", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			alive, gone := lifeline(t, b)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			c := b.call(message.Message{
				MethodTimeout: 300 * time.Millisecond,
				Data:          []string{"sh", "-c", "exec 9>" + alive + "; echo x >&9; " + tc.script},
			})
			o, err := spec(t, "REQCliCommand").Run(ctx, c)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "300ms") {
				t.Errorf("error %v", err)
			}
			if string(o.Body) != tc.body {
				t.Errorf("output %q", o.Body)
			}
			if !gone() {
				t.Error("a process of the group is left")
			}
		})
	}
}

func TestDaemonWithItsOutputElsewhereLivesOn(t *testing.T) {
	b := newBench(t)
	out := filepath.Join(b.dir, "daemon.out")
	stop := filepath.Join(b.dir, "stop")
	if err := syscall.Mkfifo(stop, 0o600); err != nil {
		t.Fatal(err)
	}
	alive, gone := lifeline(t, b)
	script := fmt.Sprintf("exec 9>%s; echo x >&9; { read word <%s; echo got $word; } >%s 2>&1 & echo started", alive, stop, out)
	o, err := b.run(t, "REQCliCommand", message.Message{Data: []string{"sh", "-c", script}})
	if err != nil || string(o.Body) != "started\n" {
		t.Fatalf("got %q, %v", o.Body, err)
	}
	if err := os.WriteFile(stop, []byte("word\n"), 0); err != nil {
		t.Fatal(err)
	}
	if !gone() {
		t.Fatal("the daemon did not end")
	}
	if got := b.read(t, "daemon.out"); got != "got word\n" {
		t.Errorf("the daemon wrote %q", got)
	}
}

func TestProcessOutsideOfTheGroupDoesNotHangTheCall(t *testing.T) {
	b := newBench(t)
	stop := filepath.Join(b.dir, "stop")
	if err := syscall.Mkfifo(stop, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	c := b.call(message.Message{Data: []string{"sh", "-c", "setsid sh -c 'read word <" + stop + "' 2>/dev/null & echo up"}})
	o, err := spec(t, "REQCliCommand").Run(ctx, c)
	if !errors.Is(err, context.DeadlineExceeded) || string(o.Body) != "up\n" || o.Exit != 0 {
		t.Errorf("got %q, exit %d, %v", o.Body, o.Exit, err)
	}
	if err := os.WriteFile(stop, []byte("word\n"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestStoppingNodeStopsCommand(t *testing.T) {
	b := newBench(t)
	alive, gone := lifeline(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	c := b.call(message.Message{Data: []string{"sh", "-c", "exec 9>" + alive + "; echo x >&9; yes"}})
	c.Emit = func(context.Context, []byte) error { cancel(); return nil }
	_, err := spec(t, "REQCliCommand").Run(ctx, c)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if !gone() {
		t.Error("a process of the group is left")
	}
	if _, err := spec(t, "REQCliCommand").Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("after the stop: %v", err)
	}
}

func TestCommandAsReplyMethodGetsTheOutput(t *testing.T) {
	for name, tc := range map[string]struct {
		data      []string
		body      string
		want, err string
	}{
		"argument":       {data: []string{"printf", "<%s>", "a {{STEWARD_DATA}} b {{STEWARD_DATA}}"}, body: "x\ny", want: "<a x\ny b x\ny>"},
		"stdin":          {data: []string{"cat"}, body: "x\x00\n", want: "x\x00\n"},
		"not run":        {data: []string{"echo", "{{STEWARD_DATA}}"}, body: "$(id); `id`", want: "$(id); `id`\n"},
		"not the name":   {data: []string{"{{STEWARD_DATA}}"}, body: "id", err: "not found"},
		"NUL":            {data: []string{"echo", "{{STEWARD_DATA}}"}, body: "x\x00", err: "stdin"},
		"too long":       {data: []string{"echo", "{{STEWARD_DATA}}"}, body: strings.Repeat("x", 200<<10), err: "stdin"},
		"stdin not read": {data: []string{"echo", "ok"}, body: strings.Repeat("x", 200<<10), want: "ok\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := newBench(t).run(t, "REQCliCommand", reply(message.Message{Data: tc.data, Body: []byte(tc.body)}, 0, false))
			if string(o.Body) != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %q, %v", o.Body, err)
			}
		})
	}
}

func TestCommandAsReplyMethodGetsAllPartsAtOnce(t *testing.T) {
	b := newBench(t)
	for i, body := range []string{"one ", "two ", "two ", "three"} {
		part := uint32([]int{0, 1, 1, 2}[i]) // the second one was run again after a crash
		data := []string{"sh", "-c", "cat; echo :$1", "sh", "{{STEWARD_DATA}}"}
		o, err := b.run(t, "REQCliCommand", reply(message.Message{Data: data, Body: []byte(body)}, part, i < 3))
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if i == 3 {
			want = "one two three:one two three\n"
		}
		if string(o.Body) != want {
			t.Errorf("part %d: %q", part, o.Body)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(b.dir, ".replies", "central")); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := b.run(t, "REQCliCommand", reply(message.Message{Data: []string{"cat"}}, 1, false)); err == nil {
		t.Error("ran with a part missing")
	}
	if _, err := b.run(t, "REQnCliCommand", reply(message.Message{Data: []string{"cat"}}, 0, true)); err == nil {
		t.Error("ran on one part of many")
	}
}
