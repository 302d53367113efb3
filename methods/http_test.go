package methods_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// site is a web server for these tests.
func site(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	handle := func(path string, h http.HandlerFunc) { mux.HandleFunc(path, h) }
	handle("/hello", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		fmt.Fprintf(w, "hello %s:%s, %s %s\n", user, password, r.Method, r.UserAgent())
	})
	handle("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		_, _ = fmt.Sscan(r.PathValue("code"), &code)
		w.WriteHeader(code)
		if code != http.StatusNoContent {
			fmt.Fprint(w, "body of ", code)
		}
	})
	handle("/large", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(large) })
	handle("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write([]byte("small"))
		_ = z.Close()
	})
	handle("/redirect/{n}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscan(r.PathValue("n"), &n)
		if n == 0 {
			fmt.Fprint(w, "there")
			return
		}
		http.Redirect(w, r, fmt.Sprintf("/redirect/%d", n-1), http.StatusFound)
	})
	handle("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	handle("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	handle("/hang", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	handle("/slow", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	handle("/headers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2<<20))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

var large = bytes.Repeat([]byte("0123456789abcde\n"), 3*process.MaxPart/16+1)

func TestHttpGet(t *testing.T) {
	s := site(t)
	host := strings.TrimPrefix(s.URL, "http://")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		url  string
		body string
		err  string // a part of it; empty for none
	}{
		"body":              {s.URL + "/hello", "hello :, GET steward\n", ""},
		"capitals":          {"HTTP://" + host + "/hello", "hello :, GET steward\n", ""},
		"password":          {"http://me:secret@" + host + "/hello", "hello me:secret, GET steward\n", ""},
		"other 2xx":         {s.URL + "/status/203", "body of 203", ""},
		"no content":        {s.URL + "/status/204", "", ""},
		"decompressed":      {s.URL + "/gzip", "small", ""},
		"parts":             {s.URL + "/large", string(large), ""},
		"redirects":         {s.URL + "/redirect/10", "there", ""},
		"too many":          {s.URL + "/redirect/11", "", "more than 10 redirects"},
		"redirect away":     {s.URL + "/elsewhere", "", "unsupported protocol scheme"},
		"missing":           {s.URL + "/none", "", "404 Not Found"},
		"server error":      {s.URL + "/status/500", "", "500 Internal Server Error"},
		"not modified":      {s.URL + "/status/304", "", "304 Not Modified"},
		"cut off":           {s.URL + "/cut", "half", "the body was cut off: the other side closed the connection"},
		"endless headers":   {s.URL + "/headers", "", "exceeded"},
		"nobody":            {"http://me:secret@" + nobody + "/", "", "connection refused"},
		"no scheme":         {"example.com/x", "", "http:// or https://"},
		"other scheme":      {"ftp://me:secret@example.com/x", "", "http:// or https://"},
		"file":              {"file:///etc/passwd", "", "http:// or https://"},
		"no host":           {"http:///x", "", "no host"},
		"not a URL":         {"http://me:secret@[::1", "", "not one that can be read"},
		"password in error": {"http://me:secret@" + host + "/none", "", `me:xxxxx@`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			o, err := b.run(t, "REQHttpGet", message.Message{Data: []string{tc.url}})
			if got := string(bytes.Join(b.emitted, nil)) + string(o.Body); got != tc.body || o.Exit != -1 {
				t.Errorf("got %d bytes %.100q, exit %d", len(got), got, o.Exit)
			}
			for _, p := range append(b.emitted, o.Body) {
				if len(p) > process.MaxPart {
					t.Errorf("a part of %d bytes", len(p))
				}
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) > 500) {
				t.Errorf("the error tells too much: %.1000v", err)
			}
		})
	}
}

func TestHttpGetWantsAURL(t *testing.T) {
	if _, err := newBench(t).run(t, "REQHttpGet", message.Message{}); err == nil {
		t.Error("got nothing from nowhere")
	}
}

func TestHttpGetEndsAtItsTimeout(t *testing.T) {
	s := site(t)
	for path, body := range map[string]string{"/hang": "", "/slow": "begun"} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		c := newBench(t).call(message.Message{Data: []string{s.URL + path}, MethodTimeout: 300 * time.Millisecond})
		o, err := spec(t, "REQHttpGet").Run(ctx, c)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 300ms") || string(o.Body) != body {
			t.Errorf("%s: got %q, %v", path, o.Body, err)
		}
	}
}

func TestHttpGetStopsWithItsNode(t *testing.T) {
	s := site(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := spec(t, "REQHttpGet").Run(ctx, newBench(t).call(message.Message{Data: []string{s.URL + "/hang"}}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestHttpGetEndsWhenTheBodyCannotBeStored(t *testing.T) {
	full := errors.New("disk failed")
	c := newBench(t).call(message.Message{Data: []string{site(t).URL + "/large"}})
	c.Emit = func(context.Context, []byte) error { return full }
	if _, err := spec(t, "REQHttpGet").Run(t.Context(), c); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}
