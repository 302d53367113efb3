// Package sdnotify tells systemd, or whoever else has started the program and speaks its protocol
// (sd_notify(3)), how it is: datagrams with a few lines to a unix socket that the environment names.
//
// It holds nothing, and a [Manager] may be used by many goroutines at a time.
package sdnotify

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Manager is who wants to know. A nil one wants to know nothing.
type Manager struct {
	addr     *net.UnixAddr
	watchdog time.Duration
}

// FromEnv returns the manager that an environment names, nil for none. pid is that of this process: a
// watchdog is for the process that it names.
func FromEnv(env []string, pid int) (*Manager, error) {
	vars := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	path := vars["NOTIFY_SOCKET"]
	switch {
	case path == "":
		return nil, nil
	case path[0] != '/' && path[0] != '@': // for net, too, @ begins the name of an abstract socket
		return nil, fmt.Errorf("NOTIFY_SOCKET: %q is no path of a socket", path)
	}
	m := &Manager{addr: &net.UnixAddr{Net: "unixgram", Name: path}}
	usec, who := vars["WATCHDOG_USEC"], vars["WATCHDOG_PID"]
	if usec == "" || who != "" && who != strconv.Itoa(pid) {
		return m, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
		return m, fmt.Errorf("WATCHDOG_USEC: %q is no number of microseconds", usec)
	}
	m.watchdog = time.Duration(n) * time.Microsecond
	return m, nil
}

// Watchdog is how long the manager waits for a sign of life before it takes the program for dead; 0 for
// ever.
func (m *Manager) Watchdog() time.Duration {
	if m == nil {
		return 0
	}
	return m.watchdog
}

// Ready says that the start, or a reload, is over.
func (m *Manager) Ready() error { return m.tell("READY=1") }

// Status says in a line for people how it is.
func (m *Manager) Status(text string) error {
	return m.tell("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// Reloading says that settings are read again; Ready that this is over.
func (m *Manager) Reloading() error {
	lines := []string{"RELOADING=1"}
	if now := monotonic(); now > 0 {
		lines = append(lines, fmt.Sprintf("MONOTONIC_USEC=%d", now.Microseconds()))
	}
	return m.tell(lines...)
}

// Stopping says that the stop has begun.
func (m *Manager) Stopping() error { return m.tell("STOPPING=1") }

// Alive is the sign of life for the watchdog.
func (m *Manager) Alive() error { return m.tell("WATCHDOG=1") }

func (m *Manager) tell(lines ...string) error {
	if m == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, m.addr)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
