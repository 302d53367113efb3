package methods

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    "REQHttpGet",
	Summary: "get a URL; the reply is the body of the answer",
	Details: "`http` and `https`; redirects are followed, up to ten. A status other than 2xx is a failure, and so is a body that was " +
		"cut off. The proxy of the node's environment (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`) is used.",
	Args:    "URL",
	MinArgs: 1,
	Kind:    message.EventACK,
	Access:  process.AccessCentral,
	// Not ordered: an address that does not answer delays no other.
	// Once: what a request does at the other end is not known here.
	Crash: process.Once,
	Reply: message.MethodToFileAppend,
	Run:   httpGet,
})

const (
	mostRedirects = 10
	// httpEnd is how long what was received before the timeout may take to be stored.
	httpEnd = 5 * time.Second
)

// httpGet sends the body on while it comes. Each call has connections of its own, so that
// none is kept open for a next one that may never come.
func httpGet(ctx context.Context, c *process.Call) (process.Outcome, error) {
	none := process.Outcome{Exit: -1}
	m := c.Message
	if !m.Last() {
		return none, nil // as a reply method, it is run at the end of the reply
	}
	if len(m.Data) == 0 {
		return none, errors.New("no URL: data is empty")
	}
	u, err := address(m.Data[0])
	if err != nil {
		return none, err
	}
	shown := message.Quote(u.Redacted())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return none, fmt.Errorf("get %s: %w", shown, plain(err))
	}
	req.Header.Set("User-Agent", "steward")
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 20, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: redirect}
	resp, err := client.Do(req)
	if err != nil {
		return none, getError(shown, "", m, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return none, fmt.Errorf("get %s: the answer is %s", shown, status(resp))
	}
	emitting, release := outlast(ctx, httpEnd)
	defer release()
	body, err := (&sender{emit: c.Emit}).run(emitting, resp.Body)
	o := process.Outcome{Body: body, Exit: -1}
	var emitErr *emitError
	switch {
	case err == nil:
		return o, nil
	case errors.As(err, &emitErr):
		return o, emitErr
	}
	return o, getError(shown, "the body was cut off: ", m, err)
}

// address reads a URL that can be got.
func address(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		// The error would show the password, and so would the text.
		return nil, errors.New("the URL in data is not one that can be read")
	}
	switch shown := message.Quote(u.Redacted()); {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("URL %s: want one that begins with http:// or https://", shown)
	case u.Hostname() == "":
		return nil, fmt.Errorf("URL %s: it names no host", shown)
	}
	return u, nil
}

func redirect(_ *http.Request, via []*http.Request) error {
	if len(via) > mostRedirects {
		return fmt.Errorf("more than %d redirects", mostRedirects)
	}
	return nil
}

// status is that of an answer, in bounds.
func status(r *http.Response) string {
	text := strings.ToValidUTF8(strings.TrimSpace(r.Status), "?")
	if len(text) > 100 {
		text = text[:100] + "…"
	}
	return text
}

// getError says why there is no answer, or only a part of it.
func getError(shown, what string, m *message.Message, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		if m.MethodTimeout > 0 {
			what += "nothing more within " + m.MethodTimeout.String() + ": "
		}
		return fmt.Errorf("get %s: %s%w", shown, what, context.DeadlineExceeded)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("get %s: %sthe other side closed the connection", shown, what)
	}
	return fmt.Errorf("get %s: %s%w", shown, what, plain(err))
}

// plain takes the URL out of an error of package net/http, and bounds what the other side
// can put into it.
func plain(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	const most = 300
	if text := strings.ToValidUTF8(err.Error(), "?"); len(text) > most {
		return errors.New(text[:most] + "…")
	}
	return err
}
