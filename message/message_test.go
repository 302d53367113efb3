package message_test

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steward/message"
)

func TestFileIsDirectoryThenNodeThenName(t *testing.T) {
	reply := message.ID{1}
	tests := []struct {
		m    message.Message
		want string // empty: refused
	}{
		{message.Message{From: "ship1", Method: "REQCliCommand"}, "ship1/REQCliCommand.log"},
		{message.Message{From: "ship1", Method: "REQToFileAppend", RequestMethod: "REQCliCommand", InReplyTo: reply}, "ship1/REQCliCommand.log"},
		{message.Message{From: "ship1", Directory: "a/b", FileName: "c.txt"}, "a/b/ship1/c.txt"},
		{message.Message{From: "ww.ship1", Directory: "/a", FileName: "c"}, "a/ww.ship1/c"},
		{message.Message{From: "ship1", Directory: "//a//b/", FileName: "c"}, "a/b/ship1/c"},
		{message.Message{From: "ship1", Directory: "a/../b", FileName: "c"}, "b/ship1/c"},
		{message.Message{From: "ship1", Directory: "./a/.", FileName: "..c"}, "a/ship1/..c"},
		{message.Message{From: "ship1", Directory: "a b/é", FileName: "c d"}, "a b/é/ship1/c d"},

		{message.Message{From: "ship1", Directory: "..", FileName: "c"}, ""},
		{message.Message{From: "ship1", Directory: "../../x", FileName: "c"}, ""},
		{message.Message{From: "ship1", Directory: "a/../../b", FileName: "c"}, ""},
		{message.Message{From: "ship1", Directory: "/../etc", FileName: "c"}, ""},
		{message.Message{From: "ship1", Directory: `..\x`, FileName: "c"}, ""},
		{message.Message{From: "ship1", Directory: `a\..\..\x`, FileName: "c"}, ""},
		{message.Message{From: "ship1", Directory: "a\x00b", FileName: "c"}, ""},
		{message.Message{From: "ship1", FileName: "../../x"}, ""},
		{message.Message{From: "ship1", FileName: "/etc/passwd"}, ""},
		{message.Message{From: "ship1", FileName: `..\x`}, ""},
		{message.Message{From: "ship1", FileName: ".."}, ""},
		{message.Message{From: "ship1", FileName: "."}, ""},
		{message.Message{From: "ship1", FileName: "a\x00"}, ""},
		{message.Message{From: "ship1", RequestMethod: "../../x", InReplyTo: reply}, ""},
		{message.Message{From: "..", FileName: "c"}, ""},
		{message.Message{From: "../../root", FileName: "c"}, ""},
		{message.Message{From: "", FileName: "c"}, ""},
	}
	for _, tt := range tests {
		got, err := tt.m.File()
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q, %q from %q: %q, %v; want %q", tt.m.Directory, tt.m.FileName, tt.m.From, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%v does not wrap ErrInvalid", err)
		}
	}
}

