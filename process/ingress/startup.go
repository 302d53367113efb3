package ingress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"steward/message"
)

const startupName = "startup folder"

// Startup hands in what the files of a folder hold, once for each Serve, in the order of
// their names. The files stay where they are. One that cannot be accepted is reported and left
// out; that there is no such folder is no error.
type Startup struct{ opt FileOptions }

// NewStartup checks the options.
func NewStartup(opt FileOptions) (*Startup, error) {
	if err := opt.check(startupName); err != nil {
		return nil, err
	}
	return &Startup{opt}, nil
}

// Serve returns when all files have been handed in, or ctx has ended.
func (s *Startup) Serve(ctx context.Context) error {
	root, err := os.OpenRoot(s.opt.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var list []string
	if err == nil {
		defer root.Close()
		list, err = names(root, ".")
	}
	if err != nil {
		s.opt.refused(startupName, err)
		return nil
	}
	if info, err := os.Stat(s.opt.Path); err == nil && info.Mode().Perm()&0o022 != 0 {
		s.opt.Log.Warn("others can write to the folder, and so run methods on this node", "path", s.opt.Path, "mode", info.Mode().Perm().String())
	}
	for _, name := range list {
		if err := s.file(ctx, root, name); err != nil {
			s.opt.refused(startupName, fmt.Errorf("%s: %w", name, err))
		}
	}
	return nil
}

func (s *Startup) file(ctx context.Context, root *os.Root, name string) error {
	msgs, err := s.opt.messages(root, name)
	if err != nil || len(msgs) == 0 {
		return err
	}
	setOrigin(msgs, startupName+" "+message.Quote(name))
	var again retry
	for ctx.Err() == nil {
		s.opt.stamp(msgs)
		if _, err = s.opt.Accept(ctx, msgs); err == nil {
			s.opt.Log.Info("startup messages accepted", "file", name, "messages", len(msgs))
			return nil
		}
		if errors.Is(err, message.ErrInvalid) {
			return err
		}
		again.after(ctx, &s.opt, startupName, err)
	}
	return nil
}
