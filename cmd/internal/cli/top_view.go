package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"steward/client"
)

// style is how a piece of a line looks.
type style uint8

const (
	plain style = iota
	dim
	bold
	bar     // the first line of the screen
	head    // that of a part
	focused // that of the part in which the arrows move
	good
	warn
	bad
)

// piece is a part of a line that looks the same from end to end.
type piece struct {
	text  string
	style style
}

// screenLine is a line of the screen.
type screenLine []piece

func (l screenLine) text() string {
	var b strings.Builder
	for _, p := range l {
		b.WriteString(p.text)
	}
	return strings.TrimRight(b.String(), " ")
}

// The parts of the screen.
const (
	partNodes = iota
	partStreams
	partRuns
	partErrors
	parts
)

// topView is what the keys have made of the screen.
type topView struct {
	focus  int
	offset [parts]int // the first row that is shown of each part
	rows   [parts]int // how many were shown last, to move by a page
	filter string
	typing bool // the filter
	paused bool
	help   bool
	whole  bool // the part with the focus has all of the screen
}

// topKey is a key: a name, or for a letter the letter itself.
type topKey string

const (
	keyTab       topKey = "tab"
	keyBackTab   topKey = "backtab"
	keyLeft      topKey = "left"
	keyRight     topKey = "right"
	keyUp        topKey = "up"
	keyDown      topKey = "down"
	keyPageUp    topKey = "page up"
	keyPageDown  topKey = "page down"
	keyHome      topKey = "home"
	keyEnd       topKey = "end"
	keyEnter     topKey = "enter"
	keyEscape    topKey = "escape"
	keyBackspace topKey = "backspace"
	keyInterrupt topKey = "interrupt"
)

const topHelp = `tab, right, shift-tab, left   to another part
up, down, page up, page down  move in it
home, end                     to its first and last line
enter                         give it all of the screen, and back
/                             show only lines that hold a word; Esc ends that
p, blank                      hold the view, and go on
?                             this text
q, Ctrl-C                     end

nodes    LINK is that of the node here to its broker: up or down. Another
         one answers, or is silent, when something was sent to it since top
         began, or in the minute before.
streams  What waits for one method of one node. TRIES got no ACK so far, of
         how many there are; then NEXT says when it is tried again. MSG/S and
         B/S are what was delivered, the mean of the last ten seconds, and
         compressed as it went over the link.
runs     Methods that run on the node here, whoever sent the message, and
         processes of it that do not. What runs elsewhere is to be seen there.
errors   The last ones of the error log here. All nodes send theirs to central.`

// key does what a key stands for, and says whether that ends the view.
func (v *topView) key(k topKey) (quit bool) {
	if k == keyInterrupt {
		return true
	}
	if v.typing {
		v.typeFilter(k)
		return false
	}
	if v.help {
		v.help = false
		return false
	}
	move := func(n int) { v.offset[v.focus] = max(0, v.offset[v.focus]+n) }
	switch k {
	case "q":
		return true
	case "?", "h":
		v.help = true
	case "p", " ":
		v.paused = !v.paused
	case "/":
		v.typing = true
	case keyEscape:
		v.filter, v.whole = "", false
	case keyEnter:
		v.whole = !v.whole
	case keyTab, keyRight, "l":
		v.focus = (v.focus + 1) % parts
	case keyBackTab, keyLeft:
		v.focus = (v.focus + parts - 1) % parts
	case keyUp, "k":
		move(-1)
	case keyDown, "j":
		move(1)
	case keyPageUp:
		move(-max(1, v.rows[v.focus]))
	case keyPageDown:
		move(max(1, v.rows[v.focus]))
	case keyHome, "g":
		v.offset[v.focus] = 0
	case keyEnd, "G":
		v.offset[v.focus] = 1 << 30 // as far as it goes
	}
	return false
}

func (v *topView) typeFilter(k topKey) {
	runes := []rune(v.filter)
	switch {
	case k == keyEnter:
		v.typing = false
	case k == keyEscape:
		v.typing, v.filter = false, ""
	case k == keyBackspace && len(runes) > 0:
		v.filter = string(runes[:len(runes)-1])
	case len([]rune(k)) == 1:
		v.filter += string(k)
	}
}

