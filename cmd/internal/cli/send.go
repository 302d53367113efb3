package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"steward/client"
	"steward/cmd/internal/audit"
	"steward/message"
)

// sentMessage is what send prints with -json.
type sentMessage struct {
	ID     message.ID     `json:"id"`
	Node   message.Node   `json:"node,omitempty" doc:"with -wait: its receiver"`
	Method message.Method `json:"method,omitempty" doc:"with -wait"`
	State  message.State  `json:"state" doc:"accepted; with -wait how it ended: done, failed, expired or removed"`
	Code   message.Code   `json:"code,omitempty" doc:"with -wait: how it ended, in one word"`
	Text   string         `json:"text,omitempty" doc:"with -wait: why, for people"`
	Exit   int            `json:"exit,omitempty" doc:"with -wait: exit status of a command that failed"`
	Stderr string         `json:"stderr,omitempty" doc:"with -wait: the beginning of what a command wrote there"`
}

func sendOperation() operation {
	return operation{
		name: "send", args: "FILE...", least: 1, most: -1, local: true, result: sentMessage{}, lines: true,
		short: "hand messages to the node that runs here, from files or lines of its audit log",
		about: `send hands messages to the node that runs here, through its socket, and prints the ids of those that it has
accepted, one to a line. A FILE holds messages as JSON or YAML; - is the standard input. It may also hold lines of a node's audit
log (<databaseFolder>/<node>.audit.log): their messages are sent again.`,
		example: "steward send example/req_cli_command.json\nsteward send -wait -timeout 10m upgrade.json\ngrep 06h0cc2c8w0000012d09p1y690 lib/central.audit.log | steward send -",
		exits:   "1 not all were accepted; with -wait: 1 some failed, 3 some were not delivered, 4 denied, 5 timed out",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			wait := flags.Bool("wait", false, "wait until all have ended, and their replies are here, with a bar on a terminal; say of those that did not end well how they did")
			timeout := duration(flags, "timeout", 0, "give up waiting after this `TIME`, such as 90s or 10m (default: never)")
			return func(ctx context.Context, c *call) error { return send(ctx, c, *wait, *timeout) }
		},
	}
}

func send(ctx context.Context, c *call, wait bool, timeout time.Duration) error {
	local, err := c.local(ctx)
	if err != nil {
		return err
	}
	defer local.Close()
	var errs []error
	var all []message.ID
	for _, name := range c.args {
		ids, err := sendFile(ctx, local, name, c.in)
		if err != nil {
			errs = append(errs, inEachLine{name, err})
		}
		for _, id := range ids {
			switch {
			case !c.json:
				fmt.Fprintln(c.out, id)
			case !wait:
				if err := c.printJSON(sentMessage{ID: id, State: message.StateAccepted}); err != nil {
					return err
				}
			}
		}
		all = append(all, ids...)
	}
	if len(all) > 0 {
		a := c.acquaintance(ctx, local)
		c.tellStrangers("send", a, a.waitingFor(ctx, local, all), wait)
	}
	err = errors.Join(errs...)
	if !wait || len(all) == 0 || ctx.Err() != nil {
		return err
	}
	if werr := c.waitFor(ctx, local, all, timeout); werr != nil && err == nil {
		return werr // one that was not accepted counts for more
	}
	return err
}

