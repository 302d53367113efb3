package kvstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"steward/kvstore"
	"steward/message"
)

// Some things happen to a whole process: it is killed, or may not write. The test program then
// runs itself as a child, which does one of these.
var children = map[string]func(path string) error{
	"accept until killed": acceptUntilKilled,
	"hold":                hold,
}

func child(run string) int {
	do := children[run]
	if do == nil {
		do = systemChildren[run]
	}
	if err := do(os.Getenv("STEWARD_TEST_PATH")); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// startChild starts a child. Its input ends with the test.
func startChild(t *testing.T, run, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "STEWARD_TEST_CHILD="+run, "STEWARD_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// acceptUntilKilled accepts from several goroutines, settles a part of it, and prints what was
// acknowledged.
func acceptUntilKilled(path string) error {
	s, err := kvstore.Open(options(path))
	if err != nil {
		return err
	}
	fail := make(chan error, 4)
	for w := range 4 {
		go func() {
			to := message.Node(fmt.Sprintf("ship%d", w))
			for i := 0; ; i++ {
				ids, err := s.Accept([]message.Message{msg(to, strings.Repeat("x", i%3000)), msg(to, fmt.Sprint(i))})
				if err != nil {
					fail <- err
					return
				}
				fmt.Printf("accepted %s %s %s\n", to, ids[0], ids[1])
				e := kvstore.Settled{Seq: uint64(2*i + 1), ID: ids[0], Code: message.CodeDone, At: time.Now()}
				if i < 50 { // the first ones stay
					continue
				}
				if err := <-s.Settle(stream(to), []kvstore.Settled{e, {Seq: e.Seq + 1, ID: ids[1], Code: message.CodeUnreachable, At: time.Now()}}); err != nil {
					fail <- err
					return
				}
				fmt.Printf("settled %s %s %s\n", to, ids[0], ids[1])
			}
		}()
	}
	return <-fail
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	path := t.TempDir() + "/steward.db"
	accepted, settled := map[string]bool{}, map[string]bool{}
	cmd, lines := startChild(t, "accept until killed", path)
	for n := 0; n < 300 && lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		for _, id := range f[2:] {
			switch f[0] {
			case "accepted":
				accepted[id] = true
			case "settled":
				settled[id] = true
			default:
				t.Fatal(lines.Text())
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what was printed before
		f := strings.Fields(lines.Text())
		for _, id := range f[min(2, len(f)):] {
			if len(id) == 26 && f[0] == "accepted" {
				accepted[id] = true
			}
		}
	}
	_ = cmd.Wait()
	s := open(t, options(path))
	defer func() { _ = s.Close() }()
	if err := s.Audit(); err != nil {
		t.Fatal(err)
	}
	waiting := map[string]bool{}
	infos, err := s.Streams()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		last := uint64(0)
		for _, q := range read(t, s, info.Stream) {
			if waiting[q.ID.String()] || q.Seq <= last {
				t.Errorf("%s again, or out of order", q.ID)
			}
			waiting[q.ID.String()], last = true, q.Seq
		}
	}
	for id := range accepted {
		parsed, err := message.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Sent(parsed)
		if err != nil || waiting[id] == l.State.Final() || settled[id] && waiting[id] {
			t.Errorf("%s: settled %t, waiting %t, %+v, %v", id, settled[id], waiting[id], l, err)
		}
	}
	if len(accepted) < 100 {
		t.Errorf("only %d were accepted", len(accepted))
	}
}

// hold has the file open until its input ends.
func hold(path string) error {
	s, err := kvstore.Open(options(path))
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return errors.Join(err, s.Close())
}

func TestFileOfAnotherProcessIsInUse(t *testing.T) {
	path := t.TempDir() + "/steward.db"
	_, lines := startChild(t, "hold", path)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatal(lines.Text())
	}
	o := options(path)
	o.LockTimeout = 50 * time.Millisecond
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := kvstore.Open(o); !errors.Is(err, kvstore.ErrInUse) {
		t.Fatalf("%v, %v", s, err)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file was touched, %v", err)
	}
}

func sameAs(s *kvstore.Store, ids []message.ID, when string) error {
	if s.SetAside() != "" {
		return fmt.Errorf("%s: set aside: %s", when, s.SetAside())
	}
	if err := s.Audit(); err != nil {
		return fmt.Errorf("%s: %w", when, err)
	}
	_, q, err := s.Read(stream("ship1"), 0, 1<<20, 1<<30)
	if err != nil || len(q) != len(ids) {
		return fmt.Errorf("%s: %d are there, %w; want %d", when, len(q), err, len(ids))
	}
	for i := range q {
		if q[i].ID != ids[i] {
			return fmt.Errorf("%s: message %d is %s, want %s", when, i, q[i].ID, ids[i])
		}
	}
	if n, _, err := s.Sizes(); err != nil || n != int64(len(ids)) {
		return fmt.Errorf("%s: %d are counted, %w", when, n, err)
	}
	return nil
}
