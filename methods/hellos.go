package methods

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"steward/message"
)

// LastHello is what a node said last with REQHello.
type LastHello struct {
	Node message.Node
	At   time.Time
	Text string
}

// Hellos returns the last hello of each node that has said one to the node with this data folder.
func Hellos(files *os.Root) ([]LastHello, error) {
	folders, err := fs.ReadDir(files.FS(), helloFolder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []LastHello
	for _, folder := range folders {
		node := message.Node(folder.Name())
		if node.Check() != nil {
			continue // somebody else has put it there
		}
		name := path.Join(helloFolder, folder.Name(), helloFile)
		// Between a rotation and the next line there is only the old file.
		for _, name := range []string{name, name + ".1"} {
			line, err := lastLine(files, name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if h, ok := parseHello(node, line); ok {
				all = append(all, h)
				break
			}
		}
	}
	return all, nil
}

// parseHello reads what helloLog wrote.
func parseHello(node message.Node, line string) (LastHello, bool) {
	at, rest, _ := strings.Cut(line, " ")
	_, text, _ := strings.Cut(rest, " ") // behind the id
	t, err := time.Parse(time.RFC3339, at)
	said, ok := strings.CutPrefix(text+" ", helloFrom(node))
	return LastHello{Node: node, At: t, Text: strings.TrimSpace(said)}, err == nil && ok
}

// lastLine returns the last whole line of a file, or what of it is in the last few kilobytes.
func lastLine(files *os.Root, name string) (string, error) {
	const most = 4 << 10
	f, err := files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return "", err
	}
	b := make([]byte, min(fi.Size(), most))
	n, err := f.ReadAt(b, fi.Size()-int64(len(b)))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	b = b[:bytes.LastIndexByte(b[:n], '\n')+1]
	b = bytes.TrimSuffix(b, []byte{'\n'})
	return string(b[bytes.LastIndexByte(b, '\n')+1:]), nil
}