// frame is the screen, so many columns wide and lines high: never more of them. 0 is no bound, for plain text.
// problem is why what is shown may be of before.
func (v *topView) frame(s *topShown, problem string, width, height int) []screenLine {
	all := v.tables(s)
	var lines []screenLine
	add := func(l ...screenLine) { lines = append(lines, l...) }
	add(topBar(s, problem, v.paused, width), topSums(s, width))
	if height == 0 {
		for _, t := range all {
			add(nil)
			add(t.lines(width, 0, len(t.rows), plain)...)
		}
		return lines
	}
	room := height - len(lines) - 1
	if v.help {
		add(nil)
		for line := range strings.Lines(topHelp) {
			add(screenLine{{fit(" "+strings.TrimRight(line, "\n"), width), plain}})
		}
	} else {
		shown := v.share(all, room)
		spare := room
		for i := range all {
			spare -= shown[i]
		}
		for i, t := range all {
			if shown[i] == 0 {
				continue
			}
			n := shown[i] - 1
			v.rows[i] = n
			v.offset[i] = max(0, min(v.offset[i], len(t.rows)-n))
			st := head
			if i == v.focus {
				st = focused
			}
			add(t.lines(width, v.offset[i], n, st)...)
			if spare > 0 && i < parts-1 && !v.whole {
				add(nil)
				spare--
			}
		}
	}
	lines = lines[:min(len(lines), max(0, height-1))]
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	return append(lines, v.foot(width))
}

// share says how many lines each part gets, its head among them: as many as it needs, or as many as the others
// get.
func (v *topView) share(all []topTable, room int) (shown [parts]int) {
	const least = 2 // a head and a line
	if v.whole || room < least*parts {
		shown[v.focus] = max(0, room)
		return shown
	}
	for i := range all {
		shown[i] = least
		room -= least
	}
	for given := true; given && room > 0; {
		given = false
		for i, t := range all {
			if shown[i] < 1+len(t.rows) && room > 0 {
				shown[i]++
				room--
				given = true
			}
		}
	}
	return shown
}

func (v *topView) foot(width int) screenLine {
	text := " q quit  tab part  arrows move  enter whole  / filter  p pause  ? help"
	switch {
	case v.typing:
		return screenLine{{fit(" /"+v.filter+"_", width), bold}, {"  enter keeps it, esc ends it", dim}}
	case v.filter != "":
		return screenLine{{fit(" only what holds "+oneLine(v.filter), width), warn}, {"  esc ends that  / another", dim}}
	case v.help:
		text = " any key goes back"
	}
	return screenLine{{fit(text, width), dim}}
}

// topBar is the first line: which node, how it stands, and when.
func topBar(s *topShown, problem string, paused bool, width int) screenLine {
	left := fmt.Sprintf(" steward top  %s  link %s  %s", s.Node.Node, map[bool]string{true: linkUp, false: linkDown}[s.Node.Linked], s.Node.Version)
	at := s.At.Local().Format("15:04:05") + " "
	st := bar
	switch {
	case problem != "":
		left, st = fmt.Sprintf(" steward top  %s  %s; this was at", s.Node.Node, oneLine(problem)), bad
	case paused:
		at, st = "held, from "+at, warn
	case !s.Node.Linked:
		st = warn
	}
	if width == 0 {
		return screenLine{{strings.TrimSpace(left) + "  " + at, st}}
	}
	at = fit(at, width)
	left = fit(oneLineKeeping(left), max(0, width-widthOf(at)-1))
	return screenLine{{left + strings.Repeat(" ", max(0, width-widthOf(left)-widthOf(at))) + at, st}}
}

// oneLineKeeping is oneLine that keeps blanks.
func oneLineKeeping(text string) string {
	words := strings.Split(text, " ")
	for i := range words {
		words[i] = oneLine(words[i])
	}
	return strings.Join(words, " ")
}

