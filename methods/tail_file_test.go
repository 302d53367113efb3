//go:build unix

package methods_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// tailCall is a call of REQTailFile; what it emits comes on the channel.
func tailCall(t *testing.T, m message.Message) (*process.Call, <-chan string) {
	t.Helper()
	c := newBench(t).call(m)
	emitted := make(chan string, 100)
	c.EmitNoting = func(_ context.Context, body, note []byte) error {
		if len(note) == 0 {
			t.Error("no note")
		}
		emitted <- string(body)
		return nil
	}
	return c, emitted
}

func TestTailEndsWellAtItsTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c, emitted := tailCall(t, message.Message{Data: []string{path}})
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		<-emitted // it has begun
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("new\nopen")
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
	}()
	o, err := spec(t, "REQTailFile").Run(ctx, c)
	<-over
	if err != nil || o.Exit != -1 || len(o.Body) != 0 || ctx.Err() == nil {
		t.Errorf("got %+v, %v", o, err)
	}
	got := ""
	for len(emitted) > 0 {
		got += <-emitted
	}
	if got != "new\nopen\n" {
		t.Errorf("got %q", got)
	}
}

func TestTailStopsWithItsNode(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, _ := tailCall(t, message.Message{Data: []string{filepath.Join(t.TempDir(), "none")}})
	cancel()
	if _, err := spec(t, "REQTailFile").Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestTailOfWhatIsNoFileFailsAtOnce(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		data []string
		want string
	}{
		"nothing": {nil, "no file"},
		"empty":   {[]string{""}, "no file"},
		"folder":  {[]string{dir}, "there is a folder and no file"},
		"pipe":    {[]string{pipe}, "there is a named pipe and no file"},
		"below":   {[]string{file + "/x"}, "not a directory"},
		"NUL":     {[]string{"a\x00b"}, "invalid argument"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := tailCall(t, message.Message{Data: tc.data})
			if _, err := spec(t, "REQTailFile").Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTailTellsAtItsEndWhatWasWrongWithItsFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	c, emitted := tailCall(t, message.Message{Data: []string{path}})
	over := make(chan struct{})
	go func() {
		defer close(over)
		<-emitted
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Error(err)
		}
	}()
	_, err := spec(t, "REQTailFile").Run(ctx, c)
	<-over
	if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "there is a folder") {
		t.Errorf("got %v", err)
	}
}

// A path with a slip in it is not told apart from a file that is still to come before the end, which says so.
// A file that was there once makes a good end, also when it is gone, and the node was down since.
func TestTailOfAFileThatNeverWasThereFailsAtItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.log")
	tail := func(noted []byte) (note []byte, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		c := newBench(t).call(message.Message{Data: []string{path}})
		c.Noted, note = noted, noted
		c.EmitNoting = func(_ context.Context, _, n []byte) error {
			note = n
			return nil
		}
		_, err = spec(t, "REQTailFile").Run(ctx, c)
		return note, err
	}
	note, err := tail(nil)
	if err == nil || !strings.Contains(err.Error(), "the file was never there") {
		t.Errorf("got %v", err)
	}
	if _, err := tail(note); err == nil || !strings.Contains(err.Error(), "the file was never there") {
		t.Errorf("after a restart: %v", err)
	}
	if err := os.WriteFile(path, []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if note, err = tail(note); err != nil {
		t.Errorf("when it has come: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// The file that was read is not found again, and is forgotten.
	for range 2 {
		if note, err = tail(note); err != nil {
			t.Errorf("when it is gone: %v", err)
		}
	}
}

func TestTailStopsWhenItsLinesCannotBeStored(t *testing.T) {
	full := errors.New("disk failed")
	c, _ := tailCall(t, message.Message{Data: []string{filepath.Join(t.TempDir(), "none")}})
	c.EmitNoting = func(context.Context, []byte, []byte) error { return full }
	if _, err := spec(t, "REQTailFile").Run(t.Context(), c); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}
