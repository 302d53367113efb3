package node

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"steward/message"
)

// told waits for a line in central's error log that a node has sent.
func (n *Node) told(t *testing.T, from string, texts ...string) {
	t.Helper()
	path := filepath.Join(n.files.Name(), "errorLog", from, "error.log")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(2 * time.Minute)
	for {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			all := true
			for _, want := range texts {
				all = all && strings.Contains(line, want)
			}
			if all {
				return
			}
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("no line with %q in %s:\n%s", texts, path, text)
		}
	}
}

func TestCentralIsToldWhatTheBrokerCutsOff(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0")
	conn, err := net.Dial("tcp", strings.TrimPrefix(central.BrokerURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nPUB central.REQPing.EventACK 16777216\r\n"); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(conn); in.Scan(); { // until it is closed
	}
	central.told(t, "central", "class=refused", "maximum payload exceeded: 16777216 vs")
}

func TestCentralIsToldOfClaimsThatMakeNoSense(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0")
	ship1 := run(t, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL())
	for up, changed := ship1.Link(); !up; up, changed = ship1.Link() { // before it hears nothing
		<-changed
	}
	nc, err := nats.Connect(central.BrokerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish("ship1.NAME", []byte("this is no claim")); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	central.told(t, "ship1", "class=refused", "a claim to the name of this node, ship1, is not understood")
}

func TestCentralIsToldOfASenderOverItsQuota(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0", "-senderMessagesPerSecond=1")
	ship1 := run(t, "-nodeName=ship1", "-brokerAddress="+central.BrokerURL())
	msgs := make([]message.Message, 30)
	for i := range msgs {
		msgs[i] = message.Message{To: "central", Method: "REQToFileAppend", Data: []string{"x"}, FileName: "log", ReplyMethod: message.MethodNone,
			ACKTimeout: 5 * time.Second, MethodTimeout: 5 * time.Second}
	}
	if _, err := ship1.router.Accept(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	central.want(t, `steward_senders_held_back_total [1-9].*`, `steward_messages_received_total{method="REQToFileAppend"} [1-9].*`)
	central.told(t, "central", "class=refused", "ship1 sends more than is taken of a node here")
}
