package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxAnswerLine bounds one line of an answer.
const maxAnswerLine = 64 << 20

// Error is the node's answer to what it could not do.
type Error struct {
	Status int // of HTTP; 0 when the node could not be asked
	Text   string
	Hint   string
	Cause  error // of Status 0
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Cause }

// Client asks a node.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the socket at path. Close ends it.
func NewClient(path string) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxResponseHeaderBytes: 64 << 10,
	}}}
}

// Close gives back the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do asks, and calls each with the lines of the answer until it returns an error.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, each func([]byte) error) error {
	u := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if no := refused(resp.StatusCode, b); no != nil {
			return no
		}
		return errors.Join(&Error{Status: resp.StatusCode, Text: fmt.Sprintf("the node answers %s", resp.Status)}, err)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxAnswerLine)
	for lines.Scan() {
		// An error in the middle of a list is its last line.
		if no := refused(http.StatusInternalServerError, lines.Bytes()); no != nil {
			return no
		}
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}

// refused reads an answer that is none; nil when it is another.
func refused(status int, b []byte) error {
	var f failure
	if !strings.HasPrefix(string(b), `{"error":`) || json.Unmarshal(b, &f) != nil {
		return nil
	}
	return &Error{Status: status, Text: f.Error, Hint: f.Hint}
}

// unreachable says why the node could not be asked.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	e := &Error{Text: err.Error(), Cause: err}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		e.Text = fmt.Sprintf("no node runs here: nobody answers on %s", c.path)
		e.Hint = "start it, or name the folder of its sockets with -socketFolder, or that of its configuration with -configFolder"
	case errors.Is(err, fs.ErrPermission):
		e.Text = fmt.Sprintf("this user may not ask the node: %s", c.path)
		e.Hint = "run the command as the user of the node"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		e.Text = "the node has ended, or has cut off its answer"
	}
	return e
}

// one asks for one value.
func one[T any](ctx context.Context, c *Client, method, path string, query url.Values) (T, error) {
	var v T
	answered := false
	err := each(ctx, c, method, path, query, func(got T) error { v, answered = got, true; return nil })
	if err == nil && !answered {
		err = &Error{Text: "the node has cut off its answer"}
	}
	return v, err
}

// each asks for many values.
func each[T any](ctx context.Context, c *Client, method, path string, query url.Values, do func(T) error) error {
	return c.do(ctx, method, path, query, func(line []byte) error {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("the node answers what makes no sense: %w", err)
		}
		return do(v)
	})
}

// Node returns what the node says of itself.
func (c *Client) Node(ctx context.Context) (NodeInfo, error) {
	return one[NodeInfo](ctx, c, http.MethodGet, "/v1/node", nil)
}

// Status returns where a message is; id may be the beginning of one. With wait it returns when the message has
// ended.
func (c *Client) Status(ctx context.Context, id string, wait bool) (Status, error) {
	query := url.Values{}
	if wait {
		query.Set("wait", "true")
	}
	return one[Status](ctx, c, http.MethodGet, "/v1/messages/"+url.PathEscape(id), query)
}

// Streams calls do for each stream in which something waits; of f, To and Method count.
func (c *Client) Streams(ctx context.Context, f Filter, do func(Stream) error) error {
	return each(ctx, c, http.MethodGet, "/v1/queue", f.values(), do)
}

// Queued calls do for each message that waits, or was given up, and fits; for the first n, 0 being all.
func (c *Client) Queued(ctx context.Context, f Filter, n int, do func(Queued) error) error {
	query := f.values()
	query.Set("n", strconv.Itoa(n))
	return each(ctx, c, http.MethodGet, "/v1/queue/messages", query, do)
}

// Remove takes messages off the queue, or forgets those that were given up, and calls do for each part of that
// that is done.
func (c *Client) Remove(ctx context.Context, f Filter, do func(Removed) error) error {
	return each(ctx, c, http.MethodDelete, "/v1/queue", f.values(), do)
}

// Retry sends messages again that were given up, and calls do for each.
func (c *Client) Retry(ctx context.Context, f Filter, do func(Retried) error) error {
	return each(ctx, c, http.MethodPost, "/v1/queue/retry", f.values(), do)
}

// Processes returns the processes of the node.
func (c *Client) Processes(ctx context.Context) (Process, error) {
	return one[Process](ctx, c, http.MethodGet, "/v1/processes", nil)
}

// Runs calls do for each method that runs on the node, the longest one first.
func (c *Client) Runs(ctx context.Context, do func(Run) error) error {
	return each(ctx, c, http.MethodGet, "/v1/runs", nil, do)
}

// Traffic calls do for each stream on which something is, or was a moment ago, to be delivered.
func (c *Client) Traffic(ctx context.Context, do func(Traffic) error) error {
	return each(ctx, c, http.MethodGet, "/v1/traffic", nil, do)
}

// Nodes calls do for each node that said hello to this one, or for which something waits.
func (c *Client) Nodes(ctx context.Context, do func(Peer) error) error {
	return each(ctx, c, http.MethodGet, "/v1/nodes", nil, do)
}
