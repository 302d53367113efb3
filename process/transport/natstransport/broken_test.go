package natstransport

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"steward/errorkernel"
	"steward/process"
)

// fake is a broker that does what serve says with each connection, counted from 0.
func fake(t *testing.T, serve func(i int, conn net.Conn, in *bufio.Scanner)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(i, conn, bufio.NewScanner(conn))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().String()
}

const info = `INFO {"server_id":"x","version":"2.15.0","max_payload":1048576,"headers":true,"proto":1}` + "\r\n"

// greet lets a client in, and answers its pings until there were n of them.
func greet(conn net.Conn, in *bufio.Scanner, n int) {
	fmt.Fprint(conn, info)
	for n > 0 && in.Scan() {
		if strings.HasPrefix(in.Text(), "PING") {
			fmt.Fprint(conn, "PONG\r\n")
			n--
		}
	}
}

func TestSilentBrokerHoldsNobodyUp(t *testing.T) {
	connected := make(chan struct{}, 100)
	addr := fake(t, func(_ int, conn net.Conn, in *bufio.Scanner) {
		connected <- struct{}{}
		in.Scan() // nothing is ever said
	})
	tr, err := Open(Options{Servers: []string{addr}, ConnectTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, connected)
	if err := tr.Publish("a.x", "", nil); err != process.ErrOffline {
		t.Errorf("got %v, want ErrOffline", err)
	}
	sub, err := tr.Subscribe("a.x", func(process.Delivery) {})
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestBrokerThatSaysNothingIsGivenUp(t *testing.T) {
	second := make(chan struct{}, 100)
	addr := fake(t, func(i int, conn net.Conn, in *bufio.Scanner) {
		if i > 0 {
			second <- struct{}{}
		}
		in.Scan()
	})
	open(t, Options{Servers: []string{addr}, ConnectTimeout: 10 * time.Millisecond})
	receive(t, second)
}

func TestNoErrorLineEndsTheTransport(t *testing.T) {
	for _, line := range []string{
		"-ERR 'Something New'",
		"-ERR 'Maximum Control Line Exceeded'",
		"-ERR 'Maximum Payload Violation'",
		"-ERR 'Stale Connection'",
		"-ERR 'User Authentication Expired'",
		"-ERR 'Authorization Violation'",
		"-ERR",
		"no protocol at all",
		"MSG a.x 1 many",
		"HMSG a.x 1 5 3\r\nabcde",
	} {
		t.Run(line, func(t *testing.T) {
			subscribed := make(chan int, 1000)
			addr := fake(t, func(i int, conn net.Conn, in *bufio.Scanner) {
				fmt.Fprint(conn, info)
				pings := 0
				for in.Scan() {
					switch {
					case strings.HasPrefix(in.Text(), "PING"):
						fmt.Fprint(conn, "PONG\r\n")
						// The first ping belongs to the greeting, the second one says that
						// all subscriptions are in force.
						if pings++; pings == 2 && i < 3 {
							fmt.Fprint(conn, line+"\r\n")
							if !strings.HasPrefix(line, "-ERR 'S") {
								return
							}
						}
					case strings.HasPrefix(in.Text(), "SUB a.x"):
						subscribed <- i
					}
				}
			})
			tr := open(t, Options{Servers: []string{addr}, ConnectTimeout: 5 * time.Second})
			if _, err := tr.Subscribe("a.x", func(process.Delivery) {}); err != nil {
				t.Fatal(err)
			}
			for receive(t, subscribed) < 3 {
			}
			waitState(t, tr, true)
		})
	}
}

func TestErrorDuringTheGreetingIsReported(t *testing.T) {
	addr := fake(t, func(i int, conn net.Conn, in *bufio.Scanner) {
		if i < 2 {
			fmt.Fprint(conn, "-ERR 'maximum connections exceeded'\r\n")
			return
		}
		greet(conn, in, 100)
	})
	report := make(events, 10)
	tr := open(t, Options{Servers: []string{addr}, Report: report})
	if ev := receive(t, report); ev.Class != errorkernel.LinkFailed {
		t.Errorf("got %+v", ev)
	}
	waitState(t, tr, true)
}

func TestLinkIsUpOnlyAfterSubscriptionsAreInForce(t *testing.T) {
	answer, lines := make(chan struct{}), make(chan string, 100)
	addr := fake(t, func(_ int, conn net.Conn, in *bufio.Scanner) {
		greet(conn, in, 1)
		for in.Scan() {
			lines <- in.Text()
			if strings.HasPrefix(in.Text(), "PUB") { // a ping was read before it, or waits behind it
				<-answer
				fmt.Fprint(conn, "PONG\r\n")
			}
		}
	})
	tr := open(t, Options{Servers: []string{addr}})
	if _, err := tr.Subscribe("a.x", func(process.Delivery) {}); err != nil {
		t.Fatal(err)
	}
	for open, changed := tr.Opened(); !open; open, changed = tr.Opened() {
		if err := tr.Publish("b.x", "", nil); err != nil && err != process.ErrOffline {
			t.Errorf("got %v, want ErrOffline", err)
		}
		receive(t, changed)
	}
	if err := tr.Publish("b.x", "", nil); err != nil {
		t.Errorf("not published on an open link: %v", err)
	}
	if first := receive(t, lines); !strings.HasPrefix(first, "SUB a.x") {
		t.Errorf("the broker got %q first", first)
	}
	for !strings.HasPrefix(receive(t, lines), "PUB") {
	}
	if up, _ := tr.State(); up {
		t.Error("up before the broker has taken the subscriptions")
	}
	close(answer)
	waitState(t, tr, true)
}

func TestSubscriptionDuringConnectIsInForceWhenUp(t *testing.T) {
	pinged := make(chan chan struct{})
	lines := make(chan string, 100)
	addr := fake(t, func(_ int, conn net.Conn, in *bufio.Scanner) {
		greet(conn, in, 1)
		for in.Scan() {
			lines <- in.Text()
			if strings.HasPrefix(in.Text(), "PING") {
				answer := make(chan struct{})
				select {
				case pinged <- answer:
					<-answer
				case <-time.After(limit):
					return
				}
				fmt.Fprint(conn, "PONG\r\n")
			}
		}
	})
	tr := open(t, Options{Servers: []string{addr}})
	answer := receive(t, pinged)
	if _, err := tr.Subscribe("a.x", func(process.Delivery) {}); err != nil {
		t.Fatal(err)
	}
	close(answer)
	answer = receive(t, pinged)
	if up, _ := tr.State(); up {
		t.Error("up before the broker has taken the second subscription")
	}
	close(answer)
	waitState(t, tr, true)
	if first, second := receive(t, lines), receive(t, lines); first != "PING" || !strings.HasPrefix(second, "SUB a.x") {
		t.Errorf("the broker got %q, %q", first, second)
	}
}

func TestDeadLinkIsNoticed(t *testing.T) {
	addr := fake(t, func(i int, conn net.Conn, in *bufio.Scanner) {
		greet(conn, in, 2)
		for in.Scan() { // pings are read and not answered
		}
	})
	log := newLogs()
	tr := open(t, Options{Servers: []string{addr}, PingInterval: 20 * time.Millisecond, Log: log.logger()})
	waitState(t, tr, true)
	waitState(t, tr, false)
	log.wait(t, "WARN", "stale connection", 1)
}

func TestStalledLinkHoldsAPublisherUpForItsTimeoutOnly(t *testing.T) {
	stop := make(chan struct{})
	addr := fake(t, func(i int, conn net.Conn, in *bufio.Scanner) {
		greet(conn, in, 2)
		<-stop // nothing is read any more
	})
	defer close(stop)
	tr := open(t, Options{Servers: []string{addr}, WriteTimeout: 20 * time.Millisecond})
	waitState(t, tr, true)
	frame := make([]byte, 1<<20)
	began := time.Now()
	for tr.Publish("a.x", "", frame) == nil {
		if time.Since(began) > limit {
			t.Fatal("a link that takes nothing is never given up")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
}
