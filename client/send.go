package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"steward/message"
)

// Send hands messages in and returns their ids, for each receiver of each message one, in order. They are on the node's disk then,
// all of them; a [*RefusedError] means that none is. After any other error, such as a node that ended before it answered, they may have
// been accepted all the same.
func (c *Client) Send(ctx context.Context, msgs ...Message) ([]message.ID, error) {
	if len(msgs) == 0 {
		return nil, invalid("no message to send")
	}
	text, err := json.Marshal(msgs)
	if err != nil {
		return nil, err
	}
	ids, err := c.SendText(ctx, bytes.NewReader(text))
	if errors.Is(err, errNothing) {
		err = errCutOff
	}
	return ids, err
}

// errNothing is for a text without a message.
var errNothing error = invalid("it holds no message")

// SendText hands in what a message file holds: JSON or YAML, any number of arrays, of which each is accepted as a whole or not at all. It
// returns the ids of what was accepted, also with an error: a [*RefusedError] has a reason for each array that was not.
func (c *Client) SendText(ctx context.Context, text io.Reader) ([]message.ID, error) {
	conn, err := c.dialer.DialContext(ctx, "unix", c.path(MessageSocket))
	if err != nil {
		return nil, c.unreachable(ctx, MessageSocket, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	// The node answers while it reads, and closes a connection on which it can read no further.
	var sent sync.WaitGroup
	defer sent.Wait()
	defer conn.Close()
	var werr error
	sent.Go(func() {
		_, werr = io.Copy(conn, text)
		werr = errors.Join(werr, conn.(*net.UnixConn).CloseWrite())
	})
	ids, reasons, err := readAnswers(conn)
	if err == nil {
		sent.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return ids, ctx.Err()
	case err != nil:
		return ids, c.unreachable(ctx, MessageSocket, err)
	case len(reasons) > 0:
		return ids, &RefusedError{reasons}
	case werr != nil:
		return ids, werr
	case len(ids) == 0:
		return nil, errNothing
	}
	c.reached.Store(true)
	return ids, nil
}

// readAnswers reads what a node says to arrays, one line for each: the ids of what it has accepted, and why it
// refused the rest.
func readAnswers(from io.Reader) (ids []message.ID, reasons []string, err error) {
	answers := bufio.NewReader(from)
	for {
		line, err := answers.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			var a struct {
				Accepted []message.ID `json:"accepted"`
				Error    string       `json:"error"`
			}
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				return ids, reasons, fmt.Errorf("the node answers what makes no sense: %s", message.Quote(line))
			}
			ids = append(ids, a.Accepted...)
			if a.Error != "" {
				reasons = append(reasons, a.Error)
			}
		}
		if errors.Is(err, io.EOF) {
			return ids, reasons, nil
		}
		if err != nil {
			return ids, reasons, err
		}
	}
}
