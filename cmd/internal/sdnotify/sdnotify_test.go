package sdnotify_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"steward/cmd/internal/sdnotify"
)

// listen returns a socket as systemd has it, and what reads one message from it.
func listen(t *testing.T, name string) (read func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func path(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "notify")
}

func TestManagerIsTold(t *testing.T) {
	names := []string{path(t)}
	if runtime.GOOS == "linux" {
		names = append(names, "@"+path(t)) // abstract
	}
	for _, name := range names {
		read := listen(t, name)
		m, err := sdnotify.FromEnv([]string{"A=B", "NOTIFY_SOCKET=" + name}, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			tell func() error
			want string
		}{
			{m.Ready, "READY=1"},
			{m.Stopping, "STOPPING=1"},
			{m.Alive, "WATCHDOG=1"},
			{func() error { return m.Status("in\none line") }, "STATUS=in one line"},
		} {
			if err := step.tell(); err != nil {
				t.Fatal(err)
			}
			if got := read(); got != step.want {
				t.Errorf("%q, want %q", got, step.want)
			}
		}
		if err := m.Reloading(); err != nil {
			t.Fatal(err)
		}
		got := read()
		if lines := strings.Split(got, "\n"); lines[0] != "RELOADING=1" || runtime.GOOS == "linux" && (len(lines) != 2 || !strings.HasPrefix(lines[1], "MONOTONIC_USEC=")) {
			t.Errorf("%q", got)
		}
	}
}

func TestNobodyIsToldWithoutASocket(t *testing.T) {
	m, err := sdnotify.FromEnv([]string{"WATCHDOG_USEC=1000000"}, 1)
	if m != nil || err != nil {
		t.Fatalf("%v, %v", m, err)
	}
	for _, tell := range []func() error{m.Ready, m.Reloading, m.Stopping, m.Alive, func() error { return m.Status("here") }} {
		if err := tell(); err != nil {
			t.Error(err)
		}
	}
	if m.Watchdog() != 0 {
		t.Error(m.Watchdog())
	}
}

func TestWatchdogIsForTheProcessThatIsNamed(t *testing.T) {
	for _, c := range []struct {
		env  string
		want time.Duration
		bad  bool
	}{
		{"", 0, false},
		{"WATCHDOG_USEC=1500000", 1500 * time.Millisecond, false},
		{"WATCHDOG_USEC=1500000 WATCHDOG_PID=7", 1500 * time.Millisecond, false},
		{"WATCHDOG_USEC=1500000 WATCHDOG_PID=8", 0, false},
		{"WATCHDOG_USEC=soon", 0, true},
		{"WATCHDOG_USEC=0", 0, true},
		{"WATCHDOG_USEC=9223372036854775807", 0, true},
	} {
		m, err := sdnotify.FromEnv(append(strings.Fields(c.env), "NOTIFY_SOCKET=/run/notify"), 7)
		if (err != nil) != c.bad || m.Watchdog() != c.want {
			t.Errorf("%s: %v, %v", c.env, m.Watchdog(), err)
		}
	}
	if m, err := sdnotify.FromEnv([]string{"NOTIFY_SOCKET=vsock:2:1"}, 7); m != nil || err == nil {
		t.Errorf("%v, %v", m, err)
	}
}

func TestManagerThatDoesNotListenIsAnError(t *testing.T) {
	m, err := sdnotify.FromEnv([]string{"NOTIFY_SOCKET=" + path(t)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Ready(); err == nil {
		t.Error("told nobody, and no error")
	}
}
