package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"steward/cmd/internal/node"
	"steward/cmd/internal/sdnotify"
	"steward/config"
	"steward/internal/logattr"
	"steward/methods"
	"steward/process"
	"steward/security/acl"
)

// serving runs a node until ctx ends, and calls ready when it takes messages.
type serving func(ctx context.Context, s streams, ready func()) error

// runNode runs the daemon: steward without a command.
func runNode(ctx context.Context, args []string, s streams) error {
	// Noted from here on, so that no hangup ends the node, and acted on when it runs.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	return asService(ctx, s, hangups, func(ctx context.Context, s streams, ready func()) error {
		return serveNode(ctx, args, s, hangups, ready)
	})
}

// serveNode runs a node that reads its settings again at each hangup.
func serveNode(ctx context.Context, args []string, s streams, hangups <-chan os.Signal, ready func()) (err error) {
	registry, err := methods.Builtin()
	if err != nil {
		return err
	}
	cfg, err := config.Load(args, s.env, configMethods(registry))
	if errors.Is(err, flag.ErrHelp) {
		return errors.Join(help(s.out), flag.ErrHelp)
	}
	if err != nil {
		return usageError{hinted{err, "steward -help lists the flags"}}
	}
	level := new(slog.LevelVar)
	log := leveledLogger(s.err, cfg, level)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	manager, err := sdnotify.FromEnv(s.env, os.Getpid())
	if err != nil {
		log.Warn("service manager is not told all", logattr.Err(err))
	}
	n, err := node.New(node.Options{Config: cfg, Registry: registry, Log: log, Stdout: s.out, Stderr: s.err, Version: version(), Manager: manager})
	var mistake *acl.Error
	if errors.As(err, &mistake) { // no other start mends it
		return usageError{hinted{err, mendRules(cfg)}}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	// Only settings that a node could start with become the next defaults.
	for _, w := range cfg.Save() {
		log.Warn(w)
	}
	var reloads sync.WaitGroup
	over := make(chan struct{})
	reloads.Go(func() {
		select {
		case <-n.Ready():
			ready()
		case <-over:
			return
		}
		started := time.After(settling)
		for {
			select {
			case <-started:
				if err := letGoOfProgram(); err != nil {
					log.Debug("pages that the start needed stay resident", logattr.Err(err))
				}
			case <-hangups:
				told := manager.Reloading()
				reload(ctx, n, args, s.env, registry, log, level)
				if told = errors.Join(told, manager.Ready()); told != nil {
					log.Warn("service manager does not listen", logattr.Err(told))
				}
			case <-over:
				return
			}
		}
	})
	defer reloads.Wait()
	defer close(over)
	return n.Run(ctx)
}

// settling is how long a node that takes messages is given until all that its start looks at has been looked at.
const settling = 2 * time.Second

// reloadPatience is how long subscribers may take to start and stop.
const reloadPatience = 30 * time.Second

// reload reads the settings again and has the node go by them. Those of flags and environment are as they were at the start.
func reload(ctx context.Context, n *node.Node, args, env []string, registry *methods.Registry, log *slog.Logger, level *slog.LevelVar) {
	ctx, cancel := context.WithTimeout(ctx, reloadPatience)
	defer cancel()
	cfg, err := config.Load(args, env, configMethods(registry))
	if err == nil {
		for _, w := range cfg.Warnings {
			log.Warn(w)
		}
		err = n.Reload(ctx, cfg, func() { setLevel(level, cfg) })
	}
	if err != nil {
		log.Error("settings stay as they were", logattr.Err(err))
	}
}

// configMethods tells the configuration of the methods that there are.
func configMethods(r *methods.Registry) []config.Method {
	var list []config.Method
	for _, spec := range r.All() {
		m := config.Method{Name: spec.Name}
		if spec.Access == process.AccessAll {
			m.Default = []string{"*"}
		}
		list = append(list, m)
	}
	return list
}

func newLogger(w io.Writer, cfg *config.Config) *slog.Logger {
	return leveledLogger(w, cfg, new(slog.LevelVar))
}

func setLevel(level *slog.LevelVar, cfg *config.Config) {
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // checked by the configuration
}

// leveledLogger is newLogger with a level that can be changed.
func leveledLogger(w io.Writer, cfg *config.Config, level *slog.LevelVar) *slog.Logger {
	setLevel(level, cfg)
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// help prints how to use the program, with all its flags.
func help(w io.Writer) error {
	registry, err := methods.Builtin()
	if err != nil {
		return err
	}
	fmt.Fprint(w, `steward controls machines whose link comes and goes.

usage:
  steward [flags]      run a node
  steward COMMAND      one of the commands below

commands:
`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-14s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(w, `  %-14s this text

A message is handed to a running node through its socket:

  nc -U tmp/steward.sock < example/req_cli_command.json

exit codes: 0 done, 1 failed, 2 usage, 3 some nodes did not answer, 4 denied, 5 timed out, 130 interrupted

flags of a node:
`, "help")
	return config.Usage(w, configMethods(registry))
}
