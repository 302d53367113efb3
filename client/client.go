package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"steward/message"
)

const (
	// maxAnswerLine bounds one line of an answer.
	maxAnswerLine = 64 << 20
	// shortestPause and longestPause bound the wait before a node that has gone is asked again.
	shortestPause = 20 * time.Millisecond
	longestPause  = time.Second
)

// Client asks the node whose sockets are in one folder. It is made by [New].
type Client struct {
	// Lost, if not nil, is called each time a wait finds that the node, which has answered before, does not any more;
	// the wait goes on. It is set before the client is used, and is called by many goroutines at once.
	Lost func(error)

	folder  string
	http    *http.Client
	dialer  net.Dialer
	reached atomic.Bool // the node has answered
}

// New returns a client of the node with this socket folder. It asks nothing yet, so the node need not run. Close ends it.
func New(socketFolder string) *Client {
	c := &Client{folder: socketFolder, dialer: net.Dialer{Timeout: 5 * time.Second}}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.dialer.DialContext(ctx, "unix", c.path(ControlSocket))
		},
		MaxResponseHeaderBytes: 64 << 10,
	}}
	return c
}

// Close gives back the connections that are idle. The client must not be used any more.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) path(socket string) string { return filepath.Join(c.folder, socket) }

// lines asks, and returns the lines of the answer, each valid until the next one. An error is the last.
func (c *Client) lines(ctx context.Context, method, path string, query url.Values, body []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		u := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
		req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
		if err != nil {
			yield(nil, err)
			return
		}
		if body != nil {
			req.Header["Idempotency-Key"] = nil // for a connection that the node has closed meanwhile; it is not sent
		}
		resp, err := c.http.Do(req)
		if err != nil {
			yield(nil, c.unreachable(ctx, ControlSocket, err))
			return
		}
		defer resp.Body.Close()
		c.reached.Store(true)
		if resp.StatusCode != http.StatusOK {
			b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			no := refused(resp.StatusCode, b)
			if no == nil {
				no = errors.Join(&Error{Status: resp.StatusCode, Text: fmt.Sprintf("the node answers %s", resp.Status)}, err)
			}
			yield(nil, no)
			return
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, maxAnswerLine)
		for lines.Scan() {
			// An error in the middle of a list is its last line.
			if no := refused(http.StatusInternalServerError, lines.Bytes()); no != nil {
				yield(nil, no)
				return
			}
			if !yield(lines.Bytes(), nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, c.unreachable(ctx, ControlSocket, err))
		}
	}
}

// refused reads an answer that is none; nil when it is another.
func refused(status int, b []byte) error {
	e := &Error{Status: status}
	if !strings.HasPrefix(string(b), `{"error":`) || json.Unmarshal(b, e) != nil {
		return nil
	}
	return e
}

// unreachable says why the node could not be asked.
func (c *Client) unreachable(ctx context.Context, socket string, err error) error {
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
		e.Cause = gone{err}
		e.Text = fmt.Sprintf("no node runs here: nobody answers on %s", c.path(socket))
		e.Hint = "start it, or name the folder of its sockets with -socketFolder, or that of its configuration with -configFolder"
		if socket == MessageSocket {
			e.Hint = "does a node run here? -socketFolder names the folder of its socket"
		}
	case errors.Is(err, fs.ErrPermission):
		e.Text = fmt.Sprintf("this user may not ask the node: %s", c.path(socket))
		e.Hint = "run the command as the user of the node"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Cause = gone{err}
		e.Text = "the node has ended, or has cut off its answer"
	}
	return e
}

// gone is an error that is [ErrNoNode].
type gone struct{ error }

func (g gone) Unwrap() []error { return []error{ErrNoNode, g.error} }

var errCutOff error = &Error{Text: "the node has cut off its answer", Cause: ErrNoNode}

// one asks for one value.
func one[T any](ctx context.Context, c *Client, method, path string, query url.Values) (T, error) {
	for v, err := range list[T](ctx, c, method, path, query, nil) {
		return v, err
	}
	var none T
	return none, errCutOff
}

