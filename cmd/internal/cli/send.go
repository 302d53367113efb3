package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"steward/cmd/internal/audit"
	"steward/message"
)

const sendHelp = `steward send hands messages to the node that runs here, through its socket, and prints the
ids of those that it has accepted, one to a line.

usage: steward send [flags] FILE...

A FILE holds messages as JSON or YAML; - is the standard input. It may also hold lines of a
node's audit log (<databaseFolder>/<node>.audit.log): their messages are sent again.

  steward send example/req_cli_command.json
  grep 06h0cc2c8w0000012d09p1y690 lib/central.audit.log | steward send -

  -configFolder FOLDER   that of the node (default ./etc, or CONFIGFOLDER in the environment)
  -socketFolder FOLDER   where its steward.sock is (default: as its configuration says)

exit codes: 0 all were accepted, 1 not all were, 2 usage, 130 interrupted
`

func runSend(ctx context.Context, args []string, s streams) error {
	flags := flag.NewFlagSet("send", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	configFolder := flags.String("configFolder", "", "")
	socketFolder := flags.String("socketFolder", "", "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, sendHelp)
		return errors.Join(werr, flag.ErrHelp)
	} else if err != nil {
		return usageError{hinted{fmt.Errorf("send: %w", err), "steward send -h"}}
	}
	if flags.NArg() == 0 {
		return usageError{hinted{errors.New("send: no file"), "steward send FILE, or - for the standard input; steward send -h"}}
	}
	socket, err := socketOf(*configFolder, *socketFolder, s.env)
	if err != nil {
		return usageError{err}
	}
	var errs []error
	for _, name := range flags.Args() {
		if err := sendFile(ctx, socket, name, s); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// socketOf returns the socket of the node that has this configuration.
func socketOf(configFolder, socketFolder string, env []string) (string, error) {
	cfg, err := configOf(env, "configFolder", configFolder, "socketFolder", socketFolder)
	if err != nil {
		return "", err
	}
	return filepath.Join(cfg.SocketFolder, "steward.sock"), nil
}

func sendFile(ctx context.Context, socket, name string, s streams) error {
	in := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := messagesOf(in)
	if err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	if err := hand(ctx, socket, text, s.out); err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	return nil
}

// hand writes messages to a node's socket and prints the ids of those that the node has accepted.
func hand(ctx context.Context, socket string, text io.Reader, out io.Writer) error {
	ids, refused, err := handIn(ctx, socket, text)
	for _, id := range ids {
		fmt.Fprintln(out, id)
	}
	switch {
	case err != nil:
		return err
	case len(refused) > 0:
		return errors.Join(refused...)
	case len(ids) == 0:
		return errors.New("it holds no message")
	}
	return nil
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

// handIn writes text to a node's socket and returns what the node answers: the ids of what it has
// accepted, and why it refused the rest.
func handIn(ctx context.Context, socket string, text io.Reader) (ids []message.ID, refused []error, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, nil, hinted{err, "does a node run here? -socketFolder names the folder of its socket"}
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
	answers := bufio.NewReader(conn)
	for {
		line, err := answers.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			var a struct {
				Accepted []message.ID `json:"accepted"`
				Error    string       `json:"error"`
			}
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				return ids, refused, fmt.Errorf("the node answers what makes no sense: %s", message.Quote(line))
			}
			ids = append(ids, a.Accepted...)
			if a.Error != "" {
				refused = append(refused, errors.New(a.Error))
			}
		}
		switch {
		case ctx.Err() != nil:
			return ids, refused, ctx.Err()
		case err == io.EOF:
			sent.Wait()
			if werr != nil && len(refused) == 0 {
				return ids, refused, werr
			}
			return ids, refused, nil
		case err != nil:
			return ids, refused, err
		}
	}
}
