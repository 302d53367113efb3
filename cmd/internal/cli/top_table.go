package cli

import (
	"fmt"
	"slices"
	"strings"
)

// topTable is a part of the screen.
type topTable struct {
	name    string
	none    string // what stands there in place of rows
	columns []topColumn
	rows    [][]piece
}

type topColumn struct {
	head  string
	right bool // its cells end at the same place
}

const (
	// between are the blanks between two columns.
	between = 2
	// leastText is how narrow a column of text becomes to leave room for those behind it.
	leastText = 10
)

func (t *topTable) row(cells ...piece) {
	for i := range cells {
		if cells[i].text = oneLine(cells[i].text); cells[i].text == "" {
			cells[i] = piece{"-", dim}
		}
	}
	t.rows = append(t.rows, cells)
}

// lines are the head of the table and n of its rows, from the first one on; width columns, or as many as it takes
// when that is 0.
func (t *topTable) lines(width, first, n int, st style) (lines []screenLine) {
	name := t.name
	if len(t.rows) > n {
		name = fmt.Sprintf("%s %d-%d of %d", t.name, first+1, min(first+n, len(t.rows)), len(t.rows))
	}
	if width == 0 {
		lines = append(lines, screenLine{{name, st}})
	}
	widths := t.widths(width)
	heads := make([]piece, len(t.columns))
	for i, c := range t.columns {
		heads[i] = piece{c.head, st}
	}
	if width > 0 { // the name stands in place of the first head
		heads[0].text, widths[0] = name, max(widths[0], min(widthOf(name), width/2))
	}
	if len(t.rows) > 0 || width > 0 {
		lines = append(lines, t.line(heads, widths, width, st))
	}
	if len(t.rows) == 0 {
		text := piece{t.none, dim}
		if width > 0 {
			text.text = fit(" "+text.text, width)
		}
		return append(lines, screenLine{text})
	}
	for _, row := range t.rows[first:min(first+n, len(t.rows))] {
		lines = append(lines, t.line(row, widths, width, plain))
	}
	return lines
}

// widths says how wide the columns are: as wide as their widest cell, if there is room. If not, the widest of those
// that hold text become narrower.
func (t *topTable) widths(width int) []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = widthOf(c.head)
		for _, row := range t.rows {
			widths[i] = max(widths[i], widthOf(row[i].text))
		}
	}
	if width == 0 {
		return widths
	}
	last := len(widths) - 1 // it ends where the screen does
	over := 1 + widthOf(t.columns[last].head)
	for _, w := range widths[:last] {
		over += w + between
	}
	for over -= width; over > 0; over-- {
		widest := -1
		for i, c := range t.columns[:last] {
			if !c.right && widths[i] > leastText && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// line puts cells into columns. What is not plain is so from end to end of the line if fill is not.
func (t *topTable) line(cells []piece, widths []int, width int, fill style) screenLine {
	l := screenLine{}
	left := width
	add := func(text string, st style) {
		if width > 0 {
			text = fit(text, max(0, left))
			left -= widthOf(text)
		}
		if text != "" {
			l = append(l, piece{text, st})
		}
	}
	if width > 0 {
		add(" ", fill)
	}
	for i, c := range cells {
		last := i == len(cells)-1
		text := c.text
		if !last || width > 0 && !t.columns[i].right {
			text = fit(text, max(widths[i], 0))
		}
		blanks := strings.Repeat(" ", max(0, widths[i]-widthOf(text)))
		if t.columns[i].right {
			text = blanks + text
		} else if !last {
			text += blanks
		}
		add(text, c.style)
		if !last {
			add(strings.Repeat(" ", between), fill)
		}
	}
	if fill != plain && left > 0 {
		add(strings.Repeat(" ", left), fill)
	}
	return slices.Clip(l)
}
