//go:build !nobroker

package broker

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestConnectionsWithOneKeyAreLimited(t *testing.T) {
	key1, ship1 := user(t, "ship1")
	key2, ship2 := user(t, "ship2")
	ship3 := User{Node: "ship3", Keys: ship2.Keys} // a machine with two names
	r := newTold()
	s := start(t, Options{Self: "central", Access: &Access{Central: "central", Users: []User{ship1, ship2, ship3}}, Refused: r.refused})
	own := connectTo(t, "", s.Login(), nats.InProcessServer(s))
	var one, two []*raw
	for range 5 {
		one, two = append(one, connect(t, s, key1)), append(two, connect(t, s, key2))
	}
	limits := Limits{Token: 1, TokenFor: time.Hour, Node: 3, Young: time.Hour, Address: 100}
	look := func() {
		t.Helper()
		s.limited = limited{}
		if err := s.Limit(limits); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if all := r.all(); len(all) > 0 {
		t.Errorf("connections that may be gone in a moment: %q", all)
	}
	limits.Young = 0
	look()
	look() // once more changes nothing
	for _, c := range one[:2] {
		receive(t, c.closed)
	}
	for _, c := range append(append(one[2:], two...), own) {
		if err := c.Flush(); err != nil {
			t.Errorf("one that may stay: %v", err)
		}
	}
	if all := r.all(); len(all) != 1 || !strings.Contains(all[0], "more than 3 connections with the key of ship1, "+ship1.Keys[0]) {
		t.Errorf("told is %q", all)
	}
}

func TestStrangersAtOneAddressAreLimited(t *testing.T) {
	key1, ship1 := user(t, "ship1")
	r := newTold()
	s := start(t, Options{Self: "central", Access: &Access{Central: "central", Users: []User{ship1}}, Refused: r.refused})
	node := connect(t, s, key1)
	var conns []net.Conn
	for range 6 {
		conn, _ := greet(t, s)
		defer conn.Close()
		conns = append(conns, conn)
	}
	if err := s.Limit(Limits{Token: 1, TokenFor: time.Hour, Node: 4, Address: 4}); err != nil {
		t.Fatal(err)
	}
	for i, conn := range conns {
		_, _ = fmt.Fprint(conn, "CONNECT {}\r\n") // who was cut off gets no answer any more
		answered := make([]byte, 1000)
		n, _ := conn.Read(answered)
		if got, want := strings.Contains(string(answered[:n]), "Authorization Violation"), i >= 2; got != want {
			t.Errorf("connection %d is answered: %v, %q", i, got, answered[:n])
		}
	}
	if err := node.Flush(); err != nil {
		t.Errorf("who has logged in: %v", err)
	}
	if all := r.all(); len(all) == 0 || !strings.Contains(all[0], "more than 4 connections from 127.0.0.1 that have not logged in") {
		t.Errorf("told is %q", all)
	}
}

// Who does not log in is not waited for.
func TestWhoDoesNotLogInIsCutOff(t *testing.T) {
	_, ship1 := user(t, "ship1")
	s := start(t, Options{Self: "central", Access: &Access{Central: "central", Users: []User{ship1}}, authTimeout: 0.1})
	_, in := greet(t, s)
	if got := errorLine(t, in); !strings.Contains(got, "Authentication Timeout") {
		t.Errorf("got %q", got)
	}
	for in.Scan() { // until it is closed
	}
}