// waitFor waits until messages have ended, and says which did not end well.
func (c *call) waitFor(ctx context.Context, local *client.Client, ids []message.ID, timeout time.Duration) error {
	if timeout > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	codes := map[int]bool{}
	ended, failed, began := 0, 0, time.Now()
	// A long batch has a bar on a terminal; elsewhere nobody needs it.
	var bar *live
	errOut, out := c.err, c.out
	if file := c.terminal(c.err); file != nil {
		bar = &live{file: file}
		errOut = aboveLive{bar, c.err}
		if c.terminal(c.out) != nil {
			out = aboveLive{bar, c.err} // the same terminal
		}
	}
	var err error
	for st, cut := range local.Ends(ctx, ids...) {
		if err = cut; err != nil {
			break
		}
		ended++
		l := st.Life()
		why, code := howEnded(&st)
		codes[code] = true
		if code != exitDone {
			failed++
			fmt.Fprintf(errOut, "steward: send: %s %s to %s: %s%s\n", st.ID, l.Method, l.Peer, strings.Join(strings.Fields(why), " "), saidOn(l.Stderr))
		}
		if c.json {
			if err = encodeLine(out, sentMessage{st.ID, l.Peer, l.Method, l.State, l.Code, l.Text, l.Exit, l.Stderr}); err != nil {
				break
			}
		}
		if bar != nil {
			columns, _ := sizeOf(bar.file)
			bar.draw(progressBar(ended, failed, len(ids), time.Since(began), columns))
		}
	}
	if bar != nil {
		bar.draw()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitError{hinted{fmt.Errorf("%d of %d have not ended after %v", len(ids)-ended, len(ids), timeout), "steward status ID says for what one waits"}, exitTimeout}
	}
	if err != nil {
		return err
	}
	return exitOf(codes)
}

// saidOn is what a command wrote on stderr, as an end of a line about it.
func saidOn(stderr string) string {
	const most = 200
	line := []rune(oneLine(stderr))
	switch {
	case len(line) == 0:
		return ""
	case len(line) > most:
		line = append(line[:most], '…')
	}
	return "; stderr: " + string(line)
}

// exitOf is the error for several ends that were told: their code if it is the same for all that were not good.
func exitOf(codes map[int]bool) error {
	code := exitDone
	for c := range codes {
		if c != exitDone && code != exitDone {
			return exitStatus(exitFailed)
		}
		code = max(code, c)
	}
	if code == exitDone {
		return nil
	}
	return exitStatus(code)
}

// progressBar says in a line how far it has come.
func progressBar(ended, failed, all int, took time.Duration, columns int) string {
	text := fmt.Sprintf(" %d of %d have ended", ended, all)
	if failed > 0 {
		text += fmt.Sprintf(", %d not well", failed)
	}
	if s := took.Seconds(); s > 0 && ended < all {
		text += fmt.Sprintf("; %s/s, %s left", rate(float64(ended)/s), wholeSpan(took*time.Duration(all-ended)/time.Duration(ended)))
	}
	wide := min(40, columns-3-widthOf(text))
	if wide < 5 {
		return strings.TrimSpace(text)
	}
	full := wide * ended / all
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", wide-full) + "]" + text
}

// sendFile hands in what a file holds, and returns the ids of what was accepted.
func sendFile(ctx context.Context, local *client.Client, name string, stdin io.Reader) ([]message.ID, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, noMessages(err)
		}
		defer f.Close()
		in = f
	}
	text, err := messagesOf(in)
	if err != nil {
		return nil, noMessages(err)
	}
	return local.SendText(ctx, text)
}

// noMessages says why a file, whose name is said, could not be read.
func noMessages(err error) error {
	no := new(fs.PathError)
	if !errors.As(err, &no) {
		return err
	}
	return hinted{no.Err, cmp.Or(denied(err), "a FILE holds messages as JSON or YAML; - is the standard input")}
}

// messagesOf returns what is to be written to the socket: in as it is, or the messages of the lines
// of an audit log as one array, so that all of them are accepted or none.
func messagesOf(in io.Reader) (io.Reader, error) {
	r := bufio.NewReaderSize(in, 64<<10)
	first, err := r.ReadBytes('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	if _, ok, _ := audit.Parse(first); !ok {
		return io.MultiReader(bytes.NewReader(first), r), nil
	}
	array := []byte{'['}
	for n, text := 1, first; ; n++ {
		if len(bytes.TrimSpace(text)) > 0 {
			line, ok, err := audit.Parse(text)
			switch {
			case !ok:
				return nil, fmt.Errorf("line %d is not one of an audit log, as those before it are", n)
			case err != nil:
				return nil, fmt.Errorf("line %d: message %s: %w", n, line.ID, err)
			}
			if len(array) > 1 {
				array = append(array, ',')
			}
			array = append(array, line.Message...)
		}
		if err == io.EOF {
			return bytes.NewReader(append(array, ']')), nil
		}
		if text, err = r.ReadBytes('\n'); err != nil && err != io.EOF {
			return nil, err
		}
	}
}
