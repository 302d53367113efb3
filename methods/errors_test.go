package methods_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"steward/message"
	"steward/methods"
)

// errorFile appends lines to the error log of a node in a data folder.
func errorFile(t *testing.T, folder, node, suffix string, lines ...string) {
	t.Helper()
	dir := filepath.Join(folder, "errorLog", node)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "error.log"+suffix), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestLastErrorsOfAllNodesAreSortedAndReachIntoRotatedFiles(t *testing.T) {
	folder := t.TempDir()
	errorFile(t, folder, "ship1", ".2", "1 ship1", "2 ship1")
	errorFile(t, folder, "ship1", ".1", "4 ship1")
	errorFile(t, folder, "ship1", "", "6 ship1", "8 ship1 "+strings.Repeat("x", 200<<10))
	errorFile(t, folder, "ship2", "", "3 ship2", "5 ship2", "7 ship2")
	for _, tt := range []struct {
		node message.Node
		n    int
		want string
	}{
		{"", 0, "1 2 3 4 5 6 7 8"}, {"", 1, "8"}, {"", 5, "4 5 6 7 8"}, {"ship1", 4, "2 4 6 8"}, {"ship1", 100, "1 2 4 6 8"}, {"ship2", 2, "5 7"}, {"ship3", 2, ""},
	} {
		if got := lastErrors(t, methods.ErrorLog{Folder: folder, Node: tt.node}, tt.n); got != tt.want {
			t.Errorf("%q, %d: %v, want %s", tt.node, tt.n, got, tt.want)
		}
	}
	if err := (methods.ErrorLog{Folder: t.TempDir()}).Last(9, func(string) error { return errors.New("a line") }); err != nil {
		t.Errorf("no folder: %v", err)
	}
}

func TestLastErrorsAreWithoutWhatWasWrittenOnStderrByCommandsThatEndedWell(t *testing.T) {
	const told, quiet = `%d node=ship1 class=method-failed process=p cause="failed; stderr: class=wrote-stderr "`, `%d node=ship1 class=wrote-stderr process=p cause="done, and wrote on stderr: x"`
	folder := t.TempDir()
	errorFile(t, folder, "ship1", ".1", fmt.Sprintf(told, 10), fmt.Sprintf(quiet, 11), fmt.Sprintf(told, 12))
	var lines []string
	for i := range 5000 { // more than is read at once
		lines = append(lines, fmt.Sprintf(quiet, 20000+i))
	}
	errorFile(t, folder, "ship1", "", append(append([]string{fmt.Sprintf(told, 13), fmt.Sprintf(told, 14)}, lines...), fmt.Sprintf(told, 30000))...)
	for n, want := range map[int]string{0: "10 12 13 14 30000", 1: "30000", 2: "14 30000", 4: "12 13 14 30000"} {
		if got := lastErrors(t, methods.ErrorLog{Folder: folder}, n); got != want {
			t.Errorf("the last %d: %.100s, want %s", n, got, want)
		}
	}
	if got := lastErrors(t, methods.ErrorLog{Folder: folder, Stderr: true}, 2); got != "24999 30000" {
		t.Errorf("the last 2 of all: %s", got)
	}
}

// lastErrors returns the first words of the last n lines.
func lastErrors(t *testing.T, log methods.ErrorLog, n int) string {
	t.Helper()
	var got []string
	err := log.Last(n, func(line string) error {
		word, _, _ := strings.Cut(line, " ")
		got = append(got, word)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

// Each line comes once: those from before, those that are written while it begins, those of a file that is rotated, and those of
// a node that is new.
func TestFollowedErrorsComeOnce(t *testing.T) {
	folder := t.TempDir()
	for i := range 50 {
		errorFile(t, folder, "ship1", "", fmt.Sprintf("%03d", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	errDone := errors.New("done")
	next := 50
	err := methods.ErrorLog{Folder: folder, Log: slog.New(slog.DiscardHandler)}.Follow(ctx, 10, func(line string) error {
		got = append(got, line)
		switch {
		case next < 60: // while the last ones are still read
			errorFile(t, folder, "ship1", "", fmt.Sprintf("%03d", next))
		case next == 60:
			path := filepath.Join(folder, "errorLog", "ship1", "error.log")
			if err := os.Rename(path, path+".1"); err != nil {
				return err
			}
			errorFile(t, folder, "ship1", "", "060")
		case next == 61:
			errorFile(t, folder, "ship2", "", "061")
		case line == "061":
			return errDone
		}
		next++
		return nil
	})
	var want []string
	for i := 40; i <= 61; i++ {
		want = append(want, fmt.Sprintf("%03d", i))
	}
	if !errors.Is(err, errDone) || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// Whatever is written while it begins comes once, too.
func TestFollowedErrorsComeOnceWhileTheyAreWritten(t *testing.T) {
	for range 20 {
		folder := t.TempDir()
		errorFile(t, folder, "ship1", "", "0000000")
		stop := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			f, err := os.OpenFile(filepath.Join(folder, "errorLog", "ship1", "error.log"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
					fmt.Fprintf(f, "%07d\n", i)
				}
			}
		})
		errEnough := errors.New("enough")
		var got []int
		err := methods.ErrorLog{Folder: folder, Log: slog.New(slog.DiscardHandler)}.Follow(t.Context(), 5, func(line string) error {
			n, err := strconv.Atoi(line)
			if got = append(got, n); err == nil && len(got) == 500 {
				err = errEnough
			}
			return err
		})
		close(stop)
		writer.Wait()
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		for i, n := range got {
			if n != got[0]+i {
				t.Fatalf("line %d is %d, after %d", i, n, got[i-1])
			}
		}
	}
}
