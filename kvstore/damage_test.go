package kvstore_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"steward/kvstore"
	"steward/message"
)

// sample is a closed file with something in every bucket, on several levels of pages.
func sample(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample.db")
	o := options(path)
	s := open(t, o)
	accept(t, s, msgs("ship1", 200)...)
	accept(t, s, msgs("ship2", 2)...)
	ids := accept(t, s, msg("ship3", strings.Repeat("x", 20_000)), msg("ship3", "y"))
	settle(t, s, stream("ship3"), kvstore.Settled{Seq: 1, ID: ids[0], Code: message.CodeUnreachable, Text: "no", At: time.Now()})
	var items []kvstore.Item
	for i := range uint64(50) {
		items = append(items, incoming(t, i+1, message.Message{Data: []string{fmt.Sprint(i)}}))
	}
	a := arrival("ship1", 7, 1, 1, 51, items...)
	a.Begin = &kvstore.Begin{}
	take(t, s, a)
	w := lane(t, s, "ship1")
	finish(t, s, "ship1", w[40:]...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// useAll does one of everything, and cares only that the process lives.
func useAll(s *kvstore.Store) {
	_, _, _ = s.Sizes()
	if infos, err := s.Streams(); err == nil {
		for _, info := range infos {
			_, q, _ := s.Read(info.Stream, 0, 1<<20, 1<<30)
			for _, m := range q {
				_, _ = s.Sent(m.ID)
			}
			if len(q) > 0 {
				<-s.Settle(info.Stream, []kvstore.Settled{{Seq: q[0].Seq, ID: q[0].ID, Code: message.CodeUnreachable, At: time.Now()}})
			}
		}
	}
	if lanes, err := s.Lanes(); err == nil {
		for _, id := range lanes {
			w, _ := s.ReadLane(id, 0, 1<<20, 1<<30)
			if len(w) > 0 {
				_ = s.Begin(id, w[0].Arrival, kvstore.Mark{Last: w[0].Arrival, Attempt: 1})
				_ = s.Finish(id, w[0].Arrival, []kvstore.Finished{{Arrival: w[0].Arrival, Message: w[0].Message, Result: message.Result{Code: message.CodeDone}}})
			}
		}
	}
	_ = s.DeadLetters(func(kvstore.DeadLetter) bool { return true })
	for _, peer := range []message.Node{"ship1", "ship2", "ship3", "new"} {
		_, _ = s.Accept([]message.Message{msg(peer, "x"), msg(peer, "y")})
		_, _ = s.Take([]kvstore.Arrival{{Stream: stream(peer), Epoch: 7, Base: 1, First: 1, End: 2}})
	}
	_ = s.Audit()
}

// openDamaged opens a file of these bytes. Whatever they are, the store opens, and the bytes are
// where they were or set aside.
func openDamaged(t fatal, dir string, data []byte) (aside string) {
	t.Helper()
	path := filepath.Join(dir, "steward.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := kvstore.Open(options(path))
	if errors.Is(err, kvstore.ErrVersion) || err != nil && strings.Contains(err.Error(), "belongs to node") {
		unchanged(t, path, data)
		return ""
	}
	if err != nil {
		t.Fatalf("not opened: %v", err)
	}
	if aside = s.SetAside(); aside != "" {
		aside = strings.SplitN(aside, " (", 2)[0]
		unchanged(t, aside, data)
	}
	useAll(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if aside == "" {
		return ""
	}
	s = open(t, options(path)) // the new one is sound
	accept(t, s, msg("ship1", "x"))
	if err := errors.Join(s.Audit(), s.Close(), os.Remove(aside)); err != nil {
		t.Fatal(err)
	}
	return aside
}

func unchanged(t fatal, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != string(want) {
		t.Fatalf("%s has changed: %d bytes, %v; it had %d", path, len(got), err, len(want))
	}
}

func TestTruncatedFileIsSetAside(t *testing.T) {
	data := sample(t)
	used := int(newestMeta(data).pages) * os.Getpagesize()
	for _, n := range []int{1, 15, 16, 80, 1000, 4095, 4096, 4097, 8191, 8192, 8193, 12288, used / 2, used/2 + 7, used - 4096, used - 1} {
		if openDamaged(t, t.TempDir(), data[:n]) == "" {
			t.Errorf("cut to %d of %d bytes it is taken for sound", n, used)
		}
	}
	if aside := openDamaged(t, t.TempDir(), data[:used]); aside != "" {
		t.Error("what is not used is missed")
	}
	if aside := openDamaged(t, t.TempDir(), nil); aside != "" {
		t.Error("a file of no bytes, as a crash at the very start leaves it, is no damage")
	}
}

func TestFileOfSomethingElseIsSetAside(t *testing.T) {
	for name, data := range map[string]string{"text": strings.Repeat("hello\n", 5000), "zeros": strings.Repeat("\x00", 1<<16), "ones": strings.Repeat("\xff", 1<<16), "one line": "x\n"} {
		if openDamaged(t, t.TempDir(), []byte(data)) == "" {
			t.Errorf("%s is taken for a store", name)
		}
	}
}

func TestZeroedPagesAreSetAside(t *testing.T) {
	data, size := sample(t), os.Getpagesize()
	meta := newestMeta(data)
	for page := range int(meta.pages) {
		bad := append([]byte(nil), data...)
		clear(bad[page*size : (page+1)*size])
		aside := openDamaged(t, t.TempDir(), bad)
		if page == int(meta.txid%2) && aside != "" || page == int(meta.root) && aside == "" {
			t.Errorf("page %d: set aside %q", page, aside)
		}
	}
}

func TestDamagedBytesNeverStopTheProcess(t *testing.T) {
	data := sample(t)
	used := int(newestMeta(data).pages) * os.Getpagesize()
	dir := t.TempDir()
	asides, n := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		bad := append([]byte(nil), data...)
		for range rapid.IntRange(1, 4).Draw(t, "faults") {
			// Half of them where the structure is: at the beginning of a page.
			at := rapid.IntRange(0, used-1).Draw(t, "at")
			if rapid.Bool().Draw(t, "head") {
				at = at/os.Getpagesize()*os.Getpagesize() + rapid.IntRange(0, 200).Draw(t, "in head")
			}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			case 1:
				bad[at] = rapid.Byte().Draw(t, "byte")
			case 2:
				clear(bad[at:min(used, at+rapid.IntRange(1, 600).Draw(t, "zeros"))])
			case 3: // a part of another page
				from := rapid.IntRange(0, used-1).Draw(t, "from")
				copy(bad[at:min(used, at+512)], data[from:])
			}
		}
		n++
		if openDamaged(t, dir, bad) != "" {
			asides++
		}
	})
	if asides == 0 || asides == n {
		t.Errorf("%d of %d were set aside", asides, n)
	}
}

func TestFlippedByteInEveryPageHead(t *testing.T) {
	data, size := sample(t), os.Getpagesize()
	dir := t.TempDir()
	for page := range int(newestMeta(data).pages) {
		for _, at := range []int{0, 8, 10, 12, 15, 20, 24} {
			bad := append([]byte(nil), data...)
			bad[page*size+at] ^= 0x81
			openDamaged(t, dir, bad)
		}
	}
}

func TestFileCutOffWhileItIsOpenFailsOperationsOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steward.db")
	s := open(t, options(path))
	for range 20 {
		accept(t, s, msg("ship1", strings.Repeat("x", 20_000)))
	}
	if err := os.Truncate(path, 3*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Read(stream("ship1"), 0, 100, 1<<30); err == nil {
		t.Error("what is gone is read")
	}
	useAll(s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// edit changes a closed file behind the store's back.
func edit(t *testing.T, path string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestRecordThatMakesNoSenseIsSetAside(t *testing.T) {
	data := sample(t)
	for _, tt := range []struct {
		bucket, key string
		value       []byte
	}{
		{"streams", "ship1\x00REQCliCommand", []byte{9, 9}}, {"streams", "ship1\x00REQCliCommand", []byte{2}}, {"streams", "no name", make([]byte, 33)},
		{"lanes", "ship1\x00REQCliCommand", nil}, {"meta", "sizes", []byte("x")}, {"meta", "schema", []byte("x")},
	} {
		path := filepath.Join(t.TempDir(), "steward.db")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte(tt.bucket)).Put([]byte(tt.key), tt.value) })
		bad, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if openDamaged(t, t.TempDir(), bad) == "" {
			t.Errorf("%s %q: taken for sound", tt.bucket, tt.value)
		}
	}
	for _, bucket := range []string{"meta", "out", "sent", "dead"} {
		path := filepath.Join(t.TempDir(), "steward.db")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(bucket)) })
		bad, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if openDamaged(t, t.TempDir(), bad) == "" {
			t.Errorf("without the bucket %s it is taken for sound", bucket)
		}
	}
}

func TestSetAsideNeverReplacesAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "steward.db")
	for range 5 {
		if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := kvstore.Open(options(path))
		if err != nil || s.SetAside() == "" {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(path + ".damaged-*")
	if err != nil || len(files) != 5 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestFileOfANewerVersionIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*bbolt.Bucket) error{
		"a newer schema": func(b *bbolt.Bucket) error { return b.Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, 3)) },
		"a schema of the far future": func(b *bbolt.Bucket) error {
			return errors.Join(b.Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, 1<<63)), b.Delete([]byte("sizes")))
		},
	} {
		path := filepath.Join(t.TempDir(), "steward.db")
		if err := os.WriteFile(path, sample(t), 0o600); err != nil {
			t.Fatal(err)
		}
		edit(t, path, func(tx *bbolt.Tx) error { return change(tx.Bucket([]byte("meta"))) })
		leftAlone(t, name, path, options(path), kvstore.ErrVersion, "newer version")
	}
	data := sample(t) // a format of bbolt that is not known
	for page := range 2 {
		m := data[page*os.Getpagesize()+16:]
		binary.NativeEndian.PutUint32(m[4:], 3)
		h := fnv.New64a()
		_, _ = h.Write(m[:56])
		binary.NativeEndian.PutUint64(m[56:], h.Sum64())
	}
	path := filepath.Join(t.TempDir(), "steward.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	leftAlone(t, "a newer bbolt", path, options(path), kvstore.ErrVersion, "format 3")
}

func TestFileOfAnotherNodeIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steward.db")
	if err := os.WriteFile(path, sample(t), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(path)
	o.Self = "ship9"
	leftAlone(t, "another node", path, o, nil, `belongs to node "central", this is "ship9"`)
}

func leftAlone(t *testing.T, name, path string, o kvstore.Options, want error, text string) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := kvstore.Open(o)
	if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, %v", name, s, err)
	}
	unchanged(t, path, before)
	if files, err := filepath.Glob(path + "*"); err != nil || len(files) != 1 {
		t.Errorf("%s: %v, %v", name, files, err)
	}
}

func TestOpenChecksItsOptions(t *testing.T) {
	good := options(filepath.Join(t.TempDir(), "x", "steward.db"))
	for name, change := range map[string]func(*kvstore.Options){
		"no path": func(o *kvstore.Options) { o.Path = "" }, "no folder": func(*kvstore.Options) {},
		"no node": func(o *kvstore.Options) { o.Self = "" }, "a bad node": func(o *kvstore.Options) { o.Self = "a>" },
		"no room": func(o *kvstore.Options) { o.MaxMessages = 0 }, "no bytes": func(o *kvstore.Options) { o.MaxBytes = -1 },
	} {
		o := good
		change(&o)
		if s, err := kvstore.Open(o); err == nil {
			t.Errorf("%s: opened, %v", name, s.Close())
		}
	}
}

type metaPage struct{ root, pages, txid uint64 }

func newestMeta(data []byte) (newest metaPage) {
	for page := range 2 {
		m := data[page*os.Getpagesize()+16:]
		if txid := binary.NativeEndian.Uint64(m[48:]); txid >= newest.txid {
			newest = metaPage{root: binary.NativeEndian.Uint64(m[16:]), pages: binary.NativeEndian.Uint64(m[40:]), txid: txid}
		}
	}
	return newest
}
