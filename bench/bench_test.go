package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes this test program what bench runs itself as.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := roles[os.Args[1]](ctx, os.Args[2:])
		stop()
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// steward builds the program that is measured.
func steward(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "steward")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../cmd/steward").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestBenchMeasuresAndLeavesNothing(t *testing.T) {
	tmp := tempDir(t)
	var out, log bytes.Buffer
	err := bench(t.Context(), []string{"-steward", steward(t), "-agent=", "-runs=1", "-scale=0.001", "-only=s1,s2,s3,s7", "-json"}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	var report struct {
		Machine []string
		Figures []line
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	seen := map[string]bool{}
	for _, l := range report.Figures {
		seen[l.Scenario] = true
		if l.Value < 0 || len(l.Runs) != 1 || (l.PeerIs == nil) != (l.Peer == "") {
			t.Errorf("%+v", l)
		}
	}
	if len(report.Machine) == 0 || len(seen) != 4 {
		t.Errorf("%s", &out)
	}
	empty(t, tmp)
}

func TestInterruptedBenchLeavesNothing(t *testing.T) {
	tmp := tempDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	// Everything runs when ship1 does.
	begun := func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			logs, _ := filepath.Glob(filepath.Join(tmp, "*", "ship1", "log"))
			if len(logs) > 0 || ctx.Err() != nil {
				cancel()
				return
			}
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); begun() }()
	var out bytes.Buffer
	err := bench(ctx, []string{"-steward", steward(t), "-agent=", "-only=S2"}, &out, io.Discard)
	cancel()
	<-done
	if !errors.Is(err, context.Canceled) || out.Len() > 0 {
		t.Errorf("%v\n%s", err, &out)
	}
	empty(t, tmp)
}

// tempDir is where bench makes its folders; the paths of sockets below it have to be short.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return dir
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "steward-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestArgumentsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-only=S9"}, {"-runs=0"}, {"S1"}, {"-steward=/no/such/program"}, {"-nonsense"}} {
		if err := bench(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	t.Setenv("BENCH_RUNS", "many")
	if err := bench(t.Context(), nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "BENCH_RUNS=many") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsMissingDoubledOrOutOfOrderIsFound(t *testing.T) {
	lines := func(numbers ...int) io.Reader {
		var b []byte
		for _, i := range numbers {
			b = append(appendPayload(b, i), '\n')
		}
		return bytes.NewReader(b)
	}
	if err := checkLines(lines(0, 1, 2), 3); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]io.Reader{
		"missing":  lines(0, 2),
		"the last": lines(0, 1),
		"doubled":  lines(0, 1, 1, 2),
		"too many": lines(0, 1, 2, 3),
		"swapped":  lines(0, 2, 1),
		"torn":     io.MultiReader(lines(0, 1), strings.NewReader("00000002")),
		"none":     lines(),
	} {
		if err := checkLines(r, 3); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, answers := range []string{
		``, `{"accepted":["a"]}`, `{"accepted":["a","a"]}`, `{"accepted":["a","b","c"]}`, `{"error":"full"}`, "{\"accepted\":[\"a\",\"b\"]}\n{\"error\":\"x\"}", `nonsense`,
	} {
		if err := checkAnswers([]byte(answers), 2); err == nil {
			t.Errorf("%s: no error", answers)
		}
	}
	if err := checkAnswers([]byte("{\"accepted\":[\"a\"]}\n{\"accepted\":[\"b\"]}\n"), 2); err != nil {
		t.Error(err)
	}
}

func TestOrderIsMadeOfArrays(t *testing.T) {
	o := order{to: "ship1", file: "x", first: 5, n: 5, array: 2}
	var sizes []int
	var texts []byte
	for o.n > 0 {
		var array []struct {
			ToNode, Method, FileName string
			Data                     []string
		}
		if err := json.Unmarshal(o.appendArray(nil), &array); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(array))
		for _, m := range array {
			if m.ToNode != "ship1" || m.Method != "REQToFileAppend" || m.FileName != "x" || len(m.Data) != 1 || len(m.Data[0]) != payloadSize {
				t.Errorf("%+v", m)
			}
			texts = append(texts, m.Data[0]...)
		}
	}
	var want []byte
	for i := range 5 {
		want = appendPayload(want, 5+i)
	}
	if len(sizes) != 3 || sizes[0] != 2 || sizes[2] != 1 || !bytes.Equal(texts, want) {
		t.Errorf("arrays of %v, %q", sizes, texts)
	}
}

func TestTableShowsMediansAndGoals(t *testing.T) {
	r := newReport([]string{"machine"})
	for _, v := range []float64{3, 1, 2, 1000} { // the median is 2.5
		r.add(figures{"rate": v, "peer": 10})
	}
	r.judge("S1", []row{
		{key: "rate", text: "met", unit: "/s", peer: "peer", peerText: "p", goals: []goal{atLeast(2.5), ratioAtLeast(0.25)}},
		{key: "rate", text: "missed", unit: "/s", peer: "peer", peerText: "p", goals: []goal{atLeast(2), ratioAtMost(0.2)}},
		{key: "rate", text: "no peer", unit: "ms", peer: "none", peerText: "n", goals: []goal{ratioAtMost(0.2)}},
		{key: "none", text: "not measured"},
	})
	var b bytes.Buffer
	if err := r.writeTable(&b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"machine", "", "figure value peer peer's ratio goal met",
		"S1 met 2.50/s p 10/s 0.250 ≥ 2.50/s, ≥ × 0.250 yes",
		"S1 missed 2.50/s p 10/s 0.250 ≥ 2/s, ≤ × 0.200 no",
		"S1 no peer 2.50 ms n",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestNumbersAreShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 5: "5", 0.0456: "0.0456", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -4321: "-4,321"} {
		if got := number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

func TestProxyCarriesCountsAndDelays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const delay = 20 * time.Millisecond
	p, err := newProxy(l.Addr().String(), delay)
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()

	there := bytes.Repeat([]byte("0123456789"), 50_000)
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := near.Write(there)
		done <- errors.Join(err, near.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(far)
	if err := errors.Join(err, <-done); err != nil || !bytes.Equal(got, there) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(there), err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("there after %v", took)
	}
	if n := p.bytes.Load(); n != int64(len(there)) {
		t.Errorf("%d bytes counted, %d carried", n, len(there))
	}
	if p.since(time.Now()) < delay {
		t.Error("the first connection was not noted")
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}
