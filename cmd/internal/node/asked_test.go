package node

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRepliesThatNobodyFetchesAreRemovedInTime(t *testing.T) {
	dir := t.TempDir()
	files, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	synctest.Test(t, func(t *testing.T) {
		// write makes a reply of that age.
		write := func(name string, age time.Duration) {
			t.Helper()
			file := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("out\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for path := file; path != dir; path = filepath.Dir(path) {
				if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
					t.Fatal(err)
				}
			}
		}
		const day = 24 * time.Hour
		write("asked/new/ship1/reply", 0)
		write("asked/added-to/ship1/reply", 100*day)
		write("asked/added-to/ship2/reply", 20*day)
		write("asked/old/ship1/reply", 31*day)
		write("other/old/ship1/reply", 100*day)
		if err := os.Chtimes(filepath.Join(dir, "asked", "added-to"), time.Time{}, time.Now().Add(-100*day)); err != nil {
			t.Fatal(err)
		}
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			got, err := filepath.Glob(filepath.Join(dir, "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i], _ = filepath.Rel(dir, got[i])
				got[i] = filepath.ToSlash(got[i])
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("%v are there, want %v", got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var log bytes.Buffer
		var over sync.WaitGroup
		over.Go(func() { sweepAsked(ctx, files, slog.New(slog.NewTextHandler(&log, nil))) })
		expect("asked/added-to", "asked/new", "other/old")
		<-time.After(10*day - time.Hour)
		expect("asked/added-to", "asked/new", "other/old")
		<-time.After(3 * time.Hour)
		expect("asked/new", "other/old")
		<-time.After(20 * day)
		expect("other/old")
		cancel()
		over.Wait()
		if n := strings.Count(log.String(), "level="); n != 3 || strings.Contains(log.String(), "level=WARN") {
			t.Errorf("of three folders the log says\n%s", &log)
		}
	})
}
