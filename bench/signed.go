package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// signed starts central and ship1 anew, with signatures that both require, and returns how fast the
// same number of messages is delivered then.
func (l *lab) signed(b *brokerProc, central, ship *nodeProc, n int) (float64, error) {
	keys := map[string]string{}
	for _, p := range []*nodeProc{central, ship} {
		if err := l.stop(p.proc); err != nil {
			return 0, err
		}
		key, err := l.keys(p.home, "new")
		if err != nil {
			return 0, err
		}
		keys[p.name] = key
	}
	for _, of := range [][2]*nodeProc{{central, ship}, {ship, central}} {
		if _, err := l.keys(of[0].home, "trust", of[1].name, keys[of[1].name]); err != nil {
			return 0, err
		}
	}
	var nodes []*nodeProc
	for _, name := range []string{central.name, ship.name} {
		p, err := l.node(name, b.addr, "-signatures=require")
		if err != nil {
			return 0, err
		}
		if err := l.connected(p); err != nil {
			return 0, err
		}
		nodes = append(nodes, p)
	}
	profiled := l.profileNodes("S2-signed", nodes...)
	began := time.Now()
	if _, err := hand(l.ctx, nodes[0].socket, order{to: ship.name, file: "signed", n: n, array: 1000}); err != nil {
		return 0, err
	}
	at, err := l.arrived(nodes[1].file(central.name, "signed"), n)
	if err != nil {
		return 0, err
	}
	return rate(n, at.Sub(began)), profiled()
}

// keys runs steward keys on the files of a node, and returns what it prints.
func (l *lab) keys(home, command string, args ...string) (string, error) {
	args = append([]string{"keys", command, "-configFolder=" + filepath.Join(home, "etc")}, args...)
	out, err := exec.CommandContext(l.ctx, l.steward, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("steward keys %s: %w: %s", command, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
