package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// table writes rows below a head, in columns.
type table struct {
	w     *tabwriter.Writer
	begun bool
	head  []string
}

func (c *call) table(head ...string) *table {
	return &table{w: tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0), head: head}
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
