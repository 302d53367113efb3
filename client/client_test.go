package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"steward/client"
	"steward/message"
	"steward/process"
)

func nodes(names ...message.Node) []message.Node { return names }

// command is a message that has one node run a line of sh.
func command(to message.Node, line string) client.Message {
	return client.Message{To: nodes(to), Method: "REQCliCommand", Data: []string{"sh", "-c", line}, Retries: client.Unlimited, Directory: "tests", FileName: "out"}
}

// send hands in messages.
func send(t *testing.T, c *client.Client, msgs ...client.Message) []message.ID {
	t.Helper()
	ids, err := c.Send(t.Context(), msgs...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// waiting is how many messages wait for a node, or were given up.
func waiting(t *testing.T, c *client.Client, f client.Filter) (n int) {
	t.Helper()
	for _, err := range c.Queued(t.Context(), f, 0) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestWithoutANodeEverythingSaysSoAtOnce(t *testing.T) {
	c := open(t, t.TempDir())
	ctx := t.Context()
	var none message.ID
	for name, ask := range map[string]func() error{
		"node":      func() error { _, err := c.Node(ctx); return err },
		"status":    func() error { _, err := c.Status(ctx, none); return err },
		"wait":      func() error { _, err := c.Wait(ctx, none); return err },
		"send":      func() error { _, err := c.Send(ctx, command("ship1", "true")); return err },
		"ask":       func() error { _, err := c.Ask(ctx, client.Message{To: nodes("ship1"), Method: "REQPing"}); return err },
		"queue":     func() error { return last(c.Queue(ctx, client.Filter{})) },
		"remove":    func() error { _, err := c.Remove(ctx, client.Filter{All: true}); return err },
		"processes": func() error { _, err := c.Processes(ctx); return err },
		"run":       func() error { return last(c.Run(ctx, client.Command{Nodes: nodes("ship1"), Args: []string{"true"}})) },
	} {
		var no *client.Error
		if err := ask(); !errors.Is(err, client.ErrNoNode) || !errors.As(err, &no) || no.Hint == "" || errors.Is(err, client.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// last is the error of a list.
func last[T any](list func(func(T, error) bool)) (err error) {
	for _, err = range list {
	}
	return err
}

func TestUnknownMessageIsNotFound(t *testing.T) {
	c := open(t, socketFolder)
	id := message.NewID(time.Now(), 1, 1)
	_, status := c.Status(t.Context(), id)
	_, wait := c.Wait(t.Context(), id)
	for _, err := range []error{status, wait} {
		if !errors.Is(err, client.ErrNotFound) || errors.Is(err, client.ErrNoNode) {
			t.Error(err)
		}
	}
}

func TestRefusedMessagesAreNotAcceptedInPart(t *testing.T) {
	f, c := fleetOf(t, "central")
	_, err := c.Send(t.Context(), command("ship1", "true"), client.Message{To: nodes("ship1"), Method: "REQNoSuch"}, command("a b", "true"))
	var refused *client.RefusedError
	if !errors.As(err, &refused) || len(refused.Reasons) != 1 || !strings.HasPrefix(refused.Reasons[0], "message 2: ") {
		t.Errorf("%v", err)
	}
	if n := waiting(t, c, client.Filter{}); n != 0 {
		t.Errorf("%d wait", n)
	}
	// Of a text, each array is for itself.
	ids, err := c.SendText(t.Context(), strings.NewReader(`[{"toNode":"ship1","method":"REQPing"}] [{"toNode":"ship1","method":"REQNoSuch"}] [{"toNode":"ship1","method":"REQPing"}]`))
	if !errors.As(err, &refused) || len(refused.Reasons) != 1 || len(ids) != 2 {
		t.Errorf("%v, %v", ids, err)
	}
	if n := waiting(t, c, client.Filter{To: "ship1"}); n != 2 {
		t.Errorf("%d wait", n)
	}
	for name, err := range map[string]error{
		"none at all":      second(c.Send(t.Context())),
		"an empty text":    second(c.SendText(t.Context(), strings.NewReader(""))),
		"named twice":      second(c.Ask(t.Context(), client.Message{To: nodes("central", message.Local), Method: "REQPing"})),
		"no name":          second(c.Ask(t.Context(), client.Message{To: nodes("a b"), Method: "REQPing"})),
		"a place of reply": second(c.Ask(t.Context(), client.Message{To: nodes("central"), Method: "REQPing", FileName: "here"})),
	} {
		if !errors.Is(err, message.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(f.nodes["central"].dir, "var", "asked")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of replies: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestEndsSayWhy(t *testing.T) {
	f, c := fleetOf(t, "central", "ship1")
	fromShip1 := open(t, f.nodes["ship1"].dir)
	one := client.Message{To: nodes("ship9"), Method: "REQPing", Retries: client.Unlimited, ReplyMethod: message.MethodNone}
	expired, unreachable := one, one
	expired.TTL = time.Millisecond // a second, on its way
	unreachable.Retries, unreachable.ACKTimeout = 1, time.Second
	slow := command("ship1", "sleep 600")
	slow.MethodTimeout = time.Second
	ids := send(t, c, expired, unreachable, one, slow, command("ship1", "echo wrong >&2; exit 7"), command("ship1", "true"))
	if _, err := c.Remove(t.Context(), client.Filter{IDs: []string{ids[2].String()}}); err != nil {
		t.Fatal(err)
	}
	denied := send(t, fromShip1, command("central", "true"))[0]
	all := []error{client.ErrDenied, client.ErrExpired, client.ErrUnreachable, client.ErrTimeout, client.ErrInterrupted, client.ErrRemoved}
	check := func(st client.Status, want error, code message.Code) {
		t.Helper()
		err := st.Err()
		if code == message.CodeDone {
			if err != nil || !st.Ended {
				t.Errorf("done: %v", err)
			}
			return
		}
		var end *client.EndError
		if !errors.As(err, &end) || end.Code != code || end.ID != st.ID || end.Node == "" || code == message.CodeFailed && (end.Exit != 7 || end.Stderr != "wrong\n") {
			t.Errorf("%s: %+v", code, err)
		}
		for _, e := range all {
			if errors.Is(err, e) != (e == want) {
				t.Errorf("%v: Is(%v) is %v", err, e, e != want)
			}
		}
	}
	st, err := fromShip1.Wait(t.Context(), denied)
	if err != nil {
		t.Fatal(err)
	}
	check(st, client.ErrDenied, message.CodeDenied)
	wants := []struct {
		err  error
		code message.Code
	}{{client.ErrExpired, message.CodeExpired}, {client.ErrUnreachable, message.CodeUnreachable}, {client.ErrRemoved, message.CodeRemoved},
		{client.ErrTimeout, message.CodeTimeout}, {nil, message.CodeFailed}, {nil, message.CodeDone}}
	seen := 0
	for st, err := range c.Ends(t.Context(), append(ids, ids...)...) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		i := slices.Index(ids, st.ID)
		check(st, wants[i].err, wants[i].code)
	}
	if seen != len(ids) {
		t.Errorf("%d ends", seen)
	}
	if open, err := c.Status(t.Context(), send(t, c, one)[0]); err != nil || open.Ended || open.Err() != nil {
		t.Errorf("one that waits: %+v, %v", open, err)
	}
}

// A dead node keeps nobody from hearing of the others, however many there are.
func TestEndsComeWhileOthersAreOpen(t *testing.T) {
	_, c := fleetOf(t, "central", "ship1")
	var to []message.Node
	for i := range 100 {
		to = append(to, message.Node(fmt.Sprintf("away%d", i)))
	}
	r, err := c.Ask(t.Context(), client.Message{To: append(to, "ship1"), Method: "REQPing", Retries: client.Unlimited})
	if err != nil {
		t.Fatal(err)
	}
	for part, err := range r.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if part.End != nil {
			if part.Node != "ship1" || part.End.Err() != nil {
				t.Errorf("%s: %v", part.Node, part.End.Err())
			}
			break
		}
	}
}

func TestEndOfTheContextEndsAWaitAndNotTheMessage(t *testing.T) {
	_, c := fleetOf(t, "central")
	id := send(t, c, command("ship1", "true"))[0]
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- second(c.Wait(ctx, id)) }()
	away := make(chan message.ID, 1)
	go func() {
		for part, err := range c.Run(ctx, client.Command{Nodes: nodes("ship1"), Args: []string{"true"}}) {
			if part.Away != nil {
				away <- part.ID
			}
			if err != nil {
				ended <- err
			}
		}
	}()
	asked := <-away
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	for _, id := range []message.ID{id, asked} {
		if st, err := c.Status(t.Context(), id); err != nil || st.Ended || st.Sent.State != message.StateAccepted {
			t.Errorf("%+v, %v", st, err)
		}
	}
	if _, err := c.Send(ctx, command("ship1", "true")); !errors.Is(err, context.Canceled) {
		t.Errorf("sent after it: %v", err)
	}
}

func TestWaitOutlivesARestartOfTheNode(t *testing.T) {
	f, c := fleetOf(t, "central")
	lost := make(chan error, 1)
	c.Lost = func(err error) { lost <- err }
	id := send(t, c, command("ship1", "true"))[0]
	type end struct {
		st  client.Status
		err error
	}
	waited := make(chan end, 1)
	go func() {
		st, err := c.Wait(t.Context(), id)
		waited <- end{st, err}
	}()
	if err := f.nodes["central"].stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-lost:
		if !errors.Is(err, client.ErrNoNode) {
			t.Errorf("lost: %v", err)
		}
	case got := <-waited:
		t.Fatalf("it did not wait: %+v", got)
	}
	if err := f.nodes["central"].start(); err != nil {
		t.Fatal(err)
	}
	f.nodes["ship1"] = &node{f: f, name: "ship1", dir: filepath.Join(f.dir, "ship1")}
	if err := f.nodes["ship1"].start(); err != nil {
		t.Fatal(err)
	}
	if got := <-waited; got.err != nil || got.st.ID != id || got.st.Err() != nil {
		t.Errorf("%+v", got)
	}
}

// What was read before a restart is not read again, and what comes after it is.
func TestRepliesOutliveARestartOfTheNode(t *testing.T) {
	f, c := fleetOf(t, "central", "ship1")
	hold := filepath.Join(f.dir, "go")
	var got bytes.Buffer
	ends := 0
	for part, err := range c.Run(t.Context(), client.Command{Nodes: nodes("ship1"), Stream: true, Timeout: time.Minute,
		Args: []string{"sh", "-c", `echo first; while ! test -e "$0"; do sleep 0.02; done; echo second`, hold}}) {
		if err != nil {
			t.Fatal(err)
		}
		got.Write(part.Output)
		if part.End != nil {
			ends++
			if err := part.End.Err(); err != nil {
				t.Error(err)
			}
		}
		if got.String() != "first\n" || part.Output == nil {
			continue
		}
		if err := errors.Join(f.nodes["central"].stop(), f.nodes["central"].start(), os.WriteFile(hold, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != "first\nsecond\n" || ends != 1 {
		t.Errorf("%q, %d ends", &got, ends)
	}
	if _, err := os.Stat(filepath.Join(f.nodes["central"].dir, "var", "asked")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of replies: %v", err)
	}
}

// A reply file that was read, and is removed while nothing comes for long, as the node does, is begun again.
func TestRepliesGoOnInAnotherFile(t *testing.T) {
	f, c := fleetOf(t, "central", "ship1")
	hold, asked := filepath.Join(f.dir, "go"), filepath.Join(f.nodes["central"].dir, "var", client.AskedFolder)
	var got bytes.Buffer
	for part, err := range c.Run(t.Context(), client.Command{Nodes: nodes("ship1"), Stream: true, Timeout: time.Minute,
		Args: []string{"sh", "-c", `echo first; while ! test -e "$0"; do sleep 0.02; done; echo second, which is longer`, hold}}) {
		if err != nil {
			t.Fatal(err)
		}
		got.Write(part.Output)
		if got.String() != "first\n" || part.Output == nil {
			continue
		}
		// Aside and not away, so that the file that comes is not taken for this one.
		if err := errors.Join(os.Rename(asked, asked+".aside"), os.WriteFile(hold, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != "first\nsecond, which is longer\n" {
		t.Errorf("%q", &got)
	}
}

// However much has come while the reader did other things, it is handed on in pieces, through one buffer.
func TestSlowReaderOfALargeReplyTakesOnePieceOfMemory(t *testing.T) {
	_, c := fleetOf(t, "central", "ship1")
	r, err := c.Ask(t.Context(), client.Command{Nodes: nodes("ship1"), Args: []string{"sh", "-c", "seq 1000000"}, Timeout: time.Minute}.Message())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), r.Sent()[0].ID); err != nil { // all of it is there before the first piece is read
		t.Fatal(err)
	}
	var first *byte
	total, next := 0, byte('1')
	for part, err := range r.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if len(part.Output) == 0 {
			continue
		}
		if first == nil {
			first = &part.Output[0]
		}
		if len(part.Output) > 64<<10 || &part.Output[0] != first {
			t.Fatalf("a piece of %d bytes, or not in the buffer of the first", len(part.Output))
		}
		if total == 0 && part.Output[0] != next {
			t.Errorf("it begins with %q", part.Output[:10])
		}
		total += len(part.Output)
	}
	if want := 6_888_896; total != want { // of the numbers from 1 to 1,000,000, a line each
		t.Errorf("%d bytes, want %d", total, want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// Why a node does not take its message may take longer to be known than it takes most nodes to answer.
func TestReasonThatComesLateIsTold(t *testing.T) {
	f, c := fleetOf(t, "central")
	frames := 0
	subscribed := make(chan process.Subscription, 1)
	sub, err := f.net.Node("ship9").Subscribe("ship9.REQPing.EventACK", func(process.Delivery) {
		if frames++; frames == 2 {
			(<-subscribed).Close() // the next attempt finds nobody
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	subscribed <- sub
	r, err := c.Ask(t.Context(), client.Message{To: nodes("ship9"), Method: "REQPing", Retries: client.Unlimited, ACKTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := 0
	for part, err := range r.Parts(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if part.Away != nil && strings.Contains(part.Away.Reason, "nobody listens") {
			told++
			break
		}
	}
	if told != 1 {
		t.Error("it is not told")
	}
	if err := errors.Join(r.Withdraw(t.Context()), r.Close()); err != nil {
		t.Error(err)
	}
}

func TestQuestionToANodeThatIsAwayLeavesNothingBehind(t *testing.T) {
	f, c := fleetOf(t, "central", "ship1")
	r, err := c.Ask(t.Context(), client.Message{To: nodes("ship1", "ship9"), Method: "REQPing", Retries: client.Unlimited})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[message.Node]int{}
	for part, err := range r.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if part.Away != nil {
			if seen["away"]++; part.Node != "ship9" || !part.Away.Linked || !strings.Contains(part.Away.Reason, "nobody listens") {
				t.Errorf("%s is away: %+v", part.Node, part.Away)
			}
		}
		if part.End != nil {
			seen[part.Node]++
		}
		if seen["away"] > 0 && seen["ship1"] > 0 {
			break
		}
	}
	if err := r.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := waiting(t, c, client.Filter{}); n != 0 {
		t.Errorf("%d wait", n)
	}
	if n := waiting(t, c, client.Filter{GivenUp: true}); n != 0 {
		t.Errorf("%d can be sent again", n)
	}
	if _, err := os.Stat(filepath.Join(f.nodes["central"].dir, "var", "asked")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of replies: %v", err)
	}
}

func TestErrorsAreFollowed(t *testing.T) {
	_, c := fleetOf(t, "central")
	tell := func(text string) {
		t.Helper()
		id := send(t, c, client.Message{To: nodes("central"), Method: message.MethodErrorLog, Data: []string{text}, ReplyMethod: message.MethodNone})[0]
		if st, err := c.Wait(t.Context(), id); err != nil || st.Err() != nil {
			t.Fatal(err, st.Err())
		}
	}
	for _, text := range []string{"one", "two", "three"} {
		tell(text)
	}
	var got []string
	for line, err := range c.Errors(t.Context(), "", 2, true) {
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(line)
		if got = append(got, words[len(words)-1]); len(got) == 2 {
			tell("four")
		}
		if len(got) == 3 {
			break
		}
	}
	if want := []string{"two", "three", "four"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	n := 0
	for _, err := range c.Errors(t.Context(), "central", 0, false) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if err := last(c.Errors(t.Context(), "ship1", 0, false)); n != 4 || err != nil {
		t.Errorf("%d lines; of ship1: %v", n, err)
	}
	var no *client.Error
	if err := last(c.Errors(t.Context(), "../x", 0, false)); !errors.As(err, &no) || no.Status != 400 {
		t.Errorf("no name: %v", err)
	}
}

func TestClientIsForManyAtATime(t *testing.T) {
	c := open(t, socketFolder)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			var got bytes.Buffer
			for part, err := range c.Run(t.Context(), client.Command{Nodes: nodes("ship1", "ship2"), Args: []string{"echo", fmt.Sprint(i)}}) {
				if err != nil {
					t.Error(err)
				}
				got.Write(part.Output)
			}
			if want := fmt.Sprintf("%d\n%d\n", i, i); got.String() != want {
				t.Errorf("%q, want %q", &got, want)
			}
		})
	}
	all.Wait()
}
