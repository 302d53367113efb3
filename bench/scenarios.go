package main

// scenario is one step of the benchmark. Each of its runs begins in an empty folder.
type scenario struct {
	name, title string
	run         func(l *lab, f figures) error
	rows        []row
}

// scenarios are all of them, in the order of the table.
func scenarios() []scenario {
	return []scenario{accepting, delivering, roundTrip, farAway, longQueue, idle, returning, fleet}
}
