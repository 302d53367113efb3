package methods_test

import (
	"errors"
	"io/fs"
	"testing"

	"steward/message"
	"steward/process"
)

// TestFailedRunWithoutOutputMakesNoFile: an empty file would look like success without
// output.
func TestFailedRunWithoutOutputMakesNoFile(t *testing.T) {
	b := newBench(t)
	appended := func(m message.Message) {
		t.Helper()
		if errs := spec(t, "REQToFileAppend").RunAll(t.Context(), []*process.Call{b.call(m)}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	m := reply(message.Message{FileName: "out"}, 0, false)
	m.Result = &message.Result{Code: message.CodeInterrupted}
	appended(m)
	if _, err := b.Files.Lstat("central/out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file for a run that was interrupted: %v", err)
	}
	appended(reply(message.Message{FileName: "out"}, 0, false))
	if got := b.read(t, "central/out"); got != "" {
		t.Errorf("a run that printed nothing: %q", got)
	}
}
