package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/rogpeppe/go-internal/testscript"
)

// web starts a web server that ends with the script, and puts its address into WEB. It is a proxy
// too: a node with HTTP_PROXY=$WEB finds each site there.
//
//	/large   1,000,000 bytes
//	/hang    nothing, ever
//	/none    404
//	others   a line with their URL
func web(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "web")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = w.Write(bytes.Repeat([]byte("0123456789abcde\n"), 62_500))
		case "/hang":
			<-r.Context().Done()
		case "/none":
			http.NotFound(w, r)
		default:
			fmt.Fprintf(w, "page %s\n", r.URL)
		}
	}))
	ts.Defer(func() {
		s.CloseClientConnections()
		s.Close()
	})
	ts.Setenv("WEB", s.URL)
}
