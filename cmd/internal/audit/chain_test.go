package audit_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"steward/cmd/internal/audit"
	"steward/kvstore"
)

// written makes a log of n lines in a folder, with so many bytes to a file.
func written(t testing.TB, n int, size int64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "central.audit.log")
	l, reported := open(t, path, size, 100)
	for i := 1; i <= n; i++ {
		l.Left([]kvstore.Left{left(t, i, 100)})
	}
	if len(*reported) > 0 {
		t.Fatal(*reported)
	}
	return path
}

func verify(t testing.TB, path string, kept *audit.Head) audit.Result {
	t.Helper()
	files, err := audit.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(files, kept)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sound says that nothing is wrong with a log of so many lines.
func sound(t testing.TB, path string, lines, first uint64) audit.Result {
	t.Helper()
	r := verify(t, path, nil)
	if r.Bad > 0 || r.Lines != lines || r.First != first || r.Head.N != first+lines-1 || r.Check() != nil {
		t.Errorf("%+v, want %d lines from number %d on", r, lines, first)
	}
	return r
}

func edit(t testing.TB, path string, change func([][]byte) [][]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(bytes.Lines(b))
	if err := os.WriteFile(path, bytes.Join(change(lines), nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestChainGoesOnOverRotationAndRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for start := range 4 {
		l, _ := open(t, path, 2000, 100)
		for i := range 10 {
			l.Left([]kvstore.Left{left(t, 10*start+i, 100), left(t, 10*start+i, 100)})
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r := sound(t, path, 80, 1); r.Files < 5 {
		t.Errorf("%d files", r.Files)
	}
	// The file that is written may be missing at a start: the one before it has the end.
	if err := os.Rename(path, path+".0"); err != nil {
		t.Fatal(err)
	}
	head, err := audit.HeadOf(path)
	if err != nil {
		t.Fatal(err)
	}
	l, _ := open(t, path, 1<<20, 100)
	l.Left([]kvstore.Left{left(t, 1, 1)})
	if got, err := audit.HeadOf(path); err != nil || got.N != head.N+1 {
		t.Errorf("%v, %v, after %v", got, err, head)
	}
}

func TestOldestFilesMayBeGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, _ := open(t, path, 1500, 3)
	for i := range 30 {
		l.Left([]kvstore.Left{left(t, i, 100)})
	}
	r := verify(t, path, nil)
	if r.Bad > 0 || r.First < 10 || r.Head.N != 30 || r.Lines != 31-r.First {
		t.Errorf("%+v", r)
	}

	single := filepath.Join(t.TempDir(), "audit.log")
	l, _ = open(t, single, 1500, 1)
	for i := range 30 {
		l.Left([]kvstore.Left{left(t, i, 100)})
	}
	if r := verify(t, single, nil); r.Bad > 0 || r.Head.N != 30 || r.Files != 1 {
		t.Errorf("%+v", r)
	}
}

func TestTamperingIsFoundAndNamed(t *testing.T) {
	flip := func(line []byte) []byte {
		return bytes.Replace(line, []byte(`"attempts":1`), []byte(`"attempts":2`), 1)
	}
	for name, c := range map[string]struct {
		change func(l [][]byte) [][]byte
		want   []string // line and text
	}{
		"changed":       {func(l [][]byte) [][]byte { l[3] = flip(l[3]); return l }, []string{"4: this line was changed"}},
		"changed first": {func(l [][]byte) [][]byte { l[0] = flip(l[0]); return l }, []string{"1: this line was changed"}},
		"changed two":   {func(l [][]byte) [][]byte { l[2], l[6] = flip(l[2]), flip(l[6]); return l }, []string{"3: this line was changed", "7: this line was changed"}},
		"changed hash": {func(l [][]byte) [][]byte {
			l[4] = bytes.Replace(l[4], l[4][len(l[4])-8:], []byte("abcde\"}\n"), 1)
			return l
		}, []string{"5: this line was changed"}},
		"changed to torn": {func(l [][]byte) [][]byte { l[4] = append(l[4][:40], '\n'); return l }, []string{"5: this line was changed or put in"}},
		"without hash": {func(l [][]byte) [][]byte {
			l[4] = append(l[4][:bytes.LastIndex(l[4], []byte(`,"n":`))], "}\n"...)
			return l
		}, []string{"5: this line was put in or changed", "6: before this line 1 are missing"}},
		"removed":      {func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) }, []string{"4: before this line 1 are missing: number 5 comes after number 3"}},
		"removed many": {func(l [][]byte) [][]byte { return slices.Delete(l, 1, 8) }, []string{"2: before this line 7 are missing"}},
		"swapped": {func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, []string{
			"4: before this line 1 are missing", "5: out of order: number 4 comes after number 5", "6: before this line 1 are missing"}},
		"doubled": {func(l [][]byte) [][]byte { return slices.Insert(l, 4, l[3]) }, []string{"5: out of order: number 4 comes after number 4"}},
		"put in":  {func(l [][]byte) [][]byte { return slices.Insert(l, 4, []byte("text\n")) }, []string{"5: this line was put in"}},
		"put in, no hash": {func(l [][]byte) [][]byte {
			return slices.Insert(l, 4, append(l[4][:bytes.LastIndex(l[4], []byte(`,"n":`)):bytes.LastIndex(l[4], []byte(`,"n":`))], "}\n"...))
		}, []string{"5: this line was put in or changed"}},
		"begin, no hash":     {func(l [][]byte) [][]byte { return slices.Insert(l, 0, []byte("{}\n")) }, []string{"2: the lines before this one have no hash"}},
		"new chain":          {func(l [][]byte) [][]byte { return append(l[:5:5], l[0], l[1]) }, []string{"6: a new chain begins here"}},
		"changed before end": {func(l [][]byte) [][]byte { l[8] = flip(l[8]); return l }, []string{"9: this line or the one after it was changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := written(t, 10, 1<<20)
			sound(t, path, 10, 1)
			edit(t, path, c.change)
			r := verify(t, path, nil)
			var got []string
			for _, f := range r.Findings {
				if f.File != path || f.Harmless {
					t.Errorf("%+v", f)
				}
				got = append(got, strings.TrimPrefix(f.String(), path+":"))
			}
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) || r.Bad != len(c.want) || r.Check() == nil {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Whatever is done to lines that have others behind them is found.
func TestNoChangeBeforeTheLastLineGoesUnseen(t *testing.T) {
	path := written(t, 12, 2500)
	files, err := audit.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string][]byte{}
	for _, f := range files {
		if contents[f], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		file := rapid.SampledFrom(files).Draw(t, "file")
		b := bytes.Clone(contents[file])
		most := len(b) - 1
		if file == path {
			most = bytes.LastIndexByte(b[:len(b)-1], '\n')
		}
		at := rapid.IntRange(0, most).Draw(t, "at")
		kinds := []string{"flip", "insert", "cut"}
		if file == files[len(files)-1] {
			kinds = kinds[:2] // the oldest lines may be gone
		}
		switch rapid.SampledFrom(kinds).Draw(t, "what") {
		case "flip":
			b[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		case "insert":
			b = slices.Insert(b, at, byte(rapid.IntRange(0, 255).Draw(t, "byte")))
		case "cut":
			b = slices.Delete(b, at, 1+rapid.IntRange(at, most).Draw(t, "to"))
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verify(files, nil)
		if werr := os.WriteFile(file, contents[file], 0o600); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
		if r.Bad == 0 {
			t.Errorf("%s was changed at %d, and nobody saw it: %+v", file, at, r)
		}
	})
}

func TestRemovedFileIsFound(t *testing.T) {
	path := written(t, 20, 2500)
	files, err := audit.Files(path)
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	r := verify(t, path, nil)
	if r.Bad != 1 || r.Findings[0].File != path || r.Findings[0].Line != 1 || !strings.Contains(r.Findings[0].Text, "are missing") {
		t.Errorf("%+v", r.Findings)
	}
}

func TestTornLineIsNoTampering(t *testing.T) {
	path := written(t, 5, 1<<20)
	for round := range 3 {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, fi.Size()-int64(10+100*round)); err != nil {
			t.Fatal(err)
		}
		r := verify(t, path, nil)
		if f := r.Findings[len(r.Findings)-1]; r.Bad > 0 || !f.Harmless || !strings.Contains(f.Text, "is not whole") {
			t.Errorf("before the start: %v", r.Findings)
		}
		l, _ := open(t, path, 1<<20, 3)
		l.Left([]kvstore.Left{left(t, 9, 10), left(t, 10, 300)})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		r = verify(t, path, nil)
		if r.Bad > 0 || len(r.Findings) != round+1 || r.Lines != uint64(6+round) || r.Head.N != r.Lines {
			t.Errorf("round %d: %+v", round, r)
		}
		for _, f := range r.Findings {
			if !f.Harmless || f.Text != "torn by a crash: only a part of this line was written" {
				t.Errorf("%v", f)
			}
		}
	}
	// A crash between the end of a torn line and the next one.
	edit(t, path, func(l [][]byte) [][]byte { return append(l, []byte("{\"torn\n")) })
	l, _ := open(t, path, 1<<20, 3)
	l.Left([]kvstore.Left{left(t, 9, 10)})
	if r := verify(t, path, nil); r.Bad > 0 || len(r.Findings) != 4 {
		t.Errorf("%+v", r)
	}
	// What was torn cannot be changed or taken away later, and covers nothing that was before it.
	for name, change := range map[string]func(l [][]byte) [][]byte{
		"changed":      func(l [][]byte) [][]byte { l[4][5] ^= 1; return l },
		"taken away":   func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) },
		"one before":   func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) },
		"with another": func(l [][]byte) [][]byte { return slices.Delete(l, 3, 5) },
	} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		edit(t, path, change)
		if r := verify(t, path, nil); r.Bad == 0 {
			t.Errorf("%s: not seen", name)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinesOfAnOlderVersionComeFirst(t *testing.T) {
	path := written(t, 4, 1<<20)
	strip := func(line []byte) []byte { return append(line[:bytes.LastIndex(line, []byte(`,"n":`))], "}\n"...) }
	edit(t, path, func(l [][]byte) [][]byte {
		for i := range l {
			l[i] = strip(l[i])
		}
		return l
	})
	l, _ := open(t, path, 1<<20, 3)
	l.Left([]kvstore.Left{left(t, 5, 10), left(t, 6, 10)})
	if r := sound(t, path, 2, 1); r.Unchained != 4 {
		t.Errorf("%+v", r)
	}
	// The last of them is held by the chain.
	edit(t, path, func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) })
	if r := verify(t, path, nil); r.Bad != 1 {
		t.Errorf("%+v", r)
	}
}

func TestHeadShowsWhatWasCutOff(t *testing.T) {
	path := written(t, 6, 1<<20)
	head, err := audit.HeadOf(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := audit.ParseHead(head.String()); err != nil || again != head {
		t.Errorf("%v, %v", again, err)
	}
	l, _ := open(t, path, 1<<20, 3)
	l.Left([]kvstore.Left{left(t, 7, 10)})
	if r := verify(t, path, &head); r.Bad > 0 {
		t.Errorf("%+v", r)
	}
	other := head
	other.Hash[3]++
	old := audit.Head{N: 1, Hash: head.Hash}
	for name, c := range map[string]struct {
		head   audit.Head
		change func(l [][]byte) [][]byte
		want   string
	}{
		"cut off":         {head, func(l [][]byte) [][]byte { return l[:4] }, "4: lines are missing at the end: it ends with number 4, the head that was kept has 6"},
		"another one":     {other, func(l [][]byte) [][]byte { return l }, "6: this line is not the one whose head was kept"},
		"last changed":    {head, func(l [][]byte) [][]byte { l[5][30] ^= 1; return l[:6] }, "6: this line is not the one whose head was kept"},
		"no longer there": {old, func(l [][]byte) [][]byte { return l[3:] }, "4: the line of the head that was kept, number 1, is no longer here: the log begins with number 4"},
	} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		edit(t, path, c.change)
		if r := verify(t, path, &c.head); r.Bad != 1 || strings.TrimPrefix(r.Findings[0].String(), path+":") != c.want {
			t.Errorf("%s: %+v", name, r.Findings)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", "1", "1:", "0:" + strings.Repeat("0", 64), "1:" + strings.Repeat("0", 62), "x:" + strings.Repeat("0", 64)} {
		if _, err := audit.ParseHead(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestCompressedFilesInAnyOrder(t *testing.T) {
	path := written(t, 20, 2500)
	for _, n := range []int{1, 3} {
		name := fmt.Sprintf("%s.%d", path, n)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err = w.Write(b)
		if err := errors.Join(err, w.Close(), os.WriteFile(name+".gz", z.Bytes(), 0o600), os.Remove(name)); err != nil {
			t.Fatal(err)
		}
	}
	sound(t, path, 20, 1)
	files, err := audit.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if r, err := audit.Verify(files, nil); err != nil || r.Bad > 0 || r.Lines != 20 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestChainGoesOnWhereAWriteFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "audit.log")
	l, reported := open(t, path, 1<<20, 3)
	l.Left([]kvstore.Left{left(t, 1, 0)})
	if len(*reported) != 1 {
		t.Fatal(*reported)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l.Left([]kvstore.Left{left(t, 2, 0)})
	l.Left([]kvstore.Left{left(t, 3, 0)})
	sound(t, path, 2, 1)
}
