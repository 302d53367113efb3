//go:build unix

package methods_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"steward/message"
	"steward/process"
)

// cont runs REQnCliCommandCont and calls each with all that was emitted so far, whenever
// more is.
func cont(t *testing.T, m message.Message, each func(so string)) (parts []string, o process.Outcome, err error) {
	t.Helper()
	c := newBench(t).call(m)
	var so strings.Builder
	c.Emit = func(_ context.Context, body []byte) error {
		parts = append(parts, string(body))
		so.Write(body)
		if each != nil {
			each(so.String())
		}
		return nil
	}
	o, err = spec(t, "REQnCliCommandCont").Run(t.Context(), c)
	return parts, o, err
}

func TestContSendsOutputOnWhileTheCommandRuns(t *testing.T) {
	b := newBench(t)
	// The command goes on only when what it said before was sent on.
	script := `cd "$1"; say() { until test -e "$1"; do sleep 0.01; done; }
		printf 'one\ntwo\n'; say a; printf 'not a li'; say b; printf 'ne\nrest'`
	parts, o, err := cont(t, message.Message{Data: []string{"sh", "-c", script, "sh", b.dir}}, func(so string) {
		for name, text := range map[string]string{"a": "one\ntwo\n", "b": "one\ntwo\nnot a li"} {
			if so == text {
				if f, err := b.Files.Create(name); err != nil || f.Close() != nil {
					t.Error(err)
				}
			}
		}
	})
	if err != nil || strings.Join(parts, "")+string(o.Body) != "one\ntwo\nnot a line\nrest" {
		t.Errorf("got %q and %q, %v", parts, o.Body, err)
	}
}

func TestContPartsEndWithALineAndGatherQuickOnes(t *testing.T) {
	const lines = 200_000
	parts, o, err := cont(t, message.Message{Data: []string{"seq", "-f", "line %g", fmt.Sprint(lines)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	for i, p := range parts {
		if len(p) > process.MaxPart || !strings.HasSuffix(p, "\n") {
			t.Errorf("part %d has %d bytes and ends with %q", i, len(p), p[len(p)-1:])
		}
	}
	if strings.Join(parts, "")+string(o.Body) != want.String() {
		t.Error("the output is another")
	}
	if len(parts) > want.Len()/process.MaxPart+20 {
		t.Errorf("%d parts for %d bytes", len(parts), want.Len())
	}
}

func TestContCutsALineThatIsLongerThanAPart(t *testing.T) {
	parts, o, err := cont(t, message.Message{Data: []string{"sh", "-c", "yes | tr -d '\\n' | head -c 1000000; echo; echo end"}}, nil)
	if err != nil || strings.Join(parts, "")+string(o.Body) != strings.Repeat("y", 1_000_000)+"\nend\n" {
		t.Errorf("got %d parts, %v", len(parts), err)
	}
}

func TestContGivesWhatCameBeforeItsTimeout(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	b := newBench(t)
	c := b.call(message.Message{Data: []string{"sh", "-c", "echo early; sleep 100"}, MethodTimeout: 500 * time.Millisecond})
	o, err := spec(t, "REQnCliCommandCont").Run(ctx, c)
	if err == nil || !strings.Contains(err.Error(), "cut off at its timeout of 500ms") {
		t.Errorf("error %v", err)
	}
	if got := string(bytes.Join(b.emitted, nil)) + string(o.Body); got != "early\n" {
		t.Errorf("got %q", got)
	}
}
