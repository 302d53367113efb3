//go:build unix

package ingress_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"steward/process/ingress"
)

// runClient runs this program as a client, with the user and group of cred where that is given.
func runClient(t *testing.T, path string, cred *syscall.Credential) (pid int, answer string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	if cred != nil { // it is in a folder that only its owner may enter
		content, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(filepath.Join(filepath.Dir(filepath.Dir(path)), "client"))
		if err := os.WriteFile(cmd.Path, content, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(cmd.Path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Dir, cmd.Env = "/", []string{dialEnv + "=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, strings.TrimSpace(string(out)) // which says how it ended
}

func TestSocketIsPrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(folder(t), "a", "b", "steward.sock")
	opt := options(&store{})
	opt.Path = path
	_, stop := open(t, opt)
	for file, want := range map[string]os.FileMode{path: os.ModeSocket | 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Lstat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", file, info.Mode(), err, want)
		}
	}
	wantFiles(t, filepath.Dir(path), "steward.sock")
	if err := stop(); err != nil {
		t.Error(err)
	}
	wantFiles(t, filepath.Dir(path))
}

func TestMessagesSayWhoHandedThemIn(t *testing.T) {
	s := &store{}
	path, stop := open(t, options(s))
	pid, answer := runClient(t, path, nil)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(answer, `{"accepted"`) || s.count() != 1 {
		t.Fatal(answer)
	}
	want := fmt.Sprintf("socket uid=%d pid=%d", os.Geteuid(), pid)
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		want = "socket"
	}
	if got := s.taken[0].Origin; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTCPMessagesSayWhereTheyComeFrom(t *testing.T) {
	s := &store{}
	opt := options(s)
	opt.Path, opt.Addr = "", "127.0.0.1:0"
	sock, err := ingress.NewSocket(opt)
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(t, sock)
	conn, err := net.Dial("tcp", sock.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, ping); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"accepted"`) {
		t.Fatal(line, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := s.taken[0].Origin; got != "tcp "+conn.LocalAddr().String() {
		t.Errorf("got %q", got)
	}
}

func TestSocketIsOfItsGroup(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	base := folder(t)
	if err := os.Chmod(base, 0o755); err != nil { // others have to get as far as the socket's own folder
		t.Fatal(err)
	}
	group := os.Getegid()
	const nobody = 65534
	root := os.Geteuid() == 0
	if root {
		group = 4242 // root may use any number
	}
	s := &store{}
	opt := options(s)
	opt.Path = filepath.Join(base, "run", "steward.sock")
	opt.Access = ingress.Access{Mode: 0o660, Group: &group}
	path, _ := open(t, opt)
	for file, want := range map[string]os.FileMode{path: os.ModeSocket | 0o660, filepath.Dir(path): os.ModeDir | 0o710} {
		info, err := os.Lstat(file)
		if err != nil {
			t.Fatal(err)
		}
		if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode() != want || int(gid) != group {
			t.Errorf("%s: %v of group %d, want %v of group %d", file, info.Mode(), gid, want, group)
		}
	}
	if !root {
		return // one user cannot be two
	}
	if _, answer := runClient(t, path, &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{4242}}); !strings.HasPrefix(answer, `{"accepted"`) {
		t.Errorf("one of the group: %s", answer)
	}
	if _, answer := runClient(t, path, &syscall.Credential{Uid: nobody, Gid: nobody}); !strings.Contains(answer, "permission denied") {
		t.Errorf("one who is not of the group: %s", answer)
	}
}

func TestFolderThatKeepsTheGroupOutIsRefused(t *testing.T) {
	dir := folder(t) // 0700
	err := ingress.MakeFolder(dir, ingress.Access{Mode: 0o660})
	if err == nil || !strings.Contains(err.Error(), "cannot enter it; chmod g+x") {
		t.Error(err)
	}
	if err := ingress.MakeFolder(dir, ingress.Access{Mode: 0o600}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has become %v, %v", info.Mode(), err)
	}
}

func TestWhatIsAtThePlaceOfTheSocketStays(t *testing.T) {
	for name, make := range map[string]func(place, other string) error{
		"file":                func(place, _ string) error { return os.WriteFile(place, []byte("x"), 0o600) },
		"link to a file":      func(place, other string) error { return os.Symlink(other, place) },
		"link to nothing":     func(place, other string) error { return os.Symlink(other+"-", place) },
		"link to dead socket": func(place, other string) error { return os.Symlink(other+".sock", place) },
		"folder":              func(place, _ string) error { return os.Mkdir(place, 0o700) },
		"pipe":                func(place, _ string) error { return syscall.Mkfifo(place, 0o600) },
	} {
		dir := folder(t)
		place, other := filepath.Join(dir, "steward.sock"), filepath.Join(dir, "other")
		if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: other + ".sock", Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		_ = dead.Close()
		if err := make(place, other); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(place)
		if err != nil {
			t.Fatal(err)
		}
		opt := options(&store{})
		opt.Path = place
		s, err := ingress.NewSocket(opt)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "is there and is no socket") {
			t.Errorf("%s: %v", name, err)
		}
		after, err := os.Lstat(place)
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: it was touched: %v", name, err)
		}
		if b, err := os.ReadFile(other); err != nil || string(b) != "mine" {
			t.Errorf("%s: the other file: %q, %v", name, b, err)
		}
	}
}