func FuzzFileNeverLeavesTheDataFolder(f *testing.F) {
	for _, s := range [][3]string{{"../../x", "y", "n"}, {"/a", "b", "ship1"}, {`a\..\..`, "c", "n"}, {"a/../../b", "..", "n"}, {"", "", "."}, {"a/..", "x", "n"}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, dir, name, from string) {
		m := message.Message{From: message.Node(from), Method: "REQPing", Directory: dir, FileName: name}
		p, err := m.File()
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) || p != "" {
				t.Fatalf("%q, %v", p, err)
			}
			return
		}
		if !filepath.IsLocal(p) || path.Clean(p) != p || strings.ContainsRune(p, 0) {
			t.Fatalf("%q, %q from %q leaves: %q", dir, name, from, p)
		}
		// On a system with backslashes neither.
		depth := 0
		for part := range strings.SplitSeq(strings.ReplaceAll(p, `\`, "/"), "/") {
			switch part {
			case "", ".":
			case "..":
				depth--
			default:
				depth++
			}
			if depth < 0 {
				t.Fatalf("%q leaves", p)
			}
		}
	})
}

func TestExpiredOnlyAfterTheWholeTTL(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	m := message.Message{Accepted: at, TTL: time.Minute}
	for after, want := range map[time.Duration]bool{-time.Hour: false, 0: false, time.Minute: false, time.Minute + 1: true} {
		if got := m.Expired(at.Add(after)); got != want {
			t.Errorf("expired after %v: %t", after, got)
		}
	}
	if m.TTL = 0; m.Expired(at.Add(1e6 * time.Hour)) {
		t.Error("without a ttl it expires")
	}
}

func TestReplyPartsAndTheirEnd(t *testing.T) {
	request := message.Message{ReplyMethod: "REQToFile"}
	part := message.Message{InReplyTo: message.ID{1}, ReplyMethod: message.MethodNone}
	last := part
	last.Result = &message.Result{Code: message.CodeDone}
	if request.IsReply() || !request.Last() || !request.WantsReply() {
		t.Error("a request is taken for a reply")
	}
	if !part.IsReply() || part.Last() || part.WantsReply() || !last.Last() || !last.Result.OK() {
		t.Error("a part of a reply is taken for something else")
	}
	if (&message.Message{}).WantsReply() {
		t.Error("without a reply method no reply is wanted")
	}
}

func TestEveryCodeHasOneEnd(t *testing.T) {
	for code, want := range map[message.Code]message.State{
		message.CodeDone: message.StateDone, message.CodeExpired: message.StateExpired, message.CodeRemoved: message.StateRemoved,
		message.CodeFailed: message.StateFailed, message.CodeTimeout: message.StateFailed, message.CodeInterrupted: message.StateFailed,
		message.CodeInvalid: message.StateFailed, message.CodeDenied: message.StateFailed, message.CodeUnreachable: message.StateFailed,
		"": message.StateFailed, "of the future": message.StateFailed,
	} {
		if got := message.EndOf(code); got != want || !got.Final() {
			t.Errorf("%q ends as %s, want %s", code, got, want)
		}
	}
	for _, s := range []message.State{message.StateAccepted, message.StateDelivered, message.StateReceived} {
		if s.Final() {
			t.Errorf("%s is an end", s)
		}
	}
}

func TestScheduleKeepsItsBeat(t *testing.T) {
	first := time.UnixMilli(1_000_000)
	at := func(d time.Duration) time.Time { return first.Add(d) }
	for _, c := range []struct {
		s     message.Schedule
		ended time.Duration
		due   time.Duration
		more  bool
	}{
		{message.Schedule{Every: 2 * time.Second, For: 5 * time.Second}, 10 * time.Millisecond, 2 * time.Second, true},
		{message.Schedule{Every: 2 * time.Second, For: 5 * time.Second}, 2 * time.Second, 4 * time.Second, true},
		{message.Schedule{Every: 2 * time.Second, For: 5 * time.Second}, 3 * time.Second, 4 * time.Second, true},
		{message.Schedule{Every: 2 * time.Second, For: 5 * time.Second}, 4 * time.Second, 6 * time.Second, false},
		{message.Schedule{Every: 2 * time.Second, For: 4 * time.Second}, 3 * time.Second, 4 * time.Second, false},
		{message.Schedule{Every: 2 * time.Second, For: message.Forever}, time.Hour, time.Hour + 2*time.Second, true},
		// The clock was put back behind the first run.
		{message.Schedule{Every: 2 * time.Second, For: 5 * time.Second}, -time.Hour, 2 * time.Second, true},
	} {
		due, more := c.s.Next(first, at(c.ended))
		if !due.Equal(at(c.due)) || more != c.more {
			t.Errorf("%+v ended after %v: due after %v, %v", c.s, c.ended, due.Sub(first), more)
		}
	}
}

func TestScheduleCheck(t *testing.T) {
	for _, s := range []message.Schedule{{}, {Every: time.Millisecond, For: time.Hour}, {Every: 2 * time.Second, For: time.Second}, {Every: -1, For: -1}, {Every: time.Second}} {
		if err := s.Check(); !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, s := range []message.Schedule{{Every: time.Second, For: time.Second}, {Every: time.Second, For: message.Forever}} {
		if err := s.Check(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
