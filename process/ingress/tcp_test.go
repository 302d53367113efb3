package ingress_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"steward/process/ingress"
)

func TestTCPListenerSpeaksAsTheSocketDoes(t *testing.T) {
	for given, host := range map[string]string{":0": "127.0.0.1", "127.0.0.1:0": "127.0.0.1", "0.0.0.0:0": "::"} {
		opt := options(&store{})
		opt.Path, opt.Addr = "", given
		s, err := ingress.NewSocket(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		<-s.Ready()
		addr := s.Addr().(*net.TCPAddr)
		if got := addr.IP; !got.Equal(net.ParseIP(host)) && !(got.IsUnspecified() && host == "::") {
			t.Errorf("%s: listens on %s", given, got)
		}
		conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, ping+"\n["); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		lines := strings.SplitAfter(string(got), "\n")
		if err != nil || len(lines) != 3 || lines[0] != `{"accepted":["`+id(1).String()+"\"]}\n" || !strings.Contains(lines[1], `"error":"syntax error`) {
			t.Errorf("%q, %v", got, err)
		}
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestTCPAddressesAreChecked(t *testing.T) {
	for _, c := range []struct{ path, addr, want string }{
		{"x", "127.0.0.1:0", "not both"},
		{"", "4000", "want host:port"},
		{"", "", "no path"},
	} {
		opt := options(&store{})
		opt.Path, opt.Addr = c.path, c.addr
		if _, err := ingress.NewSocket(opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
