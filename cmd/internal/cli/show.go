package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// table writes rows below a head, in columns.
type table struct {
	w     *tabwriter.Writer
	begun bool
	head  []string
	cut   *cutter // nil: lines are as long as they are
}

func (c *call) table(head ...string) *table {
	return &table{w: tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0), head: head}
}

// narrowTable is a table that is no wider than the terminal on which it is shown, if it is on one: its last column is to
// be what is cut off.
func (c *call) narrowTable(head ...string) *table {
	t := c.table(head...)
	if file := c.terminal(c.out); file != nil {
		t.cut = &cutter{w: c.out, terminal: file}
		t.w.Init(t.cut, 0, 0, 2, ' ', 0)
	}
	return t
}

// cutter cuts lines to the width of a terminal.
type cutter struct {
	w        io.Writer
	terminal *os.File
	line     bytes.Buffer // the beginning of one
	shorter  bool         // some were cut
}

func (c *cutter) Write(p []byte) (int, error) {
	columns, _ := sizeOf(c.terminal)
	c.line.Write(p)
	for {
		end := bytes.IndexByte(c.line.Bytes(), '\n')
		if end < 0 {
			return len(p), nil
		}
		text := strings.TrimRight(string(c.line.Next(end+1)), " \n")
		cut := fit(text, columns)
		c.shorter = c.shorter || cut != text
		if _, err := fmt.Fprintln(c.w, cut); err != nil {
			return len(p), err
		}
	}
}

func (t *table) row(cells ...any) {
	if !t.begun {
		fmt.Fprintln(t.w, strings.Join(t.head, "\t"))
		t.begun = true
	}
	texts := make([]string, len(cells))
	for i, cell := range cells {
		// A cell is one line, whatever is in it.
		texts[i] = strings.Join(strings.Fields(fmt.Sprint(cell)), " ")
		if texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// isCut says whether what was flushed is not all of it.
func (t *table) isCut() bool { return t.cut != nil && t.cut.shorter }

// span is a time as people say it.
func span(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return twoUnits(int(d/time.Minute), "m", int(d/time.Second)%60, "s")
	case d < 48*time.Hour:
		return twoUnits(int(d/time.Hour), "h", int(d/time.Minute)%60, "m")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func twoUnits(n int, unit string, rest int, smaller string) string {
	if rest == 0 {
		return fmt.Sprintf("%d%s", n, unit)
	}
	return fmt.Sprintf("%d%s%d%s", n, unit, rest, smaller)
}

// clock is a moment, to the millisecond, by the clock of this machine.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// count is a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size is a number of bytes as people say it.
func size(n uint64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	i := -1
	for v >= 1000 && i < len(units)-1 {
		v /= 1000
		i++
	}
	return fmt.Sprintf("%.1f %cB", v, units[i])
}
