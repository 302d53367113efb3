package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// manager is what a service manager hears of a node.
type manager struct {
	t    testing.TB
	conn *net.UnixConn
}

// newManager listens in a folder, and returns the environment by which a node knows it.
func newManager(t testing.TB, dir string) (*manager, []string) {
	t.Helper()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &manager{t, conn}, []string{"NOTIFY_SOCKET=" + path}
}

// next returns the next message, empty when there is none in that time.
func (m *manager) next(limit time.Duration) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.conn.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// want reads the messages that have to come, in that order and with nothing but statuses and signs of life between
// them. Each is the begin of one.
func (m *manager) want(messages ...string) {
	m.t.Helper()
	for _, want := range messages {
		for {
			got := m.next(time.Minute)
			if strings.HasPrefix(got, want) {
				break
			}
			if !strings.HasPrefix(got, "STATUS=") && got != "WATCHDOG=1" {
				m.t.Fatalf("%q, want %q", got, want)
			}
		}
	}
}

func TestServiceManagerHearsHowTheNodeIs(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	m, env := newManager(t, dir)
	broker, err := new(ports).free()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "steward", "-brokerAddress="+broker)
	cmd.Dir, cmd.Env = dir, append(cmd.Env, env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A node whose broker is away is ready.
	m.want("READY=1", "STATUS=no link to the broker, ")
	if err := command(t, "broker", broker).Start(); err != nil {
		t.Fatal(err)
	}
	m.want("STATUS=linked to the broker, ")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.want("RELOADING=1\nMONOTONIC_USEC=", "READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.want("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := m.next(time.Millisecond); got != "" {
		t.Errorf("%q after the end", got)
	}
}

// A node gives signs of life until its store does not answer any more, and again when it does.
func TestWatchdogHearsNothingWhileTheStoreIsStuck(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	m, env := newManager(t, dir)
	disk := newSyncs(t)
	cmd := command(t, "steward", "-brokerAddress=127.0.0.1:1")
	cmd.Dir, cmd.Env = dir, append(cmd.Env, append(env, "WATCHDOG_USEC=100000")...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	started := disk.around(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started()

	m.want("READY=1", "WATCHDOG=1")
	stuck, release := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	hold := sync.OnceFunc(func() { close(stuck) })
	disk.set(func(path string) bool {
		if strings.HasPrefix(path, filepath.Join(dir, "lib")) {
			hold()
			<-release
		}
		return false
	})
	conn, err := net.Dial("unix", filepath.Join(dir, "tmp", "steward.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(`[{"toNode": "ship1", "method": "REQPing"}]`)); err != nil {
		t.Fatal(err)
	}
	<-stuck // with that, or with what the watchdog has asked before
	// What was said before comes before this.
	own, err := net.Dial("unixgram", m.conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Write([]byte("marked")); err != nil {
		t.Fatal(err)
	}
	m.want("marked")
	signs := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if m.next(time.Until(end)) == "WATCHDOG=1" {
			signs++
		}
	}
	if signs > 1 { // one may have been on its way
		t.Errorf("%d signs of life of a node whose store is stuck", signs)
	}
	free()
	m.want("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.want("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
