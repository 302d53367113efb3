package control

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"steward/client"
	"steward/process"
)

// runDataBytes bounds how much of the arguments of a run is told.
const runDataBytes = 1 << 10

// runs answers what runs now.
func (s *Server) runs(a *answer, _ *http.Request) error {
	for _, r := range s.opt.Progress.Runs() {
		m := r.Message
		err := a.line(client.Run{ID: m.ID, From: m.From, Method: m.Method, Data: beginOf(m.Data, runDataBytes), Started: r.Started.UTC(), Attempt: r.Attempt})
		if err != nil {
			return err
		}
	}
	return nil
}

// beginOf is so many bytes of texts at most, and what was cut off ends with dots.
func beginOf(texts []string, most int) (cut []string) {
	for _, t := range texts {
		if len(t) <= most {
			most -= len(t)
			cut = append(cut, t)
			continue
		}
		for most > 0 && !utf8.RuneStart(t[most]) {
			most--
		}
		return append(cut, t[:most]+"…")
	}
	return cut
}

// traffic answers how much was delivered on which stream, sorted.
func (s *Server) traffic(a *answer, _ *http.Request) error {
	all := s.opt.Queue.Traffic()
	slices.SortFunc(all, func(x, y process.Traffic) int {
		return cmp.Or(strings.Compare(string(x.Peer), string(y.Peer)), strings.Compare(string(x.Method), string(y.Method)))
	})
	for _, t := range all {
		if err := a.line(client.Traffic{To: t.Peer, Method: t.Method, Messages: t.Messages, Bytes: t.Bytes}); err != nil {
			return err
		}
	}
	return nil
}
