package main

import (
	"fmt"
	"strconv"
)

// ledger keeps the messages of one stream, which are numbered from 0 on, and says whether what
// arrived is what was promised for them.
type ledger struct {
	sent []*entry
}

// entry is one message. Those of an array are accepted together or not at all.
type entry struct {
	array int
	id    string // empty: nobody said that it was accepted, and it may have been
}

// next adds n messages of an array and returns the numbers that they carry.
func (l *ledger) next(array, n int) []int {
	var numbers []int
	for range n {
		numbers = append(numbers, len(l.sent))
		l.sent = append(l.sent, &entry{array: array})
	}
	return numbers
}

// check compares what arrived with what was sent: in order if it has to be, nothing twice, and
// nothing missing that was accepted, unless it is excused; of an array that nobody answered for
// all or nothing, if whole.
func (l *ledger) check(arrived []string, inOrder, whole bool, excused func(number int, id string) error) error {
	got := make([]bool, len(l.sent))
	last := -1
	for at, line := range arrived {
		n, err := strconv.Atoi(line)
		switch {
		case err != nil || n < 0 || n >= len(l.sent):
			return fmt.Errorf("line %d is %q", at+1, line)
		case got[n]:
			return fmt.Errorf("%d came twice", n)
		case inOrder && n < last:
			return fmt.Errorf("%d came after %d", n, last)
		}
		got[n], last = true, n
	}
	for n, e := range l.sent {
		if e.id != "" && !got[n] {
			if excused == nil {
				return fmt.Errorf("%d is lost; it has the id %s", n, e.id)
			}
			if err := excused(n, e.id); err != nil {
				return fmt.Errorf("%d is lost; it has the id %s: %w", n, e.id, err)
			}
		}
		if whole && e.id == "" && n > 0 && l.sent[n-1].array == e.array && got[n-1] != got[n] {
			return fmt.Errorf("of array %d only a part came, up to %d", e.array, n)
		}
	}
	return nil
}
