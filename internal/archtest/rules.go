package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// rule is one rule of the house. check calls report for every breach.
type rule struct {
	name   string
	reason string
	check  func(files []*file, report func(f *file, pos token.Pos, what string))
}

// rules are all of them; the table of layers is in layers.go.
var rules = []rule{
	{
		name:   "layers",
		reason: "imports point left only: message <- client, config, errorkernel, security, kvstore <- process <- methods <- cmd",
		check:  checkLayers,
	},
	{
		name:   "parents",
		reason: "a package does not know the implementations below it; cmd/internal/node joins them",
		check:  checkParents,
	},
	{
		name:   "vocabulary",
		reason: "message is what all others speak: it stays with the standard library",
		check:  checkVocabulary,
	},
	{
		name:   "client",
		reason: "a program that talks to a node has nothing linked in but the standard library and message",
		check: nonTest(func(f *file, report func(token.Pos, string)) {
			if !under(f.dir, "client") {
				return
			}
			for _, i := range f.imports {
				first, _, _ := strings.Cut(i.path, "/")
				if i.local == "" && strings.Contains(first, ".") || i.local != "" && i.local != "message" && !under(i.local, "client") {
					report(i.pos, "imports "+i.path)
				}
			}
		}),
	},
	{
		name:   "silent",
		reason: "message, security and kvstore return errors and leave the logging to who called them",
		check: nonTest(func(f *file, report func(token.Pos, string)) {
			if !underAny(f.dir, []string{"message", "security", "kvstore"}) {
				return
			}
			for _, i := range f.imports {
				if i.path == "log" || i.path == "log/slog" || i.local == "internal/logattr" {
					report(i.pos, "imports "+i.path)
				}
			}
		}),
	},
	{
		name:   "nats",
		reason: "NATS types stop at the transport, so that delivery can be simulated without a broker",
		check: together(
			onlyBelow("github.com/nats-io/nats.go", "process/transport", "internal/natstest", "bench"),
			onlyBelow("github.com/nats-io/nats-server", "process/transport", "internal/natstest", "bench"),
			// The format of keys, without a connection.
			onlyBelow("github.com/nats-io/nkeys", "process/transport", "security", "bench"),
		),
	},
	{
		name:   "bbolt",
		reason: "bbolt types stop at kvstore, which alone keeps the order and the sync of writes",
		check:  onlyBelow("go.etcd.io/bbolt", "kvstore", "bench"),
	},
	{
		name:   "go",
		reason: "a process has one owner who waits for its end: start it under a supervisor, or add the file to the list with the reason",
		check: nonTest(func(f *file, report func(token.Pos, string)) {
			if _, ok := mayStartGoroutines(f.name); ok {
				return
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					report(n.Pos(), "a go statement")
				case *ast.CallExpr: // sync.WaitGroup, errgroup.Group
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" && len(n.Args) == 1 {
						report(n.Pos(), "a call of a method Go, which starts a goroutine")
					}
				}
				return true
			})
		}),
	},
	{
		name:   "sleep",
		reason: "waiting is a timer in a select with the context; in tests it is the fake time of synctest, or a channel",
		check: each(func(f *file, report func(token.Pos, string)) {
			f.uses("time", []string{"Sleep"}, func(pos token.Pos, name string) { report(pos, name+" is used") })
		}),
	},
	{
		name:   "default logger",
		reason: "a logger is handed in, so that many nodes fit into one program and each line names its node",
		check: each(func(f *file, report func(token.Pos, string)) {
			if under(f.dir, "cmd") {
				return
			}
			names := []string{"Default", "SetDefault", "Debug", "DebugContext", "Info", "InfoContext", "Warn", "WarnContext",
				"Error", "ErrorContext", "Log", "LogAttrs", "With", "SetLogLoggerLevel"}
			f.uses("log/slog", names, func(pos token.Pos, name string) { report(pos, name+" is used") })
			for _, i := range f.imports {
				if i.path == "log" {
					report(i.pos, "imports log")
				}
			}
		}),
	},
	{
		name:   "exit",
		reason: "only main ends the program, after everything has been put down in order",
		check: nonTest(func(f *file, report func(token.Pos, string)) {
			if slices.Contains([]string{"cmd/steward/main.go", "bench/main.go", "internal/sbom/main.go"}, f.name) {
				return
			}
			found := func(pos token.Pos, name string) { report(pos, name+" is used") }
			f.uses("os", []string{"Exit"}, found)
			f.uses("syscall", []string{"Exit"}, found)
			f.uses("log", []string{"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"}, found)
		}),
	},
	{
		name:   "length",
		reason: fmt.Sprintf("a file that says one thing says it in %d lines", maxLines),
		check: nonTest(func(f *file, report func(token.Pos, string)) {
			if f.lines > maxLines && !ast.IsGenerated(f.ast) {
				report(f.ast.Package, fmt.Sprintf("%d lines", f.lines))
			}
		}),
	},
}

