package cli

import (
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/rivo/uniseg"
	"golang.org/x/term"
)

// terminal returns the file behind a stream of s, or nil when that is no terminal on which a cursor can be moved.
func (s *streams) terminal(stream any) *os.File {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || slices.Contains(s.env, "TERM=dumb") {
		return nil
	}
	return f
}

// sizeOf is how many columns and lines a terminal has.
func sizeOf(f *os.File) (columns, lines int) {
	columns, lines, err := term.GetSize(int(f.Fd()))
	if err != nil || columns < 1 || lines < 1 {
		return 80, 24
	}
	return columns, lines
}

// columnsOf is how many columns a rune takes.
func columnsOf(r rune) int {
	return uniseg.StringWidth(string(r))
}

// widthOf is how many columns a text takes.
func widthOf(text string) (n int) {
	for _, r := range text {
		n += columnsOf(r)
	}
	return n
}

// fit is as much of a text as has room in so many columns; what is cut off shows.
func fit(text string, columns int) string {
	if widthOf(text) <= columns {
		return text
	}
	n := 0
	for i, r := range text {
		if n += columnsOf(r); n > columns-1 {
			if columns < 1 {
				return ""
			}
			return text[:i] + "…"
		}
	}
	return text
}

// oneLine is a text without what would move the cursor of a terminal, or do worse: it may come from anybody.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, text)
}
