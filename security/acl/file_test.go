package acl_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"steward/security/acl"
)

// version is the text of rules with which everybody may ping, or nobody.
func version(n int64, effect string) string {
	return fmt.Sprintf("version=%d\n[[rules]]\nname='r'\neffect=%q\nfrom=['*']\nmethods=['REQPing']\n", n, effect)
}

// followed is a file of rules in a test, and what it has reported.
type followed struct {
	*acl.File
	path     string
	mu       sync.Mutex
	reported []string
}

func (f *followed) report(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reported = append(f.reported, fmt.Sprint(err))
}

func options(f *followed) acl.FileOptions {
	return acl.FileOptions{Path: f.path, Methods: methods, Report: f.report}
}

// follow opens a file with a text, or without one when that is empty.
func follow(t *testing.T, text string) *followed {
	t.Helper()
	f := &followed{path: filepath.Join(t.TempDir(), "etc", "acl.toml")}
	if text != "" {
		f.write(t, text)
	}
	var err error
	if f.File, err = acl.Open(options(f)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *followed) write(t testing.TB, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *followed) onDisk(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func (f *followed) want(t *testing.T, version int64, allowed bool, reports ...string) {
	t.Helper()
	rules := f.Now()
	var got int64
	if rules != nil {
		got = rules.Version
	}
	if d := rules.Decide("a", "self", request("REQPing")); got != version || d.Allowed != allowed {
		t.Errorf("version %d, %+v; want %d, %v", got, d, version, allowed)
	}
	if !slices.EqualFunc(f.reported, reports, strings.Contains) {
		t.Errorf("reported %q, want %q", f.reported, reports)
	}
}

func keep(*acl.Rules) error { return nil }

func TestFileIsFollowed(t *testing.T) {
	f := follow(t, "")
	f.want(t, 0, true)
	f.write(t, version(1, "deny"))
	f.want(t, 1, false)
	f.write(t, version(1, "allow")) // by hand, the number is not asked about
	f.want(t, 1, true)
	f.write(t, version(0, "deny"))
	const mistake = "version 1 stays in force: "
	f.want(t, 1, true, mistake)
	f.want(t, 1, true, mistake) // once
	f.write(t, "[")
	f.want(t, 1, true, mistake, mistake)
	f.write(t, version(2, "deny"))
	f.want(t, 2, false, mistake, mistake, "<nil>")
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	const gone = "version 2 stays in force: the file is gone"
	f.want(t, 2, false, mistake, mistake, "<nil>", gone)
	f.write(t, version(2, "deny"))
	f.want(t, 2, false, mistake, mistake, "<nil>", gone, "<nil>")
}

// Two changes may leave a file with one size and one time.
func TestChangeThatLeavesNoMarkIsSeen(t *testing.T) {
	f := follow(t, version(1, "deny"))
	at := time.Now().Add(time.Hour) // not long ago, however slow this is
	for n, effect := range []string{"allow", "deny", "allow"} {
		text := version(int64(n+2), effect)
		text += strings.Repeat("#", 200-len(text))
		f.write(t, text)
		if err := os.Chtimes(f.path, at, at); err != nil {
			t.Fatal(err)
		}
		f.want(t, int64(n+2), effect == "allow")
	}
}

func TestMistakeInANewFileIsToldAndForgottenWithIt(t *testing.T) {
	f := follow(t, "")
	f.write(t, "x")
	f.want(t, 0, true, "are not in force: ")
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.want(t, 0, true, "are not in force: ", "<nil>")
}

func TestFileThatCannotBeReadIsAnErrorAtTheStart(t *testing.T) {
	f := &followed{path: filepath.Join(t.TempDir(), "acl.toml")}
	wanted := func(what string, opts acl.FileOptions) {
		t.Helper()
		_, err := acl.Open(opts)
		var at *acl.Error
		if !errors.As(err, &at) || at.File != f.path || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
	}
	required := options(f)
	required.Required = true
	wanted("no such file", required)
	if err := os.Mkdir(f.path, 0o700); err != nil {
		t.Fatal(err)
	}
	wanted("not a regular file", options(f))
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.write(t, "\nversion=x")
	wanted("acl.toml:2:9: ", options(f))
}

func TestUpdate(t *testing.T) {
	f := follow(t, "")
	steps := []struct {
		text, err string
		version   int64 // in force after it
		allowed   bool
	}{
		{version(2, "deny"), "", 2, false},
		{version(2, "deny"), "", 2, false},
		{version(2, "allow"), "version 2 of the rules is in force with another text", 2, false},
		{version(1, "allow"), "version 1 of the rules is older than version 2, which is in force", 2, false},
		{version(3, "alow"), "the new rules:4:8: effect", 2, false},
		{version(9, "allow"), "nobody wants it", 2, false},
		{version(4, "allow"), "", 4, true},
	}
	for _, s := range steps {
		before := f.onDisk(t)
		next, was, err := f.Update(s.text, func(next *acl.Rules) error {
			if next.Version == 9 {
				return errors.New("nobody wants it")
			}
			return nil
		})
		f.want(t, s.version, s.allowed)
		if s.err != "" {
			if err == nil || !strings.Contains(err.Error(), s.err) || f.onDisk(t) != before {
				t.Errorf("%v, want %s; on disk %q", err, s.err, f.onDisk(t))
			}
			continue
		}
		if err != nil || next.Version != s.version || was > s.version || f.onDisk(t) != s.text {
			t.Errorf("%+v, %d, %v; on disk %q", next, was, err, f.onDisk(t))
		}
	}
	info, err := os.Stat(f.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// What came last goes before what was made of the file by hand, when that cannot be used.
func TestUpdateMendsTheFile(t *testing.T) {
	f := follow(t, version(1, "deny"))
	for _, text := range []string{version(1, "deny"), version(2, "allow")} {
		f.write(t, "x")
		f.Now()
		if _, _, err := f.Update(text, keep); err != nil {
			t.Fatal(err)
		}
		if f.onDisk(t) != text {
			t.Errorf("on disk: %q", f.onDisk(t))
		}
	}
	f.want(t, 2, true, "stays in force", "<nil>", "stays in force", "<nil>")
}

func TestUpdateThatCannotBeWrittenChangesNothing(t *testing.T) {
	f := follow(t, version(1, "deny"))
	if err := os.Chmod(f.path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Update(version(2, "allow"), keep); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Error(err)
	}
	f.want(t, 1, false)
}

func TestUpdateKeepsALink(t *testing.T) {
	f := follow(t, version(1, "deny"))
	real := filepath.Join(t.TempDir(), "rules")
	if err := os.Rename(f.path, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, f.path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Update(version(2, "allow"), keep); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(real); err != nil || string(b) != version(2, "allow") {
		t.Errorf("%q, %v", b, err)
	}
	f.want(t, 2, true)
}

// Whatever updates come, the version never falls, and the file has what is in force.
func TestVersionsOnlyGoUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := follow(t, "")
		last := int64(0)
		for range rapid.IntRange(1, 8).Draw(rt, "updates") {
			n := rapid.Int64Range(0, 4).Draw(rt, "version")
			text := version(n, rapid.SampledFrom([]string{"allow", "deny", "x"}).Draw(rt, "effect"))
			_, _, err := f.Update(text, keep)
			rules := f.Now()
			switch {
			case rules == nil && (err == nil || last > 0):
				rt.Fatalf("no rules after %v", err)
			case rules == nil:
				continue
			case rules.Version < last, err == nil && rules.Version != n, err == nil && f.onDisk(t) != text:
				rt.Fatalf("version %d after %d, %v; on disk %q", rules.Version, last, err, f.onDisk(t))
			}
			last = rules.Version
		}
	})
}

func TestUpdatesAndDecisionsAtOnce(t *testing.T) {
	f := follow(t, version(1, "deny"))
	var wg sync.WaitGroup
	for n := int64(2); n < 20; n++ {
		wg.Go(func() {
			_, _, _ = f.Update(version(n, "deny"), keep) // an older one loses
		})
		wg.Go(func() {
			if d := f.Now().Decide("a", "self", request("REQPing")); d.Allowed {
				t.Errorf("%+v", d)
			}
		})
	}
	wg.Wait()
	f.want(t, 19, false)
}

func BenchmarkNow(b *testing.B) {
	for name, text := range map[string]string{"no file": "", "file": version(1, "deny")} {
		b.Run(name, func(b *testing.B) {
			f := &followed{path: filepath.Join(b.TempDir(), "acl.toml")}
			if text != "" {
				f.write(b, text)
				old := time.Now().Add(-time.Minute)
				if err := os.Chtimes(f.path, old, old); err != nil {
					b.Fatal(err)
				}
			}
			file, err := acl.Open(options(f))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				file.Now()
			}
		})
	}
}
