package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// The lines of a log are a chain: each has a number, and the hash of the line before it, with its
// newline, as the last keys of its object:
//
//	…,"n":17,"prev":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
//
// Where a line was cut off by a crash, the next one has the hash of the last whole line and of all
// behind it. The first line of all has a hash of zeros, or that of the last line of a version that
// knew no chain.

type sum = [sha256.Size]byte

// Head is the last line of a log: its number, and its hash. Kept elsewhere, it shows later that
// nothing was cut off.
type Head struct {
	N    uint64
	Hash sum
}

func (h Head) String() string {
	return strconv.FormatUint(h.N, 10) + ":" + hex.EncodeToString(h.Hash[:])
}

// ParseHead reads what Head.String wrote.
func ParseHead(text string) (Head, error) {
	number, hash, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(number, 10, 64)
	b, herr := hex.DecodeString(hash)
	if err != nil || herr != nil || len(b) != sha256.Size || n == 0 {
		return Head{}, errors.New("want NUMBER:HASH, as steward audit head prints it")
	}
	return Head{n, sum(b)}, nil
}

const (
	keyNumber = `,"n":`
	keyPrev   = `,"prev":"`
	lineEnd   = "\"}\n"
)

// appendLink ends the object of a line.
func appendLink(b []byte, n uint64, prev sum) []byte {
	b = strconv.AppendUint(append(b, keyNumber...), n, 10)
	b = hex.AppendEncode(append(b, keyPrev...), prev[:])
	return append(b, lineEnd...)
}

// parseLink reads what appendLink wrote. A line without it was cut off, or is none of this version.
func parseLink(line []byte) (n uint64, prev sum, ok bool) {
	rest, ok := bytes.CutSuffix(line, []byte(lineEnd))
	if !ok || len(rest) < 2*sha256.Size || line[0] != '{' {
		return 0, prev, false
	}
	rest, hash := rest[:len(rest)-2*sha256.Size], rest[len(rest)-2*sha256.Size:]
	if _, err := hex.Decode(prev[:], hash); err != nil {
		return 0, prev, false
	}
	rest, ok = bytes.CutSuffix(rest, []byte(keyPrev))
	at := bytes.LastIndex(rest, []byte(keyNumber))
	if !ok || at < 0 {
		return 0, prev, false
	}
	n, err := strconv.ParseUint(string(rest[at+len(keyNumber):]), 10, 64)
	return n, prev, err == nil && n > 0
}

// chain is where a log goes on.
type chain struct {
	head Head
	next sum // what its next line has as prev
}

const (
	firstLook = 256 << 10
	// mostTail bounds how far back a line is looked for. It is far more than one can have.
	mostTail = 64 << 20
)

// tail reads the end of a chain from a file of which size bytes are there. ok is false when no
// line with a hash is there: then the chain begins behind what the last line is.
func tail(r io.ReaderAt, size int64) (c chain, ok bool, err error) {
	if size == 0 {
		return c, false, nil
	}
	for look := int64(firstLook); ; look *= 4 {
		from := max(0, size-min(look, mostTail))
		b := make([]byte, size-from)
		if _, err := r.ReadAt(b, from); err != nil && err != io.EOF {
			return c, false, err
		}
		last := len(b) // the last line begins here, whole or not
		for end := len(b); end > 0; {
			begin := bytes.LastIndexByte(b[:end-1], '\n') + 1
			if begin == 0 && from > 0 {
				break
			}
			if last == len(b) {
				last = begin
			}
			if n, _, ok := parseLink(b[begin:end]); ok {
				return chain{Head{n, sha256.Sum256(b[begin:end])}, sha256.Sum256(b[begin:])}, true, nil
			}
			end = begin
		}
		if from == 0 || look >= mostTail {
			return chain{next: sha256.Sum256(b[last:])}, false, nil
		}
	}
}

// tailOf is tail for a file by its name. One that is not there is empty.
func tailOf(path string) (c chain, ok bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return c, false, err
	}
	return tail(f, info.Size())
}
