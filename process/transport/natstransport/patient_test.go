package natstransport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlowLinkIsGivenAsMuchTimeAsItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
		type result struct {
			n   int
			err error
		}
		done := make(chan result, 1)
		write := func() {
			n, err := patientConn{near, 10 * time.Second}.Write(sent)
			done <- result{n, err}
		}
		go write()
		got := make([]byte, len(sent))
		for at := 0; at < len(got); at += chunk {
			<-time.After(9 * time.Second)
			if _, err := io.ReadFull(far, got[at:at+chunk]); err != nil {
				t.Fatal(err)
			}
		}
		if r := <-done; r.n != len(sent) || r.err != nil {
			t.Errorf("wrote %d bytes: %v", r.n, r.err)
		}
		if !bytes.Equal(got, sent) {
			t.Error("something else arrived")
		}

		began := time.Now()
		go write()
		if _, err := io.ReadFull(far, got[:chunk]); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.n != chunk || !errors.Is(r.err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d bytes to a link that takes one chunk: %v", r.n, r.err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("gave up after %v", took)
		}
		if n, err := (patientConn{near, time.Second}).Write(nil); n != 0 || err != nil {
			t.Errorf("wrote nothing: %d, %v", n, err)
		}
		_, _ = near.Close(), far.Close()
	})
}