// topSums is the second line: all of it in a few numbers.
func topSums(s *topShown, width int) screenLine {
	var messages, bytes uint64
	var perSecond, bytesPerSecond float64
	silent := 0
	for _, st := range s.Streams {
		messages, bytes = messages+st.Messages, bytes+st.Bytes
		perSecond, bytesPerSecond = perSecond+st.MessagesPerSecond, bytesPerSecond+st.BytesPerSecond
	}
	for _, n := range s.Nodes {
		if n.Link == linkSilent || n.Link == linkDown {
			silent++
		}
	}
	var l screenLine
	left := width
	add := func(text string, st style) {
		if width > 0 {
			text = fit(text, max(0, left))
			left -= widthOf(text)
		}
		l = append(l, piece{text, st})
	}
	if width > 0 {
		add(" ", plain)
	}
	add(count(len(s.Nodes), "node"), plain)
	if silent > 0 {
		add(fmt.Sprintf(", %d silent", silent), bad)
	}
	add(fmt.Sprintf("   %d waiting, %s", messages, size(bytes)), plain)
	add(fmt.Sprintf("   out %s msg/s, %s/s", rate(perSecond), size(uint64(bytesPerSecond))), plain)
	add(fmt.Sprintf("   %d running here", len(s.Runs)), plain)
	if n := len(s.Processes.Others); n > 0 {
		add(fmt.Sprintf("   %d down", n), warn)
	}
	return l
}

// rate is a number of things per second as people say it.
func rate(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 10:
		return fmt.Sprintf("%.1f", n)
	case n < 10_000:
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.0fk", n/1000)
}

// tables are the parts with the rows that the filter leaves.
func (v *topView) tables(s *topShown) []topTable {
	all := []topTable{nodesTable(s), streamsTable(s), runsTable(s), errorsTable(s)}
	if v.filter == "" {
		return all
	}
	wanted := strings.ToLower(v.filter)
	for i := range all {
		all[i].rows = slices.DeleteFunc(all[i].rows, func(row []piece) bool {
			return !slices.ContainsFunc(row, func(p piece) bool { return strings.Contains(strings.ToLower(p.text), wanted) })
		})
		all[i].none = "nothing here holds that"
	}
	return all
}

func nodesTable(s *topShown) topTable {
	t := topTable{name: "NODES", none: "none", columns: []topColumn{{head: "NODE"}, {head: "LINK"}, {head: "HEARD", right: true}, {head: "WAITING", right: true},
		{head: "OLDEST", right: true}, {head: "VERSION"}, {head: "TEXT"}}}
	for i, n := range s.Nodes {
		heard := "never"
		if n.Heard != nil {
			heard = wholeSpan(s.At.Sub(*n.Heard)) + " ago"
		}
		if i == 0 && n.Heard == nil {
			heard = "-"
		}
		link := map[string]style{linkUp: good, linkAnswers: good, linkDown: bad, linkSilent: bad}[n.Link]
		name := plain
		if i == 0 {
			name = bold
		}
		t.row(piece{string(n.Node), name}, piece{n.Link, link}, piece{heard, plain}, piece{fmt.Sprint(n.Waiting), plain}, age(s.At, n.Oldest),
			piece{n.Version, dim}, piece{n.Text, dim})
	}
	return t
}

// age is how long ago something was.
func age(now time.Time, t *time.Time) piece {
	if t == nil {
		return piece{"-", dim}
	}
	return piece{wholeSpan(now.Sub(*t)), plain}
}

// wholeSpan is span in whole seconds, which do not dance.
func wholeSpan(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	}
	return span(d)
}

