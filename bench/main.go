// Command bench measures Steward beside its peers, on one machine and in one run, and prints one
// table: what is promised about speed, memory and size is a ratio that anybody can check.
//
//	make bench                      all of it
//	BENCH=S2,S3 make bench          some of it
//	BENCH_RUNS=5 make bench         medians of five runs
//	BENCH_S5=1000000 make bench     the queue of S5 as long as it can be
//	make bench ARGS=-json           for programs
//
// Broker, nodes and peers are processes of their own, on loopback and in a temporary folder. A figure
// is reported only after the result was checked: all messages are there, once and in order. It
// ends with status 1 when something went wrong, not when a goal is missed.
//
// The program runs itself for the peers, see roles. What it knows of processes it reads from
// /proc, so that its table is complete on Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// settings are what the user chose.
type settings struct {
	steward string // the program that is measured
	agent   string // the same without the embedded broker; empty: it is not measured
	self    string // this program
	only    []string
	runs    int
	scale   float64
	queue   int // messages of S5
	profile string
	json    bool
	keep    bool
	log     io.Writer // what is going on
}

// count is the number of messages of a step, less of them in a quick look.
func (s *settings) count(n int) int { return max(10, int(float64(n)*s.scale)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := bench(ctx, args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case ctx.Err() != nil:
		return 130
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	return 1
}

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && roles[args[0]] != nil {
		return roles[args[0]](ctx, args[1:])
	}
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	m, err := describe()
	if err != nil {
		return err
	}
	if s.scale != 1 {
		m = append(m, fmt.Sprintf("only a quick look: %s of the messages and nodes that the lines name", number(s.scale)))
	}
	r := newReport(m)
	var failed error
	for _, sc := range scenarios() {
		if len(s.only) > 0 && !slices.Contains(s.only, sc.name) {
			continue
		}
		for i := range s.runs {
			fmt.Fprintf(s.log, "%s, run %d of %d: %s\n", sc.name, i+1, s.runs, sc.title)
			f, err := s.once(ctx, sc, i)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s, run %d: %w", sc.name, i+1, err))
				break
			}
			r.add(f)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.judge(sc.name, sc.rows)
	}
	if s.json {
		err = r.writeJSON(stdout)
	} else {
		err = r.writeTable(stdout)
	}
	return errors.Join(failed, err)
}

// longest is how long one run of a scenario may take.
const longest = 20 * time.Minute

// once is one run of a scenario, in a folder of its own that goes away.
func (s *settings) once(ctx context.Context, sc scenario, run int) (f figures, err error) {
	bounded, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	l, err := newLab(bounded, s, run == 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	f = figures{}
	if err := sc.run(l, f); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w%s", err, l.complaints())
	}
	return f, nil
}

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := &settings{log: stderr}
	var problems []error
	number := func(name string, def int) int {
		text := os.Getenv(name)
		if text == "" {
			return def
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			problems = append(problems, fmt.Errorf("%s=%s in the environment: want a number above 0", name, text))
		}
		return n
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.steward, "steward", "bin/steward", "the program to measure, as make build makes it")
	flags.StringVar(&s.agent, "agent", "bin/steward-agent", "the program without the embedded broker, as make agent makes it; empty: not measured")
	only := flags.String("only", os.Getenv("BENCH"), "the scenarios to run, such as S2,S3; empty: all (BENCH in the environment)")
	flags.IntVar(&s.runs, "runs", number("BENCH_RUNS", 3), "runs of each, of which the medians count (BENCH_RUNS)")
	flags.IntVar(&s.queue, "queue", number("BENCH_S5", 200_000), "messages in the queue of S5 (BENCH_S5)")
	flags.Float64Var(&s.scale, "scale", 1, "this part of all other numbers of messages and nodes, for a quick look")
	flags.StringVar(&s.profile, "profile", os.Getenv("BENCH_PROFILE"), "folder for CPU profiles of the nodes in the first run of S1 and S2 (BENCH_PROFILE)")
	flags.BoolVar(&s.json, "json", false, "print JSON")
	flags.BoolVar(&s.keep, "keep", false, "keep the folders, to look at them")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		problems = append(problems, fmt.Errorf("%q is one argument too many", flags.Arg(0)))
	}
	if s.runs < 1 || s.queue < 1 || s.scale <= 0 {
		problems = append(problems, errors.New("-runs, -queue and -scale have to be above 0"))
	}
	known := map[string]bool{}
	for _, sc := range scenarios() {
		known[sc.name] = true
	}
	for name := range strings.SplitSeq(*only, ",") {
		if name = strings.ToUpper(strings.TrimSpace(name)); name == "" {
			continue
		}
		if !known[name] {
			problems = append(problems, fmt.Errorf("no scenario %s; there are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), " ")))
		}
		s.only = append(s.only, name)
	}
	var err error
	if s.self, err = os.Executable(); err != nil {
		problems = append(problems, err)
	}
	for _, program := range []struct {
		path *string
		by   string
	}{{&s.steward, "make build"}, {&s.agent, "make agent"}} {
		if program.path == &s.agent && s.agent == "" {
			continue
		}
		if *program.path, err = filepath.Abs(*program.path); err != nil {
			problems = append(problems, err)
		} else if _, err = os.Stat(*program.path); err != nil {
			problems = append(problems, fmt.Errorf("%w: %s makes it", err, program.by))
		}
	}
	if s.profile != "" {
		problems = append(problems, os.MkdirAll(s.profile, 0o700))
	}
	return s, errors.Join(problems...)
}
