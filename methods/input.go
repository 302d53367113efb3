package methods

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"steward/message"
	"steward/process"
)

// input is what a reply brings to a command: its body and, of a reply in several parts, the
// parts before it, which were kept in a file each. A part that is written again after a
// crash is the same as before, so nothing has to be taken back.
type input struct {
	root *os.Root
	m    *message.Message
	size int64 // of all parts
}

// folder is where the parts wait for the last one.
func (in *input) folder() string { return path.Join(".replies", string(in.m.From)) }

func (in *input) part(n uint32) string {
	return path.Join(in.folder(), fmt.Sprintf(".steward-%s-%d.part", in.m.InReplyTo, n))
}

// keep stores a part that is not the last one.
func (in *input) keep(d disk) error {
	if err := d.folder(in.root, in.folder()); err != nil {
		return err
	}
	if in.m.Part == 0 {
		d.sweep(in.root, in.folder())
	}
	return d.extend(in.root, in.part(in.m.Part), 0, in.m.Body)
}

// newInput returns the input of a command, all of it being there.
func newInput(c *process.Call) (*input, error) {
	in := &input{root: c.Files, m: c.Message, size: int64(len(c.Message.Body))}
	for n := range c.Message.Part {
		fi, err := in.root.Lstat(in.part(n))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNoParts
		}
		if err != nil {
			return nil, reason(err)
		}
		in.size += fi.Size()
	}
	return in, nil
}

// drop removes the parts.
func (in *input) drop(d disk) {
	for n := range in.m.Part {
		_ = d.remove(in.root, in.part(n))
	}
}

// reader returns all of the input, from its beginning, with no more than a part in memory.
func (in *input) reader() io.Reader {
	rs := make([]io.Reader, 0, in.m.Part+1)
	for n := range in.m.Part {
		rs = append(rs, &keptPart{root: in.root, name: in.part(n)})
	}
	return io.MultiReader(append(rs, bytes.NewReader(in.m.Body))...)
}

// text returns all of the input for use in an argument.
func (in *input) text() (string, error) {
	b, err := io.ReadAll(in.reader())
	if err != nil {
		return "", fmt.Errorf("read the parts of the reply: %w", reason(err))
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "", errors.New("the output holds a NUL byte, which no argument can: leave " + message.DataPlaceholder + " out, the command gets the output on stdin too")
	}
	return string(b), nil
}

// keptPart is a part that is read from its file when its turn comes.
type keptPart struct {
	root *os.Root
	name string
	body *bytes.Reader
}

func (k *keptPart) Read(p []byte) (int, error) {
	if k.body == nil {
		f, err := openFile(k.root, k.name)
		if err != nil {
			return 0, err
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
		k.body = bytes.NewReader(b)
	}
	return k.body.Read(p)
}
