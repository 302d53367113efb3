package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memory is what a process has resident, and the most it ever had, in bytes.
func (p *proc) memory() (now, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib * 1024
		case "VmHWM:":
			peak = kib * 1024
		}
	}
	return now, peak, nil
}

// cpu is how long the threads of a process have run so far, those that have ended not counted.
func (p *proc) cpu() (time.Duration, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid()))
	if err == nil && len(stats) == 0 {
		err = fmt.Errorf("no /proc/%d/task", p.pid())
	}
	var sum time.Duration
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		if f := bytes.Fields(b); len(f) > 0 {
			ns, _ := strconv.ParseInt(string(f[0]), 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum, err
}

// written is how many bytes a process had the disk write so far.
func (p *proc) written() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(text), 64)
		}
	}
	return 0, nil
}

// counters are what optimising starts from: what a node has used so far.
type counters struct{ cpu, allocs, allocated, written, commits float64 }

func (n *nodeProc) counters() (c counters, err error) {
	m, err := scrape(n.metrics)
	if err != nil {
		return c, err
	}
	c.allocs, c.allocated = m["go_memstats_mallocs_total"], m["go_memstats_alloc_bytes_total"]
	cpu, err := n.cpu()
	if err != nil {
		return c, err
	}
	c.cpu = float64(cpu)
	if c.written, err = n.written(); err != nil {
		return c, err
	}
	c.commits, err = n.commits()
	return c, err
}

// spent notes what a node used for each of so many messages.
func (n *nodeProc) spent(f figures, prefix string, before counters, messages int) error {
	now, err := n.counters()
	if err != nil {
		return err
	}
	each := func(now, before float64) float64 { return (now - before) / float64(messages) }
	f[prefix+".cpu"] = each(now.cpu, before.cpu) / 1000
	f[prefix+".allocs"] = each(now.allocs, before.allocs)
	f[prefix+".allocated"] = each(now.allocated, before.allocated)
	f[prefix+".written"] = each(now.written, before.written)
	f[prefix+".commits"] = each(now.commits, before.commits) * 1000
	return nil
}

// spentRows show what spent has noted.
func spentRows(prefix, who string) []row {
	return []row{
		{key: prefix + ".cpu", text: who + ", processor a message", unit: "µs"},
		{key: prefix + ".allocs", text: who + ", allocations a message", unit: ""},
		{key: prefix + ".allocated", text: who + ", allocated a message", unit: "B"},
		{key: prefix + ".written", text: who + ", written to disk a message", unit: "B"},
		{key: prefix + ".commits", text: who + ", commits per 1,000 messages", unit: ""},
	}
}

// commits is how many write transactions the database of a node has seen. Each has two syncs. It is
// read from the two meta pages of the file, whose layout bbolt has had from its beginning: the node
// has the file locked.
func (n *nodeProc) commits() (float64, error) {
	const number = 16 + 48 // behind the head of the page and what comes first on it
	f, err := os.Open(filepath.Join(n.home, "lib", n.name+".db"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var last uint64
	for page := range int64(2) {
		var b [8]byte
		if _, err := f.ReadAt(b[:], page*int64(os.Getpagesize())+number); err != nil {
			return 0, err
		}
		last = max(last, binary.NativeEndian.Uint64(b[:]))
	}
	return float64(last), nil
}

// traffic is what a broker has taken from its clients so far, and who they are.
type traffic struct {
	Messages      float64 `json:"in_msgs"`
	Bytes         float64 `json:"in_bytes"`
	Connections   int     `json:"connections"`
	Subscriptions int     `json:"subscriptions"`
}

func (b *brokerProc) traffic() (t traffic, err error) {
	text, err := fetch("http://" + b.monitor + "/varz")
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(text, &t)
}

// profileFor is how long a CPU profile is taken. What does not run is not in it, so that it may be
// longer than what it is about.
const profileFor = 10 * time.Second

func (l *lab) profiled() bool { return l.profile != "" && l.first }

// profileNodes takes CPU profiles from now on; the returned function waits until they are written.
func (l *lab) profileNodes(scenario string, nodes ...*nodeProc) (wait func() error) {
	if !l.profiled() {
		return func() error { return nil }
	}
	done := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() {
			b, err := fetch(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", n.pprof, int(profileFor.Seconds())))
			if err == nil {
				err = os.WriteFile(filepath.Join(l.profile, scenario+"-"+n.name+".pprof"), b, 0o600)
			}
			done <- err
		}()
	}
	return func() error {
		for range nodes {
			select {
			case err := <-done:
				if err != nil {
					return fmt.Errorf("profile: %w", err)
				}
			case <-l.ctx.Done():
				return l.ctx.Err()
			}
		}
		return nil
	}
}
