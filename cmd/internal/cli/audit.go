package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"steward/cmd/internal/audit"
)

const auditHelp = `steward audit looks at the audit log of the node that runs here, or of FILE.

usage: steward audit verify [flags] [FILE...]
       steward audit head [flags] [FILE]

verify says whether the log is what was written: no line of it changed, removed, put in or moved. The
FILEs are those of one log, in any order, compressed with gzip or not. A line that was torn by a crash
is named, and does not count. What was cut off at the end, or written anew by somebody who took the
trouble, shows only beside a head that was kept elsewhere:

head prints the number and the hash of the last line. Keep it where nobody who may write to
the log may write, and hand it to verify later.

  steward audit verify
  steward audit head > /media/stick/head
  steward audit verify -head "$(cat /media/stick/head)"
  steward audit verify lib/central.audit.log*

  -head NUMBER:HASH        a line that has to be there
  -configFolder FOLDER     that of the node (default ./etc, or CONFIGFOLDER in the environment)
  -databaseFolder FOLDER   where its log is (default: as its configuration says)
  -nodeName NAME           its name (default: as its configuration says)

exit codes: 0 nothing is wrong with the log, 1 something is, 2 usage
`

func runAudit(_ context.Context, args []string, s streams) error {
	flags := flag.NewFlagSet("audit", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	head := flags.String("head", "", "")
	configFolder := flags.String("configFolder", "", "")
	databaseFolder := flags.String("databaseFolder", "", "")
	nodeName := flags.String("nodeName", "", "")
	what := ""
	if len(args) > 0 && (args[0] == "verify" || args[0] == "head") {
		what, args = args[0], args[1:]
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, werr := io.WriteString(s.out, auditHelp)
		return errors.Join(werr, flag.ErrHelp)
	} else if err != nil {
		return usageError{hinted{fmt.Errorf("audit: %w", err), "steward audit -h"}}
	}
	files := flags.Args()
	switch {
	case what == "":
		return usageError{hinted{errors.New("audit: say what to do"), "steward audit verify, or steward audit head; steward audit -h"}}
	case what == "head" && (len(files) > 1 || *head != ""):
		return usageError{hinted{errors.New("audit head: it takes one file at most"), "steward audit -h"}}
	}
	var kept *audit.Head
	if *head != "" {
		h, err := audit.ParseHead(*head)
		if err != nil {
			return usageError{fmt.Errorf("audit verify: -head: %w", err)}
		}
		kept = &h
	}
	var whole string // the log of which the files are looked up
	if len(files) == 0 {
		cfg, err := configOf(s.env, "configFolder", *configFolder, "databaseFolder", *databaseFolder, "nodeName", *nodeName)
		if err != nil {
			return usageError{err}
		}
		whole = audit.Path(cfg.DatabaseFolder, cfg.NodeName)
		files = []string{whole}
	}
	if what == "head" {
		h, err := audit.HeadOf(files[0])
		if err != nil {
			return fmt.Errorf("audit head: %w", err)
		}
		_, err = fmt.Fprintln(s.out, h)
		return err
	}
	r, err := verifyLog(whole, files, kept)
	if err != nil {
		return fmt.Errorf("audit verify: %w", err)
	}
	return auditResult(r, s.out)
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
		return fmt.Errorf("audit verify: %w", err)
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
