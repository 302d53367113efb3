package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// systemPrograms are further programs of the test binary.
var systemPrograms = map[string]func(){"watched": watchedMain}

// syncs decides whether the syncs of a process reach its disk. The kernel stops the process in each
// fsync and fdatasync, and asks the test: it goes on as if nothing was, or fails with EIO as on a
// broken disk. What was to be synced stays in the kernel's cache then, as it does there.
type syncs struct {
	t testing.TB

	mu     sync.Mutex // guards what follows, and is held when fail is called
	fail   func(path string) bool
	failed int
}

func newSyncs(t testing.TB) *syncs {
	if listenArch[runtime.GOARCH] == 0 {
		t.Skipf("no filter of system calls for %s", runtime.GOARCH)
	}
	return &syncs{t: t}
}

// set says which syncs fail from now on, by the paths of their files; nil for none.
func (s *syncs) set(fail func(path string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// count is how many have failed so far.
func (s *syncs) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *syncs) fails(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil || !s.fail(path) {
		return false
	}
	s.failed++
	return true
}

// around has a command, which was not started yet, run under the eyes of the test. What it returns is to be
// called when the command was started. The test is skipped where the kernel cannot do it.
func (s *syncs) around(cmd *exec.Cmd) (started func()) {
	s.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	s.must(err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	path, err := exec.LookPath("watched")
	s.must(err)
	cmd.Args = append([]string{path}, cmd.Args...)
	cmd.Path = path
	cmd.ExtraFiles = []*os.File{theirs}
	return func() {
		s.t.Helper()
		defer ours.Close()
		s.must(theirs.Close())
		listener := s.listener(ours)
		// The first sync is a trial.
		n, err := receive(listener)
		s.must(err)
		if err := answer(listener, n.id, 0); errors.Is(err, unix.EINVAL) {
			_ = unix.Close(listener)
			s.t.Skip("this kernel lets no system call go on that was stopped for another process to look at: it is older than Linux 5.5")
		} else {
			s.must(err)
		}
		s.serve(listener)
	}
}

func (s *syncs) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// listener returns what the process has handed over.
func (s *syncs) listener(f *os.File) int {
	s.t.Helper()
	c, err := net.FileConn(f)
	s.must(err)
	conn := c.(*net.UnixConn)
	defer conn.Close()
	s.must(conn.SetDeadline(time.Now().Add(time.Minute)))
	text, oob := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	s.must(err)
	if oobn == 0 {
		step, number, _ := cutErrno(string(text[:n]))
		switch errno := unix.Errno(number); {
		case step == stepAsk && (errno == unix.EOPNOTSUPP || errno == unix.ENOSYS || errno == unix.EINVAL):
			s.t.Skipf("this kernel stops no system call for another process to look at (%v): it is older than Linux 5.0, or has no seccomp", errno)
		case step == stepInstall && errno == unix.EBUSY:
			s.t.Skip("another process looks at the system calls of this one already, and there can be one only")
		}
		s.t.Fatalf("%s", text[:n])
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	s.must(err)
	fds, err := unix.ParseUnixRights(&messages[0])
	s.must(err)
	return fds[0]
}

// serve answers for the process until it or the test has ended.
func (s *syncs) serve(listener int) {
	stop, end, err := os.Pipe()
	s.must(err)
	over := make(chan error, 1)
	go func() { over <- s.answerAll(listener, int(stop.Fd())) }()
	// A process that runs longer than its test has syncs that fail, until it is killed.
	s.t.Cleanup(func() {
		if err := errors.Join(end.Close(), <-over, stop.Close(), unix.Close(listener)); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *syncs) answerAll(listener, stop int) error {
	for {
		polled := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return err
		}
		if polled[1].Revents != 0 || polled[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		n, err := receive(listener)
		if errors.Is(err, unix.ENOENT) { // it was killed in it
			continue
		}
		if err != nil {
			return err
		}
		errno := unix.Errno(0)
		path, err := os.Readlink("/proc/" + strconv.Itoa(int(n.pid)) + "/fd/" + strconv.FormatUint(n.fd, 10))
		if err == nil && s.fails(path) {
			errno = unix.EIO
		}
		if err := answer(listener, n.id, errno); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

// stopped is a struct seccomp_notif, as far as it is of use.
type stopped struct {
	id  uint64
	pid uint32
	fd  uint64 // the first argument
}

func receive(listener int) (stopped, error) {
	var b [80]byte // the kernel wants it to be zero
	for {
		err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&b))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		e := binary.NativeEndian
		return stopped{e.Uint64(b[0:]), e.Uint32(b[8:]), e.Uint64(b[32:])}, err
	}
}

// answer has a system call fail, or with 0 go on.
func answer(listener int, id uint64, errno unix.Errno) error {
	var b [24]byte // struct seccomp_notif_resp: id, val, error, flags
	e := binary.NativeEndian
	e.PutUint64(b[0:], id)
	if errno != 0 {
		e.PutUint32(b[16:], uint32(-int32(errno)))
	} else {
		e.PutUint32(b[20:], unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
	}
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&b))
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// The steps of watchedMain that may fail.
const (
	stepAsk     = "ask the kernel"
	stepInstall = "install the filter"
)

// watchedMain is "watched PROGRAM [ARG...]": it runs the program in its own place, having handed over, on
// the socket that is its descriptor 3, who is to be asked about each sync. A filter holds for the thread that
// installs it, and what that thread executes.
func watchedMain() {
	runtime.LockOSThread()
	const socket = 3
	listener, step, err := listen()
	if err != nil {
		errno, _ := err.(unix.Errno)
		_ = unix.Sendmsg(socket, fmt.Appendf(nil, "%s: errno %d", step, errno), nil, nil, 0)
		fail(fmt.Errorf("%s: %w", step, err))
	}
	err = unix.Sendmsg(socket, []byte("here"), unix.UnixRights(listener), nil, 0)
	if err == nil {
		_ = unix.Fsync(socket) // a socket has no syncs; this one is the trial
		err = errors.Join(unix.Close(listener), unix.Close(socket))
	}
	if err == nil {
		err = unix.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fail(err)
}

func cutErrno(text string) (step string, errno int, err error) {
	for _, step := range []string{stepAsk, stepInstall} {
		if _, err = fmt.Sscanf(text, step+": errno %d", &errno); err == nil {
			return step, errno, nil
		}
	}
	return "", 0, err
}

// listenArch is how a filter names the machine.
var listenArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// listen has all syncs of this thread wait for who reads what it returns.
func listen() (listener int, step string, err error) {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return 0, stepAsk, errno
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	end := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	program := []unix.SockFilter{ // of a struct seccomp_data: the number of the call, the machine
		load(4), equal(listenArch[runtime.GOARCH], 0, 4),
		load(0), equal(unix.SYS_FSYNC, 3, 0), equal(unix.SYS_FDATASYNC, 2, 0), equal(unix.SYS_SYNC_FILE_RANGE, 1, 0),
		end(unix.SECCOMP_RET_ALLOW), end(unix.SECCOMP_RET_USER_NOTIF),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, "give up privileges", err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&filter)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return 0, stepInstall, errno
	}
	return int(fd), "", nil
}
