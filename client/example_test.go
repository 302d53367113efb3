package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"steward/client"
	"steward/message"
)

// In the examples socketFolder is the socket folder of the node central, and ship1 and ship2 are nodes of its fleet.

// A command on several nodes. What it writes comes as soon as it is there, and its end behind it.
func ExampleClient_Run() {
	ctx := context.Background()
	c := client.New(socketFolder)
	defer c.Close()
	for part, err := range c.Run(ctx, client.Command{
		Nodes: []message.Node{"ship1", "ship2"},
		Args:  []string{"sh", "-c", "echo hello from $STEWARD_NODE"},
	}) {
		switch {
		case err != nil:
			fmt.Println(err)
		case part.Output != nil:
			fmt.Printf("%s wrote %s", part.Node, part.Output)
		case part.End != nil:
			fmt.Println(part.Node, "is", part.End.Sent.State)
		}
	}
	// Unordered output:
	// ship1 wrote hello from ship1
	// ship1 is done
	// ship2 wrote hello from ship2
	// ship2 is done
}

// A command that fails, with its exit status and what it complained about.
func ExampleStatus_Err() {
	ctx := context.Background()
	c := client.New(socketFolder)
	defer c.Close()
	for part, err := range c.Run(ctx, client.Command{
		Nodes: []message.Node{"ship1"},
		Args:  []string{"sh", "-c", "echo no such pump >&2; exit 3"},
	}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if part.End == nil {
			continue
		}
		var end *client.EndError
		if errors.As(part.End.Err(), &end) {
			fmt.Println(end)
			fmt.Println("exit status", end.Exit, "and on stderr:", end.Stderr)
		}
	}
	// Output:
	// REQCliCommand on ship1: failed: exit status 3
	// exit status 3 and on stderr: no such pump
}

// A message is on disk when it is sent. Its end may be waited for later, or from another program.
func ExampleClient_Wait() {
	ctx := context.Background()
	c := client.New(socketFolder)
	defer c.Close()
	ids, err := c.Send(ctx, client.Message{
		To:        []message.Node{"ship1"},
		Method:    "REQCliCommand",
		Data:      []string{"true"},
		Retries:   client.Unlimited,
		Directory: "results", FileName: "true.log",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	status, err := c.Wait(ctx, ids[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(status.Sent.Method, "on", status.Sent.Peer, "is", status.Sent.State)
	// Output: REQCliCommand on ship1 is done
}

// What makes no sense is refused before anything is accepted.
func ExampleClient_Send() {
	ctx := context.Background()
	c := client.New(socketFolder)
	defer c.Close()
	_, err := c.Send(ctx,
		client.Message{To: []message.Node{"ship1"}, Method: "REQPing"},
		client.Message{To: []message.Node{"ship1"}, Method: "REQPong2"},
	)
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		fmt.Println(refused)
	}
	// Output: message 2: unknown method "REQPong2", did you mean "REQPong"?
}

// What a message file holds is sent as it is.
func ExampleClient_SendText() {
	ctx := context.Background()
	c := client.New(socketFolder)
	defer c.Close()
	ids, err := c.SendText(ctx, strings.NewReader(`
- toNodes: [ship1, ship2]
  method: REQPing
`))
	fmt.Println(len(ids), "accepted,", err)
	// Output: 2 accepted, <nil>
}

// What waits for a node that is away, and how it is taken back.
func ExampleClient_Queue() {
	ctx := context.Background()
	c := client.New(socketFolder)
	defer c.Close()
	if _, err := c.Send(ctx, client.Message{To: []message.Node{"ship9"}, Method: "REQCliCommand", Data: []string{"reboot"}, Retries: client.Unlimited}); err != nil {
		fmt.Println(err)
		return
	}
	ofShip9 := client.Filter{To: "ship9", Method: "REQCliCommand"}
	for s, err := range c.Queue(ctx, ofShip9) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(s.Messages, "of", s.Method, "for", s.To)
	}
	removed, err := c.Remove(ctx, ofShip9)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(removed[0].Messages, "removed")
	// Output:
	// 1 of REQCliCommand for ship9
	// 1 removed
}
