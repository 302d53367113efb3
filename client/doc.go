// Package client is how a Go program talks to the Steward node on its machine: it hands in messages, waits
// for their ends, reads what commands write while they run, and asks what the operator's commands ask.
//
//	c := client.New("/var/lib/steward/tmp") // the socket folder of the node
//	defer c.Close()
//	for part, err := range c.Run(ctx, client.Command{
//		Nodes: []message.Node{"ship1", "ship2"},
//		Args:  []string{"df", "-h"},
//	}) {
//		if err != nil {
//			return err
//		}
//		fmt.Printf("%s: %s", part.Node, part.Output)
//		if part.End != nil && part.End.Err() != nil {
//			log.Print(part.End.Err())
//		}
//	}
//
// A message that [Client.Send], [Client.Ask] or [Client.Run] has handed in is on the node's disk: it is delivered when
// the link allows, whatever becomes of the program. Its id is what to keep; [Client.Wait] waits for its
// end, also over a restart of the node, and from another program as well as from the one that sent it.
//
// The node answers on two unix sockets, which are its user's alone, so a program runs as that user. The replies that
// Ask and Run read are files of the node, in its data folder.
//
// # Errors
//
// There are three kinds. A [*RefusedError] says why the node took no message. An [*Error] says why it could not
// be asked, or why it has no answer: errors.Is with [ErrNoNode] or [ErrNotFound] tells which. An [*EndError], from [Status.Err],
// says how a message ended that did not end well: errors.Is with [ErrDenied], [ErrExpired] and the others of that list.
// All else is the error of a context, of a file, or of a message that makes no sense ([message.ErrInvalid]).
//
// A [Client] may be used by many goroutines at once. The package needs nothing but the standard library and
// package message, so a program that uses it has neither store nor broker linked in. The node uses its types
// for the answers.
package client
