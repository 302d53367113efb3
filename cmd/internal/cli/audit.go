package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"

	"steward/cmd/internal/audit"
)

func auditOperations() []operation {
	where := func(flags *flag.FlagSet) (files func(*call) (whole string, files []string, err error)) {
		folder := flags.String("databaseFolder", "", "`FOLDER` where its log is (default: as its configuration says)")
		name := flags.String("nodeName", "", "`NAME` of the node (default: as its configuration says)")
		return func(c *call) (string, []string, error) {
			if len(c.args) > 0 {
				return "", c.args, nil
			}
			var given []string
			for flag, value := range map[string]string{"databaseFolder": *folder, "nodeName": *name} {
				if value != "" {
					given = append(given, "-"+flag+"="+value)
				}
			}
			cfg, err := c.config(given...)
			if err != nil {
				return "", nil, err
			}
			whole := audit.Path(cfg.DatabaseFolder, cfg.NodeName)
			return whole, []string{whole}, nil
		}
	}
	return []operation{
		{
			name: "audit verify", args: "[FILE...]", most: -1, configured: true,
			short: "whether the audit log is what was written",
			about: `audit verify says whether the audit log of the node that runs here, or the one in FILEs, is what was written: no line of it
changed, removed, put in or moved. The FILEs are those of one log, in any order, compressed with gzip or not. A line that was torn by a
crash is named, and does not count. What was cut off at the end, or written anew by somebody who took the trouble, shows only beside
a head that was kept elsewhere.`,
			example: "steward audit verify\nsteward audit verify -head \"$(cat /media/stick/head)\"\nsteward audit verify lib/central.audit.log*",
			exits:   "1 something is wrong with the log",
			define: func(flags *flag.FlagSet) func(context.Context, *call) error {
				head := flags.String("head", "", "a line that has to be there, as `NUMBER:HASH`")
				files := where(flags)
				return func(_ context.Context, c *call) error {
					var kept *audit.Head
					if *head != "" {
						h, err := audit.ParseHead(*head)
						if err != nil {
							return usageError{fmt.Errorf("-head: %w", err)}
						}
						kept = &h
					}
					whole, list, err := files(c)
					if err != nil {
						return err
					}
					r, err := verifyLog(whole, list, kept)
					if err != nil {
						return noLogYet(err)
					}
					return auditResult(r, c.out)
				}
			},
		},
		{
			name: "audit head", args: "[FILE]", most: 1, configured: true,
			short: "the last line of the audit log, to be kept elsewhere",
			about: `audit head prints the number and the hash of the last line of the audit log. Keep it where nobody who may write to
the log may write, and hand it to audit verify later.`,
			example: "steward audit head > /media/stick/head",
			define: func(flags *flag.FlagSet) func(context.Context, *call) error {
				files := where(flags)
				return func(_ context.Context, c *call) error {
					_, list, err := files(c)
					if err != nil {
						return err
					}
					h, err := audit.HeadOf(list[0])
					if err != nil {
						return noLogYet(err)
					}
					_, err = fmt.Fprintln(c.out, h)
					return err
				}
			},
		},
	}
}

// noLogYet adds to an error about a log that is not there why that may be so.
func noLogYet(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hinted{err, "the first start of a node makes it; -configFolder or -databaseFolder says where that node is"}
	}
	return err
}

// verifyLog verifies files, or all that there are of whole. The node may rotate them meanwhile, so what
// seems wrong with those is looked at again.
func verifyLog(whole string, files []string, kept *audit.Head) (r audit.Result, err error) {
	if whole == "" {
		return audit.Verify(files, kept)
	}
	for range 2 {
		if files, err = audit.Files(whole); err != nil {
			return r, err
		}
		if r, err = audit.Verify(files, kept); err == nil && r.Bad == 0 {
			break
		}
	}
	return r, err
}

func auditResult(r audit.Result, out io.Writer) error {
	for _, f := range r.Findings {
		fmt.Fprintln(out, f)
	}
	if err := r.Check(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d lines in %d files follow each other", r.Lines, r.Files)
	if r.Lines > 0 {
		fmt.Fprintf(out, ", from number %d to %s", r.First, r.Head)
	}
	if r.Unchained > 0 {
		fmt.Fprintf(out, "; %d before them have no hash", r.Unchained)
	}
	fmt.Fprintln(out)
	return nil
}
