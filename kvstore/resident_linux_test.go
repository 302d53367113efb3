package kvstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"steward/message"
)

// mapped is how much of files this process has mapped into memory, in bytes.
func mapped(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssFile:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

func TestLongQueueIsNotKeptInMemory(t *testing.T) {
	const parts, size = 400, 256 << 10
	s := store(t)
	before := mapped(t)
	m := msg("ship1")
	m.Body = make([]byte, size)
	var most int64
	look := func() {
		most = max(most, mapped(t)-before)
		<-time.After(time.Millisecond) // as any link needs
	}
	for range parts {
		accept(t, s, m)
		look()
	}
	n := 0
	for from := uint64(1); ; {
		_, queue, err := s.Read(stream("ship1"), from, 4, 4*size+1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(queue) == 0 {
			break
		}
		n += len(queue)
		from = queue[len(queue)-1].Seq + 1
		look()
	}
	if n != parts {
		t.Errorf("read %d", n)
	}
	if most > parts*size*3/4 {
		t.Errorf("of %d MB, %d MB are in memory", parts*size>>20, most>>20)
	}
}

// peak is the most memory that this process has had since it was called last, in bytes.
func peak(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

func TestOpeningALongQueueDoesNotMapIt(t *testing.T) {
	const arrays, each, size = 160, 500, 1000
	opts := options(filepath.Join(t.TempDir(), "steward.db"))
	opts.MaxMessages = arrays * each
	s := open(t, opts)
	m := msg("ship1")
	m.Body = make([]byte, size)
	array := make([]message.Message, each)
	for i := range array {
		array[i] = m
	}
	for range arrays {
		accept(t, s, array...)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	debug.FreeOSMemory()
	peak(t)
	before := peak(t)
	s = open(t, opts)
	defer s.Close()
	if grown := peak(t) - before; grown > arrays*each*size/2 {
		t.Errorf("of %d MB, %d MB were in memory", arrays*each*size>>20, grown>>20)
	}
	if _, queue, err := s.Read(stream("ship1"), 1, arrays*each, 1<<30); err != nil || len(queue) != arrays*each {
		t.Errorf("read %d, %v", len(queue), err)
	}
}