// list asks for many values.
func list[T any](ctx context.Context, c *Client, method, path string, query url.Values, body []byte) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for line, err := range c.lines(ctx, method, path, query, body) {
			var v T
			if err == nil {
				if err = json.Unmarshal(line, &v); err != nil {
					err = fmt.Errorf("the node answers what makes no sense: %w", err)
				}
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// all returns what there was before the end, or an error.
func all[T any](list iter.Seq2[T, error]) ([]T, error) {
	var values []T
	for v, err := range list {
		if err != nil {
			return values, err
		}
		values = append(values, v)
	}
	return values, nil
}

// Node returns what the node says of itself.
func (c *Client) Node(ctx context.Context) (NodeInfo, error) {
	return one[NodeInfo](ctx, c, http.MethodGet, "/v1/node", nil)
}

// Status returns where a message is. The node knows those that it has accepted, and those that came to it; the error is
// [ErrNotFound] for any other, and for one that has ended long ago.
func (c *Client) Status(ctx context.Context, id message.ID) (Status, error) {
	return c.Find(ctx, id.String())
}

// Find is Status for the message whose id begins so. That no other one does is for the caller to see to: it is
// an error.
func (c *Client) Find(ctx context.Context, prefix string) (Status, error) {
	return one[Status](ctx, c, http.MethodGet, "/v1/messages/"+url.PathEscape(prefix), nil)
}

// Wait returns when the message has ended, well or not ([Status.Err] says which), or when ctx does. See [Client.Ends].
func (c *Client) Wait(ctx context.Context, id message.ID) (Status, error) {
	for st, err := range c.Ends(ctx, id) {
		return st, err
	}
	return Status{}, errCutOff // never: there is one end
}

// Ends returns where the messages are, each when it has ended, in the order in which they do; 100,000 at most. A node that has answered this
// client before, and does not any more, is waited for: it may be on its way through a restart. An error
// is the last: that of ctx, or one of those of [Client.Status].
func (c *Client) Ends(ctx context.Context, ids ...message.ID) iter.Seq2[Status, error] {
	return func(yield func(Status, error) bool) {
		open := map[message.ID]bool{}
		for _, id := range ids {
			open[id] = true
		}
		lost := false
		for pause := shortestPause; len(open) > 0; pause = min(2*pause, longestPause) {
			body, err := json.Marshal(slices.Collect(maps.Keys(open)))
			if err != nil {
				yield(Status{}, err)
				return
			}
			err = errCutOff // unless another one comes, or all have ended
			for st, failed := range list[Status](ctx, c, http.MethodPost, "/v1/ends", nil, body) {
				if err = failed; failed != nil {
					break
				}
				err, lost, pause = errCutOff, false, shortestPause
				delete(open, st.ID)
				if !yield(st, nil) {
					return
				}
			}
			if len(open) == 0 {
				return
			}
			if err = c.lostBy(err, &lost); err == nil {
				err = wait(ctx, pause)
			}
			if err != nil {
				yield(Status{}, err)
				return
			}
		}
	}
}

// lostBy returns nil for an error that may pass: the node restarts, or has too much to do. Of the first it tells once, which lost notes.
func (c *Client) lostBy(err error, lost *bool) error {
	var no *Error
	gone := errors.Is(err, ErrNoNode)
	if !c.reached.Load() || !errors.As(err, &no) || !gone && no.Status != http.StatusServiceUnavailable {
		return err
	}
	if gone && !*lost {
		if *lost = true; c.Lost != nil {
			c.Lost(err)
		}
	}
	return nil
}

// wait returns after d, or with the error of ctx at its end.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Queue returns the streams in which something waits, sorted by receiver and method; of f, To and Method count.
func (c *Client) Queue(ctx context.Context, f Filter) iter.Seq2[Stream, error] {
	return list[Stream](ctx, c, http.MethodGet, "/v1/queue", f.values(), nil)
}

// Queued returns the messages that wait, in their order, or with f.GivenUp or f.Removed those that were given up or removed,
// oldest first: those that fit, and the first n of them, 0 being all.
func (c *Client) Queued(ctx context.Context, f Filter, n int) iter.Seq2[Queued, error] {
	query := f.values()
	query.Set("n", strconv.Itoa(n))
	return list[Queued](ctx, c, http.MethodGet, "/v1/queue/messages", query, nil)
}

// Remove takes messages off the queue, or with f.GivenUp or f.Removed forgets those that were given up or removed
// before, and returns what is removed, stream by stream: after an error, too. A message that was under way may arrive all the same.
func (c *Client) Remove(ctx context.Context, f Filter) ([]Removed, error) {
	return all(list[Removed](ctx, c, http.MethodDelete, "/v1/queue", f.values(), nil))
}

// Retry sends messages again that were given up, and returns those that are on their way, in order, with their new ids: after an
// error, too. What somebody has removed is sent again only if f names its id, or has Removed: what else fits is returned as left out.
func (c *Client) Retry(ctx context.Context, f Filter) (retried, leftOut []Retried, err error) {
	for r, err := range list[Retried](ctx, c, http.MethodPost, "/v1/queue/retry", f.values(), nil) {
		switch {
		case err != nil:
			return retried, leftOut, err
		case r.LeftOut:
			leftOut = append(leftOut, r)
		default:
			retried = append(retried, r)
		}
	}
	return retried, leftOut, nil
}

// Processes returns the processes of the node.
func (c *Client) Processes(ctx context.Context) (Process, error) {
	return one[Process](ctx, c, http.MethodGet, "/v1/processes", nil)
}

// Errors returns the last n lines of the error log of the node, 0 being all, sorted by their times: of the errors of one node, or when
// that is empty, of all that tell this one. With follow it goes on with what is written, until ctx ends, and 0 is none of what was before. A
// line begins with the time at which it failed, by the clock of its node, as in RFC 3339.
func (c *Client) Errors(ctx context.Context, of message.Node, n int, follow bool) iter.Seq2[string, error] {
	query := url.Values{"node": {string(of)}, "n": {strconv.Itoa(n)}, "follow": {strconv.FormatBool(follow)}}
	return list[string](ctx, c, http.MethodGet, "/v1/errors", query, nil)
}

// Runs returns the methods that run on the node, the longest one first.
func (c *Client) Runs(ctx context.Context) iter.Seq2[Run, error] {
	return list[Run](ctx, c, http.MethodGet, "/v1/runs", nil, nil)
}

// Traffic returns how much was delivered on each stream on which something is, or was a moment ago, to be delivered, sorted by receiver and
// method. A stream that was not needed for long begins anew.
func (c *Client) Traffic(ctx context.Context) iter.Seq2[Traffic, error] {
	return list[Traffic](ctx, c, http.MethodGet, "/v1/traffic", nil, nil)
}

// Nodes returns the nodes that this one knows, sorted: see [Peer].
func (c *Client) Nodes(ctx context.Context) iter.Seq2[Peer, error] {
	return list[Peer](ctx, c, http.MethodGet, "/v1/nodes", nil, nil)
}
