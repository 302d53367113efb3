package kvstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
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
	"full disk":           fullDisk,
}

func child(run string) int {
	if err := children[run](os.Getenv("STEWARD_TEST_PATH")); err != nil {
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

func limitFiles(bytes uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		return err
	}
	l.Cur = min(bytes, l.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l)
}

// fullDisk fills a store to the limit of the file's size, which fails writes as a full disk does,
// at first in growing the file, then in the middle of the pages of a commit.
func fullDisk(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	o := options(path)
	s, err := kvstore.Open(o)
	if err != nil {
		return err
	}
	var ids []message.ID
	fill := func(what string, limit uint64) error {
		if err := limitFiles(limit); err != nil {
			return err
		}
		for {
			got, err := s.Accept([]message.Message{msg("ship1", strings.Repeat("x", 5000)), msg("ship1", strings.Repeat("y", 5000))})
			if err == nil {
				if ids = append(ids, got...); len(ids) > 900 {
					return fmt.Errorf("%s: the limit does nothing", what)
				}
				continue
			}
			if !strings.Contains(err.Error(), "file too large") || errors.Is(err, kvstore.ErrFull) {
				return fmt.Errorf("%s: refused because: %w", what, err)
			}
			return sameAs(s, ids, what)
		}
	}
	if err := fill("growing", 300<<10); err != nil {
		return err
	}
	// It goes on failing, changes nothing, and holds nobody up.
	for range 20 {
		if _, err := s.Accept(msgs("ship2", 1000)); err == nil {
			return errors.New("a large array is taken on a full disk")
		}
	}
	if err := sameAs(s, ids, "refused again"); err != nil {
		return err
	}
	// What makes room still works, in one batch with what cannot.
	full := make(chan error)
	for range 8 {
		go func() {
			_, err := s.Accept([]message.Message{msg("ship3", strings.Repeat("x", 200<<10))})
			full <- err
		}()
	}
	err = <-s.Settle(stream("ship1"), []kvstore.Settled{{Seq: 1, ID: ids[0], Code: message.CodeDone, At: time.Now()}})
	for range 8 {
		if <-full == nil {
			return errors.New("200 KB are taken on a full disk")
		}
	}
	if err != nil {
		return fmt.Errorf("settle on a full disk: %w", err)
	}
	if ids = ids[1:]; sameAs(s, ids, "settled") != nil {
		return sameAs(s, ids, "settled")
	}
	// Less than the file has already: pages in front of the limit are written, those behind not.
	for limit := uint64(40 << 10); limit < 250<<10; limit += 36 << 10 {
		if err := fill(fmt.Sprintf("limit %d", limit), limit); err != nil {
			return err
		}
	}
	if err := limitFiles(1 << 40); err != nil {
		return err
	}
	got, err := s.Accept([]message.Message{msg("ship1", "there is room again")})
	if err != nil {
		return fmt.Errorf("with room: %w", err)
	}
	ids = append(ids, got...)
	if err := sameAs(s, ids, "with room"); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = kvstore.Open(o); err != nil {
		return err
	}
	return errors.Join(sameAs(s, ids, "reopened"), s.Close())
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

func TestFullDiskRefusesAndRecovers(t *testing.T) {
	cmd, lines := startChild(t, "full disk", t.TempDir()+"/steward.db")
	for lines.Scan() {
		t.Error(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