const maxLines = 600

// goroutines are the files and folders that may start goroutines, and why. They need not
// exist. Below a folder the owner of a goroutine is still one value, whose Close or Serve
// waits for it.
var goroutines = []struct{ place, why string }{
	{"process/supervisor.go", "starts every supervised process"},
	{"process/lane.go", "runs the messages of a method without order side by side, and waits for all of them at its end"},
	{"process/unacked.go", "runs messages without ACK side by side, and waits for all of them at its end"},
	{"kvstore/writer.go", "the one writer of the file, ended by closing the store"},
	{"process/transport", "a link reads and calls back in goroutines of its own, ended by closing it"},
	{"process/ingress", "a listener serves its clients side by side, and waits for all of them at its end"},
	{"client", "writes and reads a connection at the same time, and waits for the ends of many messages; a call waits for all of them"},
	{"cmd/internal", "commands wait for several things at a time"},
	{"internal/natstest", "runs a broker for a test, ended with the test"},
	{"internal/faults", "delivers late what a test delays"},
	{"bench", "loads a node from many sides"},
}

// mayStartGoroutines returns why the file may.
func mayStartGoroutines(name string) (why string, ok bool) {
	for _, g := range goroutines {
		if under(name, g.place) {
			return g.why, true
		}
	}
	return "", false
}

// each makes a rule about single files.
func each(check func(f *file, report func(pos token.Pos, what string))) func([]*file, func(*file, token.Pos, string)) {
	return func(files []*file, report func(*file, token.Pos, string)) {
		for _, f := range files {
			check(f, func(pos token.Pos, what string) { report(f, pos, what) })
		}
	}
}

// nonTest is each for files that are no tests.
func nonTest(check func(f *file, report func(pos token.Pos, what string))) func([]*file, func(*file, token.Pos, string)) {
	return each(func(f *file, report func(token.Pos, string)) {
		if !f.test {
			check(f, report)
		}
	})
}

// together makes one rule of several.
func together(checks ...func([]*file, func(*file, token.Pos, string))) func([]*file, func(*file, token.Pos, string)) {
	return func(files []*file, report func(*file, token.Pos, string)) {
		for _, check := range checks {
			check(files, report)
		}
	}
}

// onlyBelow makes the rule that packages below prefix are imported in places only.
func onlyBelow(prefix string, places ...string) func([]*file, func(*file, token.Pos, string)) {
	return nonTest(func(f *file, report func(token.Pos, string)) {
		if underAny(f.dir, places) {
			return
		}
		for _, i := range f.imports {
			if under(i.path, prefix) {
				report(i.pos, fmt.Sprintf("imports %s outside of %s", i.path, strings.Join(places, ", ")))
			}
		}
	})
}

// checkVocabulary keeps message, but not message/wire, to the standard library.
func checkVocabulary(files []*file, report func(*file, token.Pos, string)) {
	nonTest(func(f *file, report func(token.Pos, string)) {
		if !under(f.dir, "message") || under(f.dir, "message/wire") {
			return
		}
		for _, i := range f.imports {
			first, _, _ := strings.Cut(i.path, "/")
			if i.local == "" && strings.Contains(first, ".") || i.local != "" && !under(i.local, "message") {
				report(i.pos, "imports "+i.path)
			}
		}
	})(files, report)
}

// checkParents keeps a layer from importing what is below it in the tree of folders.
func checkParents(files []*file, report func(*file, token.Pos, string)) {
	nonTest(func(f *file, report func(token.Pos, string)) {
		if !slices.ContainsFunc(layers, func(l layer) bool { return l.folder == f.dir }) {
			return
		}
		for _, i := range f.imports {
			if i.local != f.dir && under(i.local, f.dir) {
				report(i.pos, f.dir+" imports "+i.local)
			}
		}
	})(files, report)
}
