package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steward/cmd/internal/audit"
	"steward/kvstore"
	"steward/message"
	"steward/message/wire"
)

// left makes a message that has left a ring buffer.
func left(t testing.TB, n int, size int) kvstore.Left {
	t.Helper()
	m := message.Message{ID: message.NewID(time.Now(), uint32(n), 1), ACKTimeout: time.Second, Data: []string{fmt.Sprint(n), strings.Repeat("x", size)}}
	raw, err := wire.EncodeMessage(&m)
	if err != nil {
		t.Fatal(err)
	}
	return kvstore.Left{Stream: kvstore.Stream{Peer: "ship1", Method: "REQPing"}, Message: raw,
		Settled: kvstore.Settled{ID: m.ID, Code: message.CodeDone, Attempts: 1, At: time.Now()}}
}

// open returns a log, and what it has reported.
func open(t testing.TB, path string, size int64, files int) (*audit.Log, *[]error) {
	t.Helper()
	reported := new([]error)
	l, err := audit.New(audit.Options{Path: path, Size: size, Files: files, Self: "central", Report: func(err error) { *reported = append(*reported, err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, reported
}

// numbers returns the first argument of each message in a file, in order.
func numbers(t *testing.T, path string) (all []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(b) {
		line, ok, err := audit.Parse(text)
		if !ok || err != nil {
			all = append(all, fmt.Sprintf("%.20q", text))
			continue
		}
		drafts, err := wire.NewDecoder(bytes.NewReader(line.Message), wire.Limits{}).Next()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, drafts[0].Data[0])
	}
	return all
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestRotationKeepsTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, reported := open(t, path, 1000, 3)
	for n := 1; n <= 5; n++ {
		l.Left([]kvstore.Left{left(t, n, 600)})
	}
	want(t, "log", numbers(t, path), "5")
	want(t, "log.1", numbers(t, path+".1"), "4")
	want(t, "log.2", numbers(t, path+".2"), "3")
	want(t, "log.3", numbers(t, path+".3"))
	if len(*reported) > 0 {
		t.Error(*reported)
	}

	single := filepath.Join(t.TempDir(), "audit.log")
	l, _ = open(t, single, 1000, 1)
	l.Left([]kvstore.Left{left(t, 1, 600)})
	l.Left([]kvstore.Left{left(t, 2, 600)})
	want(t, "log", numbers(t, single), "2")
	want(t, "log.1", numbers(t, single+".1"))
}

func TestALineThatWasCutOffIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, _ := open(t, path, 1<<20, 3)
	l.Left([]kvstore.Left{left(t, 1, 0), left(t, 2, 0)})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, fi.Size()-10); err != nil {
		t.Fatal(err)
	}
	again, _ := open(t, path, 1<<20, 3)
	again.Left([]kvstore.Left{left(t, 3, 0)})
	got := numbers(t, path)
	if len(got) != 3 || got[0] != "1" || got[2] != "3" {
		t.Errorf("%q", got)
	}
}

func TestALogThatCannotBeWrittenIsReportedAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "audit.log")
	l, reported := open(t, path, 1<<20, 3)
	l.Left([]kvstore.Left{left(t, 1, 0)})
	if len(*reported) != 1 || (*reported)[0] == nil {
		t.Fatalf("reported %v", *reported)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l.Left([]kvstore.Left{left(t, 2, 0)})
	want(t, "log", numbers(t, path), "2")
	if len(*reported) != 2 || (*reported)[1] != nil {
		t.Errorf("reported %v", *reported)
	}
}

func TestAMessageWithoutACKIsSentAndNotDelivered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, _ := open(t, path, 1<<20, 3)
	unacked := left(t, 2, 0)
	m, err := wire.DecodeMessage(unacked.Message)
	if err != nil {
		t.Fatal(err)
	}
	m.ACKTimeout = 0
	if unacked.Message, err = wire.EncodeMessage(m); err != nil {
		t.Fatal(err)
	}
	l.Left([]kvstore.Left{left(t, 1, 0), unacked})
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var ends []string
	for text := range bytes.Lines(b) {
		line, _, _ := audit.Parse(text)
		ends = append(ends, line.End)
	}
	want(t, "ends", ends, "delivered", "sent")
}

func TestOtherTextIsNoLine(t *testing.T) {
	for _, text := range []string{"", "[", "{}", `[{"toNode":"a","method":"REQPing"}]`, `{"toNode":"a","method":"REQPing"}`, `{"id":"06h15fbp6g000001x9tbjnpdm4","end":"done"}`} {
		if _, ok, err := audit.Parse([]byte(text)); ok || err != nil {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
	}
}