func streamsTable(s *topShown) topTable {
	t := topTable{name: "STREAMS", none: "nothing waits", columns: []topColumn{{head: "TO"}, {head: "METHOD"}, {head: "DEPTH", right: true}, {head: "SIZE", right: true},
		{head: "OLDEST", right: true}, {head: "TRIES", right: true}, {head: "NEXT", right: true}, {head: "MSG/S", right: true}, {head: "B/S", right: true}, {head: "WHY"}}}
	rows := slices.Clone(s.Streams)
	slices.SortStableFunc(rows, func(a, b topStream) int { // what waits longest is what is looked for
		switch {
		case a.Accepted != nil && b.Accepted != nil:
			return a.Accepted.Compare(*b.Accepted)
		case a.Accepted == nil && b.Accepted == nil:
			return 0
		}
		return map[bool]int{true: -1, false: 1}[a.Accepted != nil]
	})
	for _, st := range rows {
		tries, next, why := piece{"-", dim}, piece{"-", dim}, ""
		if d := st.Delivery; d != nil {
			tries, next, why = deliveryPieces(s.At, d)
		}
		perSecond, bytes := piece{"-", dim}, piece{"-", dim}
		if st.MessagesPerSecond > 0 {
			perSecond, bytes = piece{rate(st.MessagesPerSecond), good}, piece{size(uint64(st.BytesPerSecond)), good}
		}
		t.row(piece{string(st.To), plain}, piece{string(st.Method), plain}, piece{fmt.Sprint(st.Messages), plain}, piece{size(st.Bytes), plain},
			age(s.At, st.Accepted), tries, next, perSecond, bytes, piece{why, dim})
	}
	return t
}

func deliveryPieces(now time.Time, d *client.Delivery) (tries, next piece, why string) {
	tries, next = piece{"0", dim}, piece{"-", dim}
	if d.Attempts > 0 {
		tries = piece{fmt.Sprint(d.Attempts), warn}
		if d.Retries > 0 {
			tries.text += fmt.Sprintf("/%d", d.Retries)
		}
	}
	switch {
	case !d.Linked:
		next, why = piece{"no link", bad}, "there is no link to the broker"
	case d.Next != nil:
		next = piece{"in " + wholeSpan(d.Next.Sub(now)), plain}
	}
	return tries, next, cmp.Or(d.Reason, why)
}

func runsTable(s *topShown) topTable {
	t := topTable{name: "RUNS HERE", none: "nothing runs here", columns: []topColumn{{head: "METHOD"}, {head: "FROM"}, {head: "FOR", right: true}, {head: "WHAT"}}}
	for _, r := range s.Runs {
		what := strings.Join(r.Data, " ")
		if r.Attempt > 1 {
			what = fmt.Sprintf("(run %d) %s", r.Attempt, what)
		}
		t.row(piece{string(r.Method), plain}, piece{string(r.From), plain}, age(s.At, &r.Started), piece{what, plain})
	}
	for _, p := range s.Processes.Others {
		t.row(piece{p.Name, warn}, piece{"-", dim}, age(s.At, &p.Since), piece{strings.TrimSuffix(p.State+": "+p.Error, ": "), warn})
	}
	return t
}

func errorsTable(s *topShown) topTable {
	t := topTable{name: "ERRORS", none: "no errors are known here", columns: []topColumn{{head: "AGO", right: true}, {head: "NODE"}, {head: "METHOD"}, {head: "WHAT"}}}
	if s.Node.Central != s.Node.Node {
		t.none += "; those of this node are on " + string(s.Node.Central)
	}
	for _, e := range s.Errors {
		ago, text := piece{"-", dim}, e.Text
		if at, err := time.Parse(time.RFC3339, e.Time); err == nil {
			ago = age(s.At, &at)
		} else { // somebody else has written that line
			text = strings.TrimSpace(e.Time + " " + e.Text)
		}
		facts := pairs(e.Text)
		t.row(ago, piece{facts["node"], plain}, piece{facts["method"], plain}, piece{cmp.Or(facts["cause"], text), plain})
	}
	return t
}

// pairs takes a text of key=value pairs apart, of which some are quoted.
func pairs(text string) map[string]string {
	all := map[string]string{}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		key, rest, ok := strings.Cut(text, "=")
		if !ok {
			break
		}
		value, err := strconv.QuotedPrefix(rest)
		if err != nil {
			value, text, _ = strings.Cut(rest, " ")
			all[key] = value
			continue
		}
		text = rest[len(value):]
		all[key], _ = strconv.Unquote(value) // it has just been found to be quoted
	}
	return all
}
