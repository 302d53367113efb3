//go:build unix

package methods_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"steward/message"
	"steward/process"
)

// both are the methods that write a file of the sender's choice.
var both = []message.Method{message.MethodToFileAppend, "REQToFile"}

func (b *bench) runAll(t testing.TB, name message.Method, ms ...message.Message) []error {
	t.Helper()
	s := spec(t, name)
	var calls []*process.Call
	for _, m := range ms {
		m.Method = name
		c := b.call(m)
		c.Emit = nil
		calls = append(calls, c)
	}
	if _, err := s.Mark(calls); err != nil {
		t.Fatal(err)
	}
	errs := s.RunAll(context.Background(), calls)
	if len(errs) != len(calls) {
		t.Fatalf("%d errors for %d calls", len(errs), len(calls))
	}
	return errs
}

func TestFileContent(t *testing.T) {
	for name, tc := range map[string]struct {
		m    message.Message
		want string
	}{
		"lines":           {message.Message{Data: []string{"a", "b\n", ""}}, "a\nb\n\n"},
		"body":            {message.Message{Body: []byte("a\x00\xff\r\nb")}, "a\x00\xff\r\nb"},
		"both":            {message.Message{Data: []string{"a"}, Body: []byte("b")}, "a\nb"},
		"nothing":         {message.Message{}, ""},
		"reply":           {reply(message.Message{Data: []string{"argument"}, Body: []byte("b")}, 0, false), "b"},
		"reply with none": {reply(message.Message{}, 0, false), ""},
	} {
		for _, method := range both {
			t.Run(name+"/"+string(method), func(t *testing.T) {
				b := newBench(t)
				tc.m.Directory, tc.m.FileName = "/some//folder/", "f"
				for range 2 {
					if err := errors.Join(b.runAll(t, method, tc.m)...); err != nil {
						t.Fatal(err)
					}
				}
				want := tc.want
				if method == message.MethodToFileAppend {
					want += tc.want
				}
				if got := b.read(t, "some/folder/central/f"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				for path, mode := range map[string]fs.FileMode{"some": 0o700, "some/folder/central": 0o700, "some/folder/central/f": 0o600} {
					if fi, err := b.Files.Stat(path); err != nil || fi.Mode().Perm() != mode {
						t.Errorf("%s: %v, %v", path, fi.Mode(), err)
					}
				}
			})
		}
	}
}

func TestFileIsReplacedInOneStep(t *testing.T) {
	b := newBench(t)
	m := message.Message{FileName: "f", Body: []byte("old")}
	if err := errors.Join(b.runAll(t, "REQToFile", m)...); err != nil {
		t.Fatal(err)
	}
	reader, err := b.Files.Open("central/f")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for i, body := range []string{"new ", "and ", "whole"} {
		m.Body = []byte(body)
		if err := errors.Join(b.runAll(t, "REQToFile", reply(m, uint32(i), i < 2))...); err != nil {
			t.Fatal(err)
		}
		want := "old"
		if i == 2 {
			want = "new and whole"
		}
		if got := b.read(t, "central/f"); got != want {
			t.Errorf("after part %d: %q", i, got)
		}
	}
	got := make([]byte, 10)
	if n, err := reader.Read(got); err != nil || string(got[:n]) != "old" {
		t.Errorf("who had it open reads %q, %v", got[:n], err)
	}
	if entries, err := os.ReadDir(filepath.Join(b.dir, "central")); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestMissingPartIsNoticed(t *testing.T) {
	for name, parts := range map[string][]uint32{"first": {1, 2}, "middle": {0, 2}} {
		for _, batches := range []int{1, 2} {
			b := newBench(t)
			m := message.Message{FileName: "f", Body: []byte("x")}
			var ms []message.Message
			for i, part := range parts {
				ms = append(ms, reply(m, part, i < len(parts)-1))
			}
			var errs []error
			if batches == 1 {
				errs = b.runAll(t, "REQToFile", ms...)
			} else {
				errs = append(b.runAll(t, "REQToFile", ms[0]), b.runAll(t, "REQToFile", ms[1])...)
			}
			if err := errs[len(errs)-1]; err == nil || !strings.Contains(err.Error(), "missing") {
				t.Errorf("%s, %d batches: %v", name, batches, errs)
			}
			if _, err := b.Files.Stat("central/f"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: a file with a hole was made", name)
			}
		}
	}
}

func TestOneBadCallFailsAlone(t *testing.T) {
	for _, method := range both {
		t.Run(string(method), func(t *testing.T) {
			b := newBench(t)
			outside := t.TempDir()
			for _, err := range []error{
				b.Files.MkdirAll("central/folder", 0o700),
				os.Symlink(outside, filepath.Join(b.dir, "leaves")),
				os.Symlink(filepath.Join(outside, "x"), filepath.Join(b.dir, "central", "absolute")),
				os.Symlink("../../x", filepath.Join(b.dir, "central", "relative")),
				syscall.Mkfifo(filepath.Join(b.dir, "central", "pipe"), 0o600),
				b.Files.WriteFile("file", nil, 0o600),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			errs := b.runAll(t, method,
				message.Message{FileName: "good", Body: []byte("1")},
				message.Message{FileName: "../x"},
				message.Message{Directory: "../..", FileName: "x"},
				message.Message{Directory: "leaves", FileName: "x"},
				message.Message{FileName: "absolute"},
				message.Message{FileName: "relative"},
				message.Message{FileName: "folder"},
				message.Message{FileName: "pipe"},
				message.Message{Directory: "file", FileName: "x"},
				message.Message{FileName: strings.Repeat("n", 300)},
				message.Message{FileName: "good", Body: []byte("2")},
			)
			for i, err := range errs {
				bad := i > 0 && i < len(errs)-1
				if (err != nil) != bad {
					t.Errorf("call %d: %v", i, err)
				}
				if err != nil && (errors.Is(err, process.ErrTryLater) || len(err.Error()) > 250 || strings.Contains(err.Error(), b.dir)) {
					t.Errorf("call %d: %v", i, err)
				}
			}
			want := map[message.Method]string{message.MethodToFileAppend: "12", "REQToFile": "2"}[method]
			if got := b.read(t, "central/good"); got != want {
				t.Errorf("got %q", got)
			}
			if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
				t.Errorf("outside of the data folder: %v, %v", entries, err)
			}
		})
	}
}

func TestSocketIsWrittenTo(t *testing.T) {
	for _, method := range both {
		for _, network := range []string{"unix", "unixgram"} {
			t.Run(string(method)+"/"+network, func(t *testing.T) {
				b := newBench(t)
				if err := b.Files.Mkdir("central", 0o700); err != nil {
					t.Fatal(err)
				}
				addr := &net.UnixAddr{Name: filepath.Join(b.dir, "central", "s"), Net: network}
				var read func() string
				if network == "unix" {
					l, err := net.ListenUnix(network, addr)
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					read = func() string {
						c, err := l.Accept()
						if err != nil {
							t.Fatal(err)
						}
						defer c.Close()
						buf := make([]byte, 100)
						n, _ := c.Read(buf)
						for n < 4 {
							m, err := c.Read(buf[n:])
							if err != nil {
								break
							}
							n += m
						}
						return string(buf[:n])
					}
				} else {
					c, err := net.ListenUnixgram(network, addr)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					read = func() string {
						var all string
						for range 2 {
							buf := make([]byte, 100)
							n, err := c.Read(buf)
							if err != nil {
								t.Fatal(err)
							}
							all += string(buf[:n])
						}
						return all
					}
				}
				m := message.Message{FileName: "s", Data: []string{"a"}}
				other := message.Message{FileName: "s", Data: []string{"b"}}
				if err := errors.Join(b.runAll(t, method, m, other)...); err != nil {
					t.Fatal(err)
				}
				if got := read(); got != "a\nb\n" {
					t.Errorf("got %q", got)
				}
			})
		}
	}
}

func TestDeadSocketIsAClearError(t *testing.T) {
	b := newBench(t)
	if err := b.Files.Mkdir("central", 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.dir, "central", "s")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("s", filepath.Join(b.dir, "central", "link")); err != nil {
		t.Fatal(err)
	}
	errs := b.runAll(t, message.MethodToFileAppend, message.Message{FileName: "s"}, message.Message{FileName: "link"})
	if !errors.Is(errs[0], syscall.ECONNREFUSED) || errs[1] == nil || !strings.Contains(errs[1].Error(), "symbolic link") {
		t.Errorf("got %v", errs)
	}
}

func TestEndedContextLeavesFilesAlone(t *testing.T) {
	for _, method := range both {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		errs := spec(t, method).RunAll(ctx, []*process.Call{b.call(message.Message{FileName: "f"})})
		if !errors.Is(errs[0], context.Canceled) {
			t.Errorf("got %v", errs)
		}
		if entries, err := os.ReadDir(b.dir); err != nil || len(entries) != 0 {
			t.Errorf("wrote %v, %v", entries, err)
		}
	}
}

func FuzzFilesStayInTheDataFolder(f *testing.F) {
	for _, seed := range [][3]string{
		{"cli_command__result", "some-file-name.result", "ship1"},
		{"../..", "x", "ship1"}, {"/etc", "passwd", "a.b"}, {"a/../../b", "x", ".."}, {"link", "x", "ship1"},
		{"deep/link/..", "../x", "ship1"}, {"a\\..\\..", "x\x00", "."}, {".", ".", "..."}, {"link/ship1", "..", "ship1"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, directory, file, from string) {
		b := newBench(t)
		outer, err := os.MkdirTemp("", "st")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(outer)
		inner := filepath.Join(outer, "outside", "data")
		if err := os.MkdirAll(filepath.Join(inner, "deep"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{"link", "deep/link"} {
			if err := os.Symlink(filepath.Join(outer, "outside"), filepath.Join(inner, link)); err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.OpenRoot(inner)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		b.Files = root
		m := message.Message{From: message.Node(from), Directory: directory, FileName: file, Data: []string{"x"}}
		if from == "" {
			m.From = "ship1"
		}
		for _, name := range []message.Method{message.MethodToFileAppend, "REQToFile", message.MethodErrorLog} {
			b.runAll(t, name, m)
		}
		for _, name := range []message.Method{"REQPing", "REQPong", message.MethodHello} {
			_, _ = b.run(t, name, m)
		}
		err = filepath.WalkDir(outer, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if path == inner {
				return fs.SkipDir
			}
			if rel, _ := filepath.Rel(outer, path); rel != "." && rel != "outside" {
				t.Errorf("made %s", rel)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
