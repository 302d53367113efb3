package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

func TestPagesOfTheProgramAreLetGoOf(t *testing.T) {
	touchProgram(t)
	before := residentOfFiles(t)
	if err := letGoOfProgram(); err != nil {
		t.Fatal(err)
	}
	if after := residentOfFiles(t); after > before/2 {
		t.Errorf("%d KiB of files are resident, and %d were before", after, before)
	}
}

// touchProgram has all pages of the code of this program mapped into memory.
func touchProgram(t *testing.T) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); n < 3 || rights != "r-xp" || strings.Contains(line, "[") {
			continue
		}
		if _, err := io.Copy(io.Discard, io.NewSectionReader(memory, from, to-from)); err != nil {
			t.Fatal(err)
		}
	}
}

// residentOfFiles is in KiB.
func residentOfFiles(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kib); n == 1 {
			return kib
		}
	}
	t.Fatalf("no RssFile in\n%s", status)
	return 0
}
