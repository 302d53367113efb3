package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// figures are what one run has measured, by key.
type figures map[string]float64

// row is one line of the table: a figure, and what it is held against.
type row struct {
	key, text, unit string
	peer, peerText  string // the peer's figure, if there is one
	goals           []goal
}

// goal is a bound of a figure, or of its ratio to that of the peer.
type goal struct {
	ratio bool
	least bool // the bound is the least, else the most
	bound float64
}

func atLeast(v float64) goal      { return goal{least: true, bound: v} }
func atMost(v float64) goal       { return goal{bound: v} }
func ratioAtLeast(v float64) goal { return goal{ratio: true, least: true, bound: v} }
func ratioAtMost(v float64) goal  { return goal{ratio: true, bound: v} }

// report gathers the figures of all runs.
type report struct {
	machine []string
	values  map[string][]float64
	lines   []line
}

// line is a row with its medians, as it is printed.
type line struct {
	Scenario string    `json:"scenario"`
	Figure   string    `json:"figure"`
	Unit     string    `json:"unit,omitempty"`
	Value    float64   `json:"value"`
	Runs     []float64 `json:"runs"`
	Peer     string    `json:"peer,omitempty"`
	PeerIs   *float64  `json:"peerValue,omitempty"`
	Ratio    *float64  `json:"ratio,omitempty"`
	Goal     string    `json:"goal,omitempty"`
	Met      *bool     `json:"met,omitempty"`
}

func newReport(machine []string) *report {
	return &report{machine: machine, values: map[string][]float64{}}
}

func (r *report) add(f figures) {
	for key, v := range f {
		r.values[key] = append(r.values[key], v)
	}
}

// judge makes the lines of a scenario from the medians of its runs. What was not measured has none.
func (r *report) judge(scenario string, rows []row) {
	for _, w := range rows {
		runs := r.values[w.key]
		if len(runs) == 0 {
			continue
		}
		l := line{Scenario: scenario, Figure: w.text, Unit: w.unit, Value: median(runs), Runs: runs, Peer: w.peerText}
		if peer := r.values[w.peer]; len(peer) > 0 {
			p := median(peer)
			ratio := l.Value / p
			l.PeerIs = &p
			if !math.IsInf(ratio, 0) && !math.IsNaN(ratio) {
				l.Ratio = &ratio
			}
		}
		l.hold(w.goals)
		r.lines = append(r.lines, l)
	}
}

// hold holds the line against its goals. One about a ratio that there is not says nothing.
func (l *line) hold(goals []goal) {
	var texts []string
	met := true
	for _, g := range goals {
		v, text := l.Value, number(g.bound)+unit(l.Unit)
		if g.ratio {
			text = "× " + number(g.bound)
			if l.Ratio == nil {
				continue
			}
			v = *l.Ratio
		}
		sign := "≤ "
		if g.least {
			sign = "≥ "
		}
		texts = append(texts, sign+text)
		met = met && (v == g.bound || (v > g.bound) == g.least)
	}
	if len(texts) > 0 {
		l.Goal, l.Met = strings.Join(texts, ", "), &met
	}
}

// median is the middle of the values, or halfway between the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Machine []string `json:"machine"`
		Lines   []line   `json:"figures"`
	}{r.machine, r.lines})
}

func (r *report) writeTable(w io.Writer) error {
	for _, text := range r.machine {
		fmt.Fprintln(w, text)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tfigure\tvalue\tpeer\tpeer's\tratio\tgoal\tmet")
	for _, l := range r.lines {
		peer, ratio, met := "", "", ""
		if l.PeerIs != nil {
			peer = number(*l.PeerIs) + unit(l.Unit)
		}
		if l.Ratio != nil {
			ratio = number(*l.Ratio)
		}
		if l.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*l.Met]
		}
		fmt.Fprintln(t, strings.Join([]string{l.Scenario, l.Figure, number(l.Value) + unit(l.Unit), l.Peer, peer, ratio, l.Goal, met}, "\t"))
	}
	return t.Flush()
}

func unit(u string) string {
	switch u {
	case "", "/s":
		return u
	}
	return " " + u
}

// number writes three digits that count, and commas between thousands.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		text := strconv.FormatFloat(math.Round(a), 'f', 0, 64)
		for i := len(text) - 3; i > 0; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		if v < 0 {
			text = "-" + text
		}
		return text
	case a == 0, a == math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Floor(math.Log10(a)))), 64)
	}
}
