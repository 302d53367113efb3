package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"steward/client"
	"steward/message"
	"steward/process"
)

// pictured is a node with something of everything, and many rows.
func pictured() *topShown {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { t := now.Add(-d); return &t }
	s := &topShown{At: now, Node: client.NodeInfo{Node: "central", Central: "central", Version: "v1.2.3", Linked: true},
		Nodes: []topNode{{Node: "central", Link: linkUp, Version: "v1.2.3"}}}
	for i := range 40 {
		s.Nodes = append(s.Nodes, topNode{Node: message.Node(fmt.Sprintf("ship%d", i)), Link: linkAnswers, Heard: ago(time.Minute), Version: "v1.2.3", Text: "from the harbour"})
	}
	s.Streams = []topStream{
		{To: "ship1", Method: "REQPing", MessagesPerSecond: 12.5, BytesPerSecond: 1300},
		{To: "ship7", Method: "REQCliCommand", Messages: 3, Bytes: 1200, Accepted: ago(time.Hour),
			Delivery: &client.Delivery{Attempts: 2, Retries: 5, Next: ago(-4 * time.Second), Reason: "nobody listens", Linked: true}},
	}
	s.Runs = []client.Run{{From: "central", Method: "REQCliCommand", Data: []string{"df", "-h\x1b[2J"}, Started: *ago(90 * time.Second), Attempt: 1}}
	s.Processes = topProcesses{Running: 40, Others: []topTroubled{{Name: "tcp listener", State: string(process.Backoff), Since: *ago(time.Second), Error: "address in use"}}}
	s.Errors = []errorLine{{Time: "2026-11-25T11:59:00Z", Text: `node=ship3 method=REQCliCommand cause="exit status 7: \"no\""`}, {Time: "what", Text: "somebody wrote"}}
	return s
}

func screenText(lines []screenLine) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text() + "\n")
	}
	return b.String()
}

func contains(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

// A frame is never larger than the screen, whatever its size, and never holds what moves the cursor.
func TestTopFitsAnyScreen(t *testing.T) {
	for _, whole := range []bool{false, true} {
		for _, help := range []bool{false, true} {
			for width := 1; width < 160; width += 13 {
				for height := 1; height < 60; height += 5 {
					v := &topView{whole: whole, help: help, focus: partErrors}
					lines := v.frame(pictured(), "", width, height)
					if len(lines) != height {
						t.Fatalf("%dx%d: %d lines", width, height, len(lines))
					}
					for _, l := range lines {
						n := 0
						for _, p := range l {
							n += widthOf(p.text)
						}
						if text := l.text(); n > width || strings.ContainsAny(text, "\x1b\n\r\t") {
							t.Fatalf("%dx%d: %q has %d columns", width, height, text, n)
						}
					}
				}
			}
		}
	}
}

// On the smallest usual screen each part has its place, and what counts is to be read.
func TestTopAt80x24(t *testing.T) {
	text := screenText(new(topView).frame(pictured(), "", 80, 24))
	contains(t, text, "steward top  central  link up  v1.2.3", "NODES 1-", "of 41", "ship0", "1m ago",
		"STREAMS", "ship7", "REQCliCommand", "3", "1.2 kB", "1h", "2/5", "in 4s", "12", "1.3 kB", "no…",
		"RUNS HERE", "1m30s", "df -h·[2J", "tcp listener", "backoff: address in use", "ERRORS", "ship3", `exit status 7: "no"`, "what somebody wrote", "q quit")
	if _, streams, _ := strings.Cut(text, "STREAMS"); strings.Index(streams, "ship7") > strings.Index(streams, "ship1") {
		t.Errorf("what waits longest is not first:\n%s", text)
	}
}

// A rate is the mean of ten seconds: one that was fast for a second does not dance, and is forgotten after that.
func TestTopRatesAreTheMeanOfAWhile(t *testing.T) {
	w := &topWatch{link: map[message.Node]string{}}
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	look := func(second int, messages uint64) float64 {
		w.count(start.Add(time.Duration(second)*time.Second), []client.Traffic{{To: "ship1", Method: "REQPing", Messages: messages, Bytes: 100 * messages}})
		r := w.rates()[streamName{"ship1", "REQPing"}]
		if r.bytes != 100*r.messages {
			t.Errorf("after %ds: %v messages and %v bytes a second", second, r.messages, r.bytes)
		}
		return r.messages
	}
	for _, l := range []struct {
		second   int
		messages uint64
		want     float64
	}{
		{0, 1000, 0}, // from before: nobody knows when
		{1, 1020, 20}, {2, 1020, 10}, {4, 1020, 5}, {10, 1020, 2},
		{11, 1020, 0},
		{12, 30, 3}, // it was begun anew
		{60, 78, 1},
	} {
		if got := look(l.second, l.messages); got != l.want {
			t.Errorf("after %ds: %v a second, want %v", l.second, got, l.want)
		}
	}
	if w.link["ship1"] != linkAnswers {
		t.Errorf("the link is %q", w.link["ship1"])
	}
}

func TestTopKeys(t *testing.T) {
	v := &topView{}
	frame := func() string { return screenText(v.frame(pictured(), "", 80, 24)) }
	press := func(keys ...topKey) {
		t.Helper()
		for _, k := range keys {
			if v.key(k) {
				t.Fatalf("%s ends the view", k)
			}
		}
	}
	frame()
	press(keyDown, keyDown)
	contains(t, frame(), "NODES 3-")
	press(keyEnd)
	contains(t, frame(), "-41 of 41", "ship39")
	press(keyDown)
	contains(t, frame(), "-41 of 41")
	press(keyHome)
	contains(t, frame(), "NODES 1-")
	press(keyEnter)
	if text := frame(); strings.Contains(text, "STREAMS") {
		t.Errorf("one part does not have all of the screen:\n%s", text)
	}
	press(keyEnter, keyTab, keyRight, keyBackTab, keyLeft)
	if v.focus != partNodes {
		t.Errorf("the focus is on part %d", v.focus)
	}
	press("/", "s", "h", "i", "p", "q", keyBackspace, "7")
	contains(t, frame(), "/ship7_")
	press(keyEnter)
	text := frame()
	contains(t, text, "only what holds ship7", "nothing here holds that")
	if strings.Contains(text, "ship3 ") || strings.Contains(text, "df -h") {
		t.Errorf("the filter lets through:\n%s", text)
	}
	press(keyEscape)
	contains(t, frame(), "df -h")
	press("p")
	contains(t, frame(), "held, from ")
	press("p", "?")
	contains(t, frame(), "any key goes back")
	press(keyTab)
	contains(t, frame(), "STREAMS")
	press("?", "q") // which ends the help alone
	contains(t, frame(), "STREAMS")
	if !v.key("q") || !v.key(keyInterrupt) {
		t.Error("q and Ctrl-C do not end the view")
	}
}

// What is shown of a node that does not answer any more says so.
func TestTopSaysThatTheNodeIsGone(t *testing.T) {
	contains(t, screenText(new(topView).frame(pictured(), "no node runs here", 80, 24)), "no node runs here; this was at")
}

// As text, nothing is cut off.
func TestTopAsText(t *testing.T) {
	s := pictured()
	s.Nodes[1].Text = strings.Repeat("long ", 100) + "end"
	text := screenText(new(topView).frame(s, "", 0, 0))
	contains(t, text, "ship39", "long end", "address in use", "NODES\nNODE ")
}
