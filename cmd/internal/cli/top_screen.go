//go:build !nobroker

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gdamore/tcell/v2"
)

// runScreen shows the live view until somebody ends it. It begins with s.
//
// It is not in the program for small machines, which is built without the broker: what it is made of is linked
// into the node as well.
func runScreen(ctx context.Context, w *topWatch, s topShown, every time.Duration) error {
	screen, err := tcell.NewScreen()
	if err != nil && os.Getenv("TERM") != "" { // one that tcell does not know: those of today do what an xterm does
		if err = os.Setenv("TERM", "xterm-256color"); err == nil {
			screen, err = tcell.NewScreen()
		}
	}
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return hinted{fmt.Errorf("this terminal cannot be used: %w", err), "steward top -once prints one picture as text"}
	}
	events := make(chan tcell.Event)
	ctx, cancel := context.WithCancel(ctx)
	var over sync.WaitGroup
	defer over.Wait()
	defer screen.Fini()
	defer cancel()
	over.Go(func() { screen.ChannelEvents(events, ctx.Done()) })
	looks := make(chan looked)
	over.Go(func() { w.lookAgain(ctx, every, looks) })

	view, problem := &topView{}, ""
	shown := s // what is on the screen: when it is held, not the latest
	for {
		draw(screen, view, &shown, problem)
		select {
		case e, ok := <-events:
			if !ok {
				return ctx.Err()
			}
			switch e := e.(type) {
			case *tcell.EventResize:
				screen.Sync()
			case *tcell.EventKey:
				if view.key(keyOf(e)) {
					return nil
				}
				if !view.paused {
					shown = s
				}
			}
		case l := <-looks:
			if problem = ""; l.err != nil {
				problem = l.err.Error() // it may come back
			} else {
				s = l.shown
			}
			if !view.paused {
				shown = s
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// looked is what a look at the node has brought.
type looked struct {
	shown topShown
	err   error
}

// lookAgain looks at the node again and again, until ctx ends.
func (w *topWatch) lookAgain(ctx context.Context, every time.Duration, looks chan<- looked) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s, err := w.look(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("the node does not answer")
		}
		select {
		case looks <- looked{s, err}:
		case <-ctx.Done():
			return
		}
	}
}

// styles are the looks. The colours are those of the terminal, so that they can be read on any ground.
var styles = map[style]tcell.Style{
	plain:   tcell.StyleDefault,
	dim:     tcell.StyleDefault.Dim(true),
	bold:    tcell.StyleDefault.Bold(true),
	bar:     tcell.StyleDefault.Reverse(true),
	head:    tcell.StyleDefault.Bold(true).Underline(true),
	focused: tcell.StyleDefault.Bold(true).Reverse(true),
	good:    tcell.StyleDefault.Foreground(tcell.ColorGreen),
	warn:    tcell.StyleDefault.Foreground(tcell.ColorOlive),
	bad:     tcell.StyleDefault.Foreground(tcell.ColorMaroon).Bold(true),
}

func draw(screen tcell.Screen, v *topView, s *topShown, problem string) {
	screen.Clear()
	width, height := screen.Size()
	for y, line := range v.frame(s, problem, width, height) {
		x := 0
		for _, p := range line {
			screen.PutStrStyled(x, y, p.text, styles[p.style])
			x += widthOf(p.text)
		}
	}
	screen.Show()
}

// keyOf is what the view calls a key.
func keyOf(e *tcell.EventKey) topKey {
	switch e.Key() {
	case tcell.KeyRune:
		return topKey(e.Rune())
	case tcell.KeyTab:
		return keyTab
	case tcell.KeyBacktab:
		return keyBackTab
	case tcell.KeyLeft:
		return keyLeft
	case tcell.KeyRight:
		return keyRight
	case tcell.KeyUp:
		return keyUp
	case tcell.KeyDown:
		return keyDown
	case tcell.KeyPgUp:
		return keyPageUp
	case tcell.KeyPgDn:
		return keyPageDown
	case tcell.KeyHome:
		return keyHome
	case tcell.KeyEnd:
		return keyEnd
	case tcell.KeyEnter:
		return keyEnter
	case tcell.KeyEscape:
		return keyEscape
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		return keyBackspace
	case tcell.KeyCtrlC:
		return keyInterrupt
	}
	return ""
}
