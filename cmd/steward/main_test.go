package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"steward/process/transport/broker"
)

// TestMain makes the test binary some programs more, which scripts and Go tests run as
// processes of their own: the real steward, a nats-server, netcat, and what there is on this system only.
func TestMain(m *testing.M) {
	// Scripts wait more than they work, so more of them run at once than there are cores.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	// Otherwise the race detector makes every program wait for a second at its end.
	if os.Getenv("GORACE") == "" {
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
			panic(err)
		}
	}
	programs := map[string]func(){"steward": main, "broker": brokerMain, "nc": ncMain}
	maps.Copy(programs, systemPrograms)
	testscript.Main(m, programs)
}

// nodeEnv keeps nodes of different tests from meeting: no metrics on a fixed port, and a
// quick way back to a broker that was away.
var nodeEnv = []string{
	"STEWARD_PROM_HOST_AND_PORT=",
	"STEWARD_RECONNECT_WAIT=1",
	"STEWARD_RECONNECT_JITTER=0",
}

// command returns one of the programs of this test binary ("steward", "broker", "nc"), ready
// to be started as a real process. What still runs when the test ends is killed; do not
// leave a Wait running in another goroutine then.
func command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), nodeEnv...)
	cmd.WaitDelay = 5 * time.Second // for a grandchild that holds the output
	t.Cleanup(func() {
		if cmd.Process == nil || cmd.ProcessState != nil {
			return
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// shortDir returns a new folder with a name that leaves room for the path of a unix socket,
// which ends at about 100 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	parent := os.TempDir()
	if len(parent) > 20 {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// brokerMain is "broker HOST:PORT [CONFIG]": a nats-server that prints its URL when clients can
// connect, and serves until it is killed or asked to end.
func brokerMain() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fail(errors.New("usage: broker HOST:PORT [CONFIG]"))
	}
	s, err := broker.Start(broker.Options{Addr: os.Args[1], ConfigFile: strings.Join(os.Args[2:], "")})
	if err != nil {
		fail(err)
	}
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	s.Shutdown()
}

// ncMain is "nc [-N] -U PATH" or "nc [-N] HOST PORT". As Debian's does, it goes on reading when its stdin has ended,
// until the other side closes; with -N it tells the other side that nothing more comes.
func ncMain() {
	flags := flag.NewFlagSet("nc", flag.ExitOnError)
	half := flags.Bool("N", false, "close the connection for writing at the end of stdin")
	unix := flags.Bool("U", false, "connect to a unix socket")
	_ = flags.Parse(os.Args[1:]) // exits when it fails
	network, addr := "unix", flags.Arg(0)
	switch {
	case *unix && flags.NArg() == 1:
	case !*unix && flags.NArg() == 2:
		network, addr = "tcp", net.JoinHostPort(flags.Arg(0), flags.Arg(1))
	default:
		fail(errors.New("usage: nc [-N] -U PATH, or nc [-N] HOST PORT"))
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		fail(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := io.Copy(os.Stdout, conn)
		answered <- err
	}()
	_, _ = io.Copy(conn, os.Stdin) // what comes back says what the other side thinks of it
	if *half {
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	if err := <-answered; err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
