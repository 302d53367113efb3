package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// payloadSize is that of the text of each message.
const payloadSize = 100

// directory is where the receivers store what they get.
const directory = "bench"

var words = bytes.Fields([]byte(`engine fuel pump pressure level sensor ok warn failed start stop port starboard
	valve tank temperature rpm voltage battery charger link satellite gsm down up retry position course speed
	knots wind north east south west cabin bridge deck hull bilge ballast radar sonar cargo crane winch anchor
	harbour pilot watch log alarm reset closed open high low`))

// appendPayload appends the text of message i: a number and words, as lines of a log are.
func appendPayload(b []byte, i int) []byte {
	end := len(b) + payloadSize
	b = fmt.Appendf(b, "%08d", i)
	r := rand.New(rand.NewPCG(uint64(i), 1))
	for len(b) < end {
		b = append(append(b, ' '), words[r.IntN(len(words))]...)
	}
	return b[:end]
}

// order is a series of messages for one file.
type order struct {
	to, file string
	first, n int
	array    int // messages in one array
}

// appendArray appends the next array, of messages that want their payload appended to a file.
func (o *order) appendArray(b []byte) []byte {
	b = append(b, '[')
	for i := range min(o.array, o.n) {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"toNode":"%s","method":"REQToFileAppend","directory":"%s","fileName":"%s","replyMethod":"REQNone","retries":0,"data":["`,
			o.to, directory, o.file)
		b = append(appendPayload(b, o.first+i), `"]}`...)
	}
	o.first, o.n = o.first+min(o.array, o.n), o.n-min(o.array, o.n)
	return append(b, "]\n"...)
}

// hand writes an order to a node's socket as one stream, and returns how long it took until the node
// had accepted all of it.
func hand(ctx context.Context, socket string, o order) (time.Duration, error) {
	want := o.n
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	began := time.Now()
	var werr error
	var wg sync.WaitGroup
	wg.Go(func() {
		out := bufio.NewWriterSize(conn, 64<<10)
		for b := []byte(nil); o.n > 0 && werr == nil; {
			b = o.appendArray(b[:0])
			_, werr = out.Write(b)
		}
		werr = errors.Join(werr, out.Flush(), conn.(*net.UnixConn).CloseWrite())
	})
	answers, rerr := io.ReadAll(conn) // the node closes a connection of which it has read all
	took := time.Since(began)
	_ = conn.Close()
	wg.Wait()
	if err := errors.Join(rerr, werr); err != nil {
		return 0, fmt.Errorf("hand in %d messages: %w", want, err)
	}
	return took, checkAnswers(answers, want)
}

// request hands one array in, as nc would, and returns when its n messages are accepted.
func (l *lab) request(n *nodeProc, messages int, array string) error {
	conn, err := new(net.Dialer).DialContext(l.ctx, "unix", n.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(l.ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(conn, array); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("hand in: %w", err)
	}
	return checkAnswers(line, messages)
}

// checkAnswers holds that so many messages were accepted, each with an id of its own.
func checkAnswers(answers []byte, want int) error {
	ids := make(map[string]bool, want)
	n := 0
	for line := range bytes.Lines(answers) {
		accepted, err := readAnswer(line)
		if err != nil {
			return err
		}
		for _, id := range accepted {
			ids[id] = true
			n++
		}
	}
	if n != want || len(ids) != want {
		return fmt.Errorf("%d messages were handed in, %d accepted, with %d ids", want, n, len(ids))
	}
	return nil
}

func readAnswer(line []byte) ([]string, error) {
	var a struct {
		Accepted []string
		Error    string
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("answer %.200q: %w", line, err)
	}
	if a.Error != "" {
		return nil, fmt.Errorf("the node refuses: %s", a.Error)
	}
	return a.Accepted, nil
}

// arrived waits until a file has n payloads, checks that they are 0 to n-1 in order, and returns
// when the last of them was there.
func (l *lab) arrived(path string, n int) (time.Time, error) {
	const line = payloadSize + 1
	size := int64(0)
	err := l.await(fmt.Sprintf("all %d messages in %s", n, path), func() bool {
		if info, err := os.Stat(path); err == nil {
			size = info.Size()
		}
		return size >= int64(n*line)
	})
	at := time.Now()
	if err != nil {
		return at, fmt.Errorf("%w (there are %d)", err, size/line)
	}
	f, err := os.Open(path)
	if err != nil {
		return at, err
	}
	defer f.Close()
	return at, checkLines(f, n)
}

// checkLines holds that what is read is the payloads 0 to n-1, each on a line.
func checkLines(r io.Reader, n int) error {
	lines := bufio.NewScanner(r)
	var want []byte
	i := 0
	for ; lines.Scan(); i++ {
		if want = appendPayload(want[:0], i); i >= n || !bytes.Equal(lines.Bytes(), want) {
			return fmt.Errorf("line %d of %d is %q", i, n, lines.Bytes())
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if i != n {
		return fmt.Errorf("%d lines, want %d", i, n)
	}
	return nil
}
